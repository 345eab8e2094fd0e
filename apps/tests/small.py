"""Commands so small that each takes a second, with no dropout, which every process would draw for itself."""

from pathlib import Path
from typing import Any

from gen_apps.__main__ import main
from gen_core import Run

DIFFUSION = (
    "diffusion train {} --size 8 --optim.steps 8 --optim.batch-size 8 --optim.lr 1e-3 --sampler.steps 4 "
    "--network.width 8 --network.blocks 1 --network.dropout 0 --machine.device cpu"
)
VAE = (
    "vae train {} --size 8 --optim.steps 6 --optim.batch-size 16 --network.width 16 --network.depth 1 "
    "--network.dropout 0 --latents 3 --components 2 --conditional --binarise --machine.device cpu"
)
GAN = (
    "gan train {} --size 8 --optim.steps 6 --optim.batch-size 8 --width 16 --latents 4 --conditional "
    "--network residual --augment shift cutout --machine.device cpu"
)
STEPS = "--optim.steps 4 --optim.batch-size 8 --machine.device cpu"
ENGLISH = "The cat sees the dog and the dog sees the cat in the garden of the house.\n" * 20


def gen(*words: str) -> None:
    main([part for word in words for part in word.split()])


def trained(run: Path) -> dict[str, Any]:
    """Metrics of the last step of training; lines below it are of samples that another test has drawn."""
    metrics = Run(run).metrics()
    return next(entry for entry in metrics if entry["step"] == metrics[-1]["step"])
