"""`gen trajectory sample`."""

from gen_apps.samples import write_samples
from gen_apps.trajectory.config import SampleTrajectory
from gen_apps.trajectory.trained import TrainedTrajectory
from gen_core.callbacks import bar
from gen_diffusion.motion import caption, describe, parse, spread, tag
from gen_diffusion.trajectory import plot, to_poses


def sample(config: SampleTrajectory) -> None:
    requested = parse(config.prompt)
    trained = TrainedTrajectory.open(config.run, config.device)
    sampler = config.sampler(trained.config.sampler)
    with bar("sampling", config.n) as advance:
        x = write_samples(
            config,
            trained,
            lambda: trained.generate([config.prompt] * config.n, seed=config.seed, sampler=sampler, progress=advance),
            lambda x: {"features": x, "poses": to_poses(x.double())},
            lambda x, file: plot(x, file, [describe(t) for t in tag(x)]),
        )
    wanted = spread(requested, trained.config.frames)
    print(f"prompt: {caption(requested)!r}")
    for i, t in enumerate(tag(x)):
        agree = (t == wanted).double().mean()
        print(f"{i}: {describe(t)} ({agree:.0%} of the frames as requested)")
