"""Camera trajectories from captions: `gen trajectory train` and `gen trajectory sample`."""
