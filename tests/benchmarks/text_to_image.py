"""Pictures from captions, judged by rule: scenes of two objects, and emoji by their names.

    uv run python tests/benchmarks/text_to_image.py scenes
    uv run python packages/gen-diffusion/scripts/emoji.py emoji
    uv run python tests/benchmarks/text_to_image.py emoji --pictures emoji

`scenes` trains on four fifths of the combinations of shapes, colours and relations, and counts with
`gen_diffusion.scenes.accuracy` how often a caption gets what it says, for combinations that were seen and for those
that were not. `emoji` trains on glyphs with their Unicode names as captions; a picture drawn for a name is right if
the glyph of that name is among the 5 nearest of 200 known ones. Both take some 20 minutes of one CPU core.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen_core import EMA, Arrays, Loader, Progress, Trainer, every, pictures, seed_all, select_device
from gen_core.ema import power
from gen_core.runtime import generator
from gen_core.schedule import warmup_cosine
from gen_diffusion import DiffusionTask, Preconditioned, UNet, cfg, draw, karras, log_normal
from gen_diffusion.scenes import Scene, accuracy, combinations, draw_scenes
from gen_diffusion.text import Texted, TextEncoder, Words, tokenise

Ids = Callable[[Sequence[str]], Tensor]
Judge = Callable[[int, Preconditioned, Ids], None]
WEIGHTS = 1.0, 2.0  # of classifier-free guidance


def train(x0: Tensor, captions: list[str], judge: Judge, args: argparse.Namespace) -> None:
    """Train a denoiser told captions; `judge` sees it five times on the way, the last time as it is in the end."""
    words = Words.fit(captions)
    text = tokenise(captions, words)
    seed_all(0, "weights")
    encoder = TextEncoder(words.size, width=64, depth=2, length=text.shape[1])
    net = UNet(
        3, args.width, args.multipliers, blocks=args.blocks, attention=(1, 2), context_dim=64, dropout=args.dropout
    )
    denoiser = Preconditioned(Texted(net, encoder), x0.square().mean().sqrt().item())
    # Below sigma = 4 the noisy picture itself shows what is where: only above does it pay to read a caption's order.
    # With a mean of -0.6, 8 % of the levels are there and the objects came out right, in random order; with 1.0, 39 %.
    levels = partial(log_normal, mean=args.level_mean, std=1.4)
    task = DiffusionTask(denoiser, conditions={"text": 0}, levels=levels, lr=args.lr)
    ema = EMA("denoiser", power(0.10))

    def look(t: Trainer, metrics: dict) -> None:
        with ema.swapped():
            judge(t.step, denoiser, lambda texts: tokenise(texts, words, text.shape[1]))

    trainer = Trainer(
        task,
        schedule=warmup_cosine(args.steps // 20, args.steps),
        clip=1.0,
        device=args.device,
        callbacks=[ema, Progress(args.steps), every(max(1, args.steps // 6), look)],
    )
    start, parameters = time.monotonic(), sum(p.numel() for p in denoiser.parameters())
    trainer.fit(Loader(Arrays(x0, text), args.batch), args.steps)
    seconds = time.monotonic() - start
    print(f"{parameters} parameters, {args.steps} steps of {args.batch} in {seconds:.0f} s")


def scenes(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    x0, drawn = draw_scenes(args.n, generator("scenes"), size=16, split="seen")
    pick = torch.randperm(864, generator=generator("pick"))[:216].tolist()
    seen, held_out = [combinations("seen")[i] for i in pick], list(combinations("held out"))

    def judge(step: int, denoiser: Preconditioned, ids: Ids) -> None:
        def paint(wanted: list[Scene], weight: float) -> Tensor:
            text, rows = ids([scene.caption for scene in wanted]), range(len(wanted))
            return draw(cfg(denoiser, weight), rows, (3, 16, 16), karras(18), text=text, device=device)

        last = step == args.steps
        for weight in WEIGHTS if last else WEIGHTS[1:2]:
            for name, wanted in ("seen", seen), ("held out", held_out):
                figures = accuracy(paint(wanted if last else wanted[:64], weight), wanted if last else wanted[:64])
                line = ", ".join(f"{k} {v:.3f}" for k, v in figures.items())
                print(f"step {step}, guidance {weight:.1f}, {name}: {line}", flush=True)
        shown = seen[:20] + held_out[:20]
        pictures.save(args.out or Path("scenes.png"), paint(shown, WEIGHTS[1]), columns=10)
        if last:
            print("two rows of seen captions, two of held out:", "; ".join(scene.caption for scene in shown))

    train(x0, [scene.caption for scene in drawn], judge, args)


def emoji(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    paths = sorted(args.pictures.rglob("*.png"))
    x0 = torch.from_numpy(np.stack([np.asarray(Image.open(p).convert("RGB").resize((32, 32))) for p in paths]))
    x0 = x0.permute(0, 3, 1, 2).float() / 127.5 - 1
    captions = [path.stem.lower().replace("_", " ").replace("-", " ") for path in paths]
    pick = torch.randperm(len(x0), generator=generator("pick"))[:200]
    names, glyphs = [captions[i] for i in pick.tolist()], x0[pick]

    def judge(step: int, denoiser: Preconditioned, ids: Ids) -> None:
        for weight in WEIGHTS if step == args.steps else WEIGHTS[1:2]:
            rows = range(len(names))
            x = draw(cfg(denoiser, weight), rows, (3, 32, 32), karras(18), text=ids(names), device=device)
            rank = torch.cdist(x.flatten(1), glyphs.flatten(1)).argsort(1).argsort(1).diagonal()
            line = ", ".join(f"top {k} {(rank < k).float().mean().item():.3f}" for k in (1, 5))
            print(f"step {step}, guidance {weight:.1f}, its glyph among the nearest of 200: {line}", flush=True)
            if weight == WEIGHTS[1]:
                rows_of_ten = [p[:40].unflatten(0, (4, 10)) for p in (glyphs, x)]
                pictures.save(args.out or Path("emoji.png"), torch.stack(rows_of_ten, 1).flatten(0, 2), columns=10)
        if step == args.steps:
            print("rows of glyphs, under each what was drawn for its name:", "; ".join(names[:40]))

    train(x0, captions, judge, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scenes", "emoji"])
    parser.add_argument("--pictures", type=Path, default=Path("emoji"), help="folder of emoji, of any depth")
    parser.add_argument("--n", type=int, default=40_000, help="scenes to train on")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--level-mean", type=float, default=1.0, help="of ln(sigma): layout is decided above sigma = 4")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--multipliers", type=int, nargs="+", default=(1, 4, 4))
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="picture to write; by default scenes.png or emoji.png")
    args = parser.parse_args()
    {"scenes": scenes, "emoji": emoji}[args.what](args)


if __name__ == "__main__":
    main()
