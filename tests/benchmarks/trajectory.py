"""Camera trajectories from captions: do they do what the caption says, and does CLaTr find the right one?

    OMP_NUM_THREADS=1 python tests/benchmarks/trajectory.py cross-attention    # or adaln, in-context, clatr

A small Director (4 blocks of 96, patches of 10 frames) or CLaTr learns on 16,384 drawn trajectories, on the CPU with
one thread, for some four minutes of an idle core. Director is judged as in E.T.: the tags of 512 trajectories, drawn
with guidance 1.4 in 10 Heun steps, against those that their captions ask for, macro F1 over frames. Beside it stand the
ceiling (drawn trajectories of the same captions, whose segments begin a little early or late) and two floors (another
caption's tags; a network that was not trained). CLaTr is judged by retrieval among 256 pairs with distinct captions.
All captions are new: the trajectories of training have others.
"""

import sys
import time
from functools import partial

import torch

from gen_core import EMA, Arrays, Loader, Trainer, seed_all
from gen_core.ema import power
from gen_core.runtime import generator
from gen_core.schedule import warmup_cosine
from gen_diffusion.clatr import CLaTr, CLaTrTask, compare, retrieval
from gen_diffusion.denoise import Preconditioned
from gen_diffusion.director import Director
from gen_diffusion.draw import draw
from gen_diffusion.guide import cfg
from gen_diffusion.loss import log_normal
from gen_diffusion.motion import (
    TAGS,
    Trajectories,
    caption,
    describe,
    draw_trajectories,
    motion_score,
    parse,
    spread,
    tag,
)
from gen_diffusion.schedule import karras
from gen_diffusion.task import DiffusionTask
from gen_diffusion.text import Texted, TextEncoder, Words, tokenise

BATCH, N = 64, 16_384
LEVELS = partial(log_normal, mean=0.8, std=1.6)  # higher than for pictures: see Director


def data(n_test: int) -> tuple[Trajectories, Trajectories]:
    """(training, test): the test's captions are distinct, and none of them is one of the training's."""
    train = draw_trajectories(N, generator=generator(0, "train"))
    more = draw_trajectories(8 * n_test, generator=generator(0, "test"))
    seen, chosen = set(train.captions), []
    for i, text in enumerate(more.captions):
        if text not in seen:
            seen.add(text)
            chosen.append(i)
    chosen = chosen[:n_test]
    return train, Trajectories(more.features[chosen], more.tags[chosen], [more.captions[i] for i in chosen])


def fit(task, arrays: Arrays, module: str, steps: int) -> EMA:
    ema, start, busy = EMA(module, power(0.10)), time.perf_counter(), time.process_time()
    trainer = Trainer(task, clip=1.0, schedule=warmup_cosine(steps // 20, steps), callbacks=[ema], device="cpu")
    trainer.fit(Loader(arrays, BATCH), steps)
    print(f"{steps} steps in {time.perf_counter() - start:.0f} s, {time.process_time() - busy:.0f} s of it on a core")
    return ema


def director(way: str, steps: int = 1500) -> None:
    train, test = data(512)
    words = Words.fit([caption(range(TAGS))])
    seed_all(0, "weights")
    net = Director(width=96, depth=4, heads=4, patch=10, conditioning=way, context_dim=64)
    denoiser = Preconditioned(Texted(net, TextEncoder(words.size, 64)), train.features.square().mean().sqrt().item())
    task = DiffusionTask(denoiser, conditions={"text": 0}, levels=LEVELS, lr=2e-3)
    text = tokenise(test.captions, words)
    wanted = torch.stack([spread(parse(c), 300) for c in test.captions])

    def drawn() -> torch.Tensor:
        return tag(draw(cfg(denoiser, 1.4), range(len(text)), (300, 9), karras(10), text=text))

    print(f"{way}: {sum(p.numel() for p in denoiser.parameters()):,} parameters")
    untrained = motion_score(drawn(), wanted)
    ema = fit(task, Arrays(train.features, tokenise(train.captions, words)), "denoiser", steps)
    with ema.swapped():
        tags = drawn()
    rows = {
        "generated": motion_score(tags, wanted),
        "ceiling: drawn": motion_score(tag(test.features), wanted),
        "floor: another caption": motion_score(tags, wanted.roll(1, 0)),
        "floor: untrained": untrained,
    }
    for name, score in rows.items():
        print(f"{name:24} precision {score.precision:.3f}  recall {score.recall:.3f}  F1 {score.f1:.3f}")
    exact = sum(describe(t) == c for t, c in zip(tags, test.captions, strict=True)) / len(tags)
    print(f"caption of the tags is the caption asked for: {exact:.3f}")


def clatr(steps: int = 600) -> None:
    train, test = data(256)
    words = Words.fit([caption(range(TAGS))])
    seed_all(0, "weights")
    net = CLaTr(words.size, width=64, depth=2, latent=64, patch=10)
    print(f"CLaTr: {sum(p.numel() for p in net.parameters()):,} parameters")

    @torch.no_grad()
    def row(name: str) -> None:
        z, z_test = net.text(tokenise(test.captions, words)).mean, net.trajectory(test.features).mean
        other = net.trajectory(train.features[: len(z)]).mean
        right, back, wrong = compare(z, z_test, other), retrieval(z_test, z), compare(z, z_test.roll(1, 0), other)
        print(
            f"{name:10} R@1 {right['R@1']:.3f} (caption by trajectory {back:.3f})  R@5 {right['R@5']:.3f}  "
            f"CLaTr score {right['clatr_score']:.1f}, of another caption {wrong['clatr_score']:.1f}  "
            f"Frechet distance to other trajectories {right['frechet_clatr']:.3f}"
        )

    row("untrained")
    task = CLaTrTask(net, lr=2e-3, nce_weight=1.0)
    ema = fit(task, Arrays(train.features, tokenise(train.captions, words)), "clatr", steps)
    with ema.swapped():
        row("trained")


if __name__ == "__main__":
    clatr() if sys.argv[1] == "clatr" else director(sys.argv[1])
