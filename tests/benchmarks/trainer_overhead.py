"""What a training loop adds to an update: ours, Accelerate's and Lightning's beside a bare PyTorch loop.

    uv run --group peers python tests/benchmarks/trainer_overhead.py

The same network, data, batches and AdamW update in each loop, on the CPU with one thread, about 1 ms a step. Times are
the process's own CPU seconds, which a busy machine does not stretch as it does the clock's. The loops take turns, a
round of each at a time. Each runs for 200 and for 800 steps: the slope is the cost of a step, and what is left the cost
of a run (a checkpoint, an evaluation, the first batch). Printed are (least / least of the bare loop) - 1, which other
processes disturb least, and the median over rounds of (loop / bare loop) - 1 with its quartiles.
"bare + DataLoader" is what the loader of the peers costs; "gen-core + callbacks" has those of the apps, with a moving
average of the weights, and is compared with a bare loop that has none.
"""

import importlib.util
import logging
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import torch
from torch import nn

from gen_core import EMA, Arrays, Checkpoint, Evaluate, Jsonl, Loader, Progress, Task, Trainer, every
from gen_core.ema import power
from gen_core.runtime import generator

WIDTH, BATCH, N = 192, 128, 4096


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 64))


x = torch.randn(N, 64, generator=generator("x"))
y = torch.randn(N, 64, generator=generator("y"))


def bare(steps: int, averaged: bool = False) -> float:
    net = network()
    average = network() if averaged else None
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    start = time.process_time()
    step = 0
    while step < steps:
        order = torch.randperm(N)
        for i in range(0, N, BATCH):
            rows = order[i : i + BATCH]
            opt.zero_grad()
            loss = (net(x[rows]) - y[rows]).square().mean()
            loss.backward()
            opt.step()
            step += 1
            if average is not None:
                with torch.no_grad():
                    for mean, value in zip(average.parameters(), net.parameters(), strict=True):
                        mean.lerp_(value, 1 / step)
            if step == steps:
                break
    return time.process_time() - start


def bare_average(steps: int) -> float:
    return bare(steps, averaged=True)


def bare_loader(steps: int) -> float:
    net = network()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), BATCH, shuffle=True, drop_last=True)
    start = time.process_time()
    step = 0
    while step < steps:
        for a, b in loader:
            opt.zero_grad()
            loss = (net(a) - b).square().mean()
            loss.backward()
            opt.step()
            step += 1
            if step == steps:
                break
    return time.process_time() - start


class Regression(Task):
    def __init__(self):
        super().__init__()
        self.net = network()

    def optimizers(self):
        return {"net": torch.optim.AdamW(self.net.parameters(), lr=1e-3)}

    def loss(self, x, y):
        return (self.net(x) - y).square().mean()

    def step(self, batch, t):
        return {"loss": t.minimize("net", self.loss, *batch)}

    def evaluate(self, batch):
        x, y = batch
        return {"loss": (self.net(x) - y).square().mean(1)}


def ours(steps: int) -> float:
    trainer = Trainer(Regression(), device="cpu")
    data = Loader(Arrays(x, y), BATCH)
    start = time.process_time()
    trainer.fit(data, steps)
    return time.process_time() - start


def ours_watched(steps: int) -> float:
    """With the callbacks of the apps: the average, logs, progress, a picture, evaluations and a checkpoint."""
    ema, held_out = EMA("net", power(0.10)), Loader(Arrays(x[:512], y[:512]), 512)
    evaluations = Evaluate(held_out, every=steps, within=ema.swapped)
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [
            ema, evaluations, every(steps, lambda t, metrics: None), Jsonl(), Progress(steps), Checkpoint(every=steps)
        ]  # fmt: skip
        trainer = Trainer(Regression(), folder, device="cpu", callbacks=callbacks)
        data = Loader(Arrays(x, y), BATCH)
        start = time.process_time()
        trainer.fit(data, steps)
        return time.process_time() - start


def with_accelerate(steps: int) -> float:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    net = network()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), BATCH, shuffle=True, drop_last=True)
    net, opt, loader = accelerator.prepare(net, torch.optim.AdamW(net.parameters(), lr=1e-3), loader)
    start = time.process_time()
    step = 0
    while step < steps:
        for a, b in loader:
            with accelerator.accumulate(net):
                opt.zero_grad()
                loss = (net(a) - b).square().mean()
                accelerator.backward(loss)
                opt.step()
            step += 1
            if step == steps:
                break
    return time.process_time() - start


def with_lightning(steps: int) -> float:
    import lightning as L

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch):
            a, b = batch
            return (self.net(a) - b).square().mean()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.net.parameters(), lr=1e-3)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), BATCH, shuffle=True, drop_last=True)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    start = time.process_time()
    trainer.fit(Module(), loader)
    return time.process_time() - start


def seconds(loop, steps: int) -> float:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return loop(steps)


def main(rounds: int = 9, steps: int = 800) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    loops = {"bare PyTorch": bare, "bare + average": bare_average, "bare + DataLoader": bare_loader}
    loops |= {"gen-core": ours, "gen-core + callbacks": ours_watched}
    loops |= {"accelerate": with_accelerate, "lightning": with_lightning}
    for name, module in (("accelerate", "accelerate"), ("lightning", "lightning")):
        if importlib.util.find_spec(module) is None:
            del loops[name]
    for loop in loops.values():
        seconds(loop, 50)
    slopes: dict[str, list[float]] = {name: [] for name in loops}
    begins: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            short, whole = seconds(loop, steps // 4), seconds(loop, steps)
            slopes[name].append((whole - short) / (steps - steps // 4))
            begins[name].append(short - slopes[name][-1] * (steps // 4))
    print(f"bare loop: {statistics.median(slopes['bare PyTorch']) * 1e3:.3f} ms a step")
    for name in loops:
        ratios = [t / b for t, b in zip(slopes[name], slopes["bare PyTorch"], strict=True)]
        least = min(slopes[name]) / min(slopes["bare PyTorch"])
        low, middle, high = (f"{(q - 1) * 100:+.1f} %" for q in statistics.quantiles(ratios, n=4))
        print(
            f"{name:20s} {(least - 1) * 100:+6.1f} %, median {middle} ({low} to {high}), "
            f"{statistics.median(begins[name]) * 1e3:3.0f} ms a run"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
