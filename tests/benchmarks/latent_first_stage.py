"""First stages of latent diffusion against PCA of as many numbers: reconstruction of pictures that neither has seen.

    uv run python packages/gen-diffusion/scripts/emoji.py emoji --sequences
    uv run python tests/benchmarks/latent_first_stage.py emoji --kind kl --steps 1000
    uv run python tests/benchmarks/latent_first_stage.py emoji --kind codes --steps 1000

Pictures of 32 x 32 become a map of 8 x 8: of 4 latents each (kl), or of one code of 1,024 each (codes). A fifth of the
pictures are held out by what their names begin with, so that a figure and its variants (skin tones, genders) are on one
side. The discriminator takes part in the last fifth of the steps. Printed is the PSNR of the mean squared error, dB.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch

from gen_core import Arrays, Loader, Trainer
from gen_core.runtime import seed_all
from gen_core.schedule import warmup_cosine
from gen_latent import (
    ConvDecoder,
    ConvEncoder,
    FirstStageTask,
    KLAutoEncoder,
    PatchDiscriminator,
    QuantizedAutoEncoder,
    VectorQuantizer,
    perplexity,
)

LATENTS, CODES, DIM = 4, 1024, 16


def pictures(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """To train on and to test with, "n 3 32 32" in [-1, 1]."""
    import numpy as np
    from PIL import Image

    files = sorted(folder.rglob("*.png"))
    names = [file.stem.split(",")[0].split(" 1f")[0] for file in files]
    kinds = sorted(set(names))
    random.Random(0).shuffle(kinds)
    held = set(kinds[: len(kinds) // 5])
    x = torch.stack([torch.from_numpy(np.array(Image.open(file).convert("RGB"))) for file in files])
    x = x.permute(0, 3, 1, 2).float() / 127.5 - 1
    out = torch.tensor([name in held for name in names])
    return x[~out], x[out]


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    """Of values in [-1, 1]."""
    return 10 * math.log10(4 / (x - y).square().mean().item())


def pca(train: torch.Tensor, test: torch.Tensor, numbers: int) -> torch.Tensor:
    """The test pictures as the leading directions of the others have them."""
    a, b = train.flatten(1), test.flatten(1)
    mean = a.mean(0)
    directions = torch.linalg.svd(a - mean, full_matrices=False)[2][:numbers]
    return ((b - mean) @ directions.T @ directions + mean).reshape(test.shape)


def first_stage(kind: str, width: int, steps: int) -> FirstStageTask:
    out, latents = (2 * LATENTS, LATENTS) if kind == "kl" else (DIM, DIM)
    encoder, decoder = ConvEncoder(3, 32, out, width, spatial=2), ConvDecoder(3, 32, latents, width, spatial=2)
    if kind == "kl":
        model = KLAutoEncoder(encoder, decoder, latents)
    else:
        quantizer = VectorQuantizer(CODES, DIM, gradient="rotation", revive_below=0.1)
        model = QuantizedAutoEncoder(encoder, decoder, quantizer, latents)
    start = steps - steps // 5
    return FirstStageTask(model, PatchDiscriminator(3, 32), start=start, weight=0.1, lr=2e-3, d_lr=2e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=["kl", "codes"], default="kl")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=24)
    args = parser.parse_args()
    train, test = pictures(args.folder)
    numbers = 64 * LATENTS if args.kind == "kl" else 64
    linear = psnr(test, pca(train, test, numbers))
    print(f"{len(train)} pictures, {len(test)} held out; PCA of {numbers} numbers {linear:.2f}")
    seed_all(0)
    task = first_stage(args.kind, args.width, args.steps)
    trainer = Trainer(task, schedule=warmup_cosine(20, args.steps))
    data, start = Loader(Arrays(train), args.batch), time.perf_counter()
    for share, name in ((4 / 5, "before the discriminator"), (1, "with it")):
        trainer.fit(data, round(share * args.steps))
        task.eval()
        with torch.no_grad():
            y = torch.cat([task.model(x.to(trainer.device)).cpu() for x in test.split(256)])
        print(
            f"{args.kind}, {name}: {psnr(test, y):.2f} after {trainer.step} steps, {time.perf_counter() - start:.0f} s"
        )
    if args.kind == "codes":
        with torch.no_grad():
            index = torch.cat([task.model.parts(x.to(trainer.device))[1].index.cpu() for x in test.split(256)])
        print(f"perplexity of the codes {perplexity(index, CODES):.0f} of {CODES}")


if __name__ == "__main__":
    main()
