"""How low a character model gets in 1,000 steps of 768 characters: nanoGPT, ours by its recipe, ours by our own.

    uv run python tests/benchmarks/transformer_char.py TEXT NANOGPT [SEEDS]

TEXT is Shakespeare's works (42 plays and poems, 5,057,280 characters, 84 symbols), the first 90 % to train on;
NANOGPT is nanoGPT's folder (commit 3adf61e), whose CPU preset is the recipe: 4 layers, 128 wide, 4 heads, context 64,
12 rows, AdamW, 1e-3 after 100 steps of warm-up, a cosine to 1e-4, betas .9 and .99, weight decay .1, clip 1.

Printed are nats per character over the whole last 10 %, in windows of 64. On one thread, torch 2.15:

| | nats, by seed |
|---|---|
| nanoGPT | 2.109, 2.103 |
| ours, GPT-2's shape, nanoGPT's recipe | 2.109, 2.108 |
| ours, modern shape, AdamW | 1.802 |
| ours, modern shape, Muon | **1.647**, 1.649, 1.666 |

A step of Muon takes 1.5 times that of AdamW at this size. Changes to the last line, seed 0 (seeds differ by .01):

| | nats |
|---|---|
| relu2; gelu_tanh; tied, with relu2 | 1.669; 1.668; 1.674 |
| without qk_norm; without zero_init | 1.661; 1.649 |
| rate of the tables 2e-2; of Muon .04, with relu2 | 1.650; 1.682 |
| wsd(20, 1000, 500), with relu2 | 1.685 |
| context 128 in 6 rows; read in windows of 128 | 1.663; 1.633 |
| context 32 in 24 rows, with relu2, read in windows of 32 | 1.725 |
"""

import importlib.util
import math
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from gen_core import Loader, Trainer, seed_all
from gen_core.schedule import linear, warmup_cosine
from gen_transformer.config import Config
from gen_transformer.data import Corpus, Windows, write_shard
from gen_transformer.model import Transformer, parameters
from gen_transformer.task import LMTask
from gen_transformer.tokenizer import characters

STEPS, T, ROWS = 1000, 64, 12
SIZE = {"vocab": 84, "dim": 128, "layers": 4, "heads": 4, "context": T}
GPT2 = Config(**SIZE, norm="layer", mlp="gelu_tanh", pos="learned", tie=True)
MODERN = Config(**SIZE, ffn=340, qk_norm=True, zero_init=True)  # rotary positions, RMS norm, swiglu
RECIPES = {
    "GPT-2's shape, nanoGPT's recipe": (GPT2, {"lr": 1e-3, "betas": (0.9, 0.99)}, warmup_cosine(100, STEPS, 0.1)),
    "modern shape, AdamW": (MODERN, {"lr": 3e-3}, linear(50, STEPS)),
    "modern shape, Muon": (MODERN, {"lr": 1e-2, "muon": 0.02}, linear(50, STEPS)),
}


class NanoGPT(nn.Module):
    """nanoGPT's model, called as ours is."""

    def __init__(self, folder: Path):
        super().__init__()
        spec = importlib.util.spec_from_file_location("nanogpt", folder / "model.py")
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        self.gpt = code.GPT(code.GPTConfig(T, SIZE["vocab"], SIZE["layers"], SIZE["heads"], SIZE["dim"], 0.0, False))
        self.config = SimpleNamespace(softcap=None)

    def forward(self, ids: Tensor, doc: Tensor | None = None) -> Tensor:
        parts = self.gpt.transformer
        x = parts.wte(ids) + parts.wpe(torch.arange(ids.shape[1]))
        for block in parts.h:
            x = block(x)
        return parts.ln_f(x)

    @property
    def output(self) -> Tensor:
        return self.gpt.lm_head.weight


def train_theirs(model: NanoGPT, ids: Tensor, seed: int) -> None:
    """nanoGPT's loop: random windows, its own optimiser and rates."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = model.gpt.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    for step in range(STEPS):
        rate = 1e-4 + 9e-4 * (1 + math.cos(math.pi * (step - 100) / (STEPS - 100))) / 2
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (step + 1) / 101 if step < 100 else rate
        rows = torch.stack([ids[i : i + T + 1] for i in torch.randint(len(ids) - T, (ROWS,), generator=generator)])
        loss = model.gpt(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())[1]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def train(train_on: Corpus, recipe: str, seed: int) -> LMTask:
    cfg, rates, schedule = RECIPES[recipe]
    seed_all(seed)
    task = LMTask(Transformer(cfg), **rates)
    trainer = Trainer(task, seed=seed, clip=1.0, schedule=schedule, device="cpu", precision="fp32")
    trainer.fit(Loader(Windows(train_on, cfg.context), ROWS, seed=seed), STEPS)
    return task


def report(name: str, seed: int, task: LMTask, held_out: Corpus, seconds: float) -> None:
    data = Loader(Windows(held_out, T), 64, shuffle=False)
    nats = Trainer(task, device="cpu", precision="fp32").evaluate(data)["loss"]
    print(
        f"{name:32s} seed {seed}: {nats:.4f} nats, {parameters(task.model):,} parameters, {seconds:.0f} s", flush=True
    )


def main(text: str, nano: str, seeds: str = "1") -> None:
    torch.set_num_threads(1)
    whole = Path(text).read_text()
    tok, cut = characters(whole), int(0.9 * len(whole))
    with tempfile.TemporaryDirectory() as folder:
        for name, part in (("train", whole[:cut]), ("held out", whole[cut:])):
            write_shard(Path(folder, name), tok, [part])
        train_on, held_out = Corpus(Path(folder, "train")), Corpus(Path(folder, "held out"))
        for seed in range(int(seeds)):
            start = time.process_time()
            seed_all(seed)
            theirs = NanoGPT(Path(nano))
            train_theirs(theirs, train_on.tokens(0, len(train_on)), seed)
            report("nanoGPT", seed, LMTask(theirs), held_out, time.process_time() - start)
            for recipe in RECIPES:
                start = time.process_time()
                task = train(train_on, recipe, seed)
                report(recipe, seed, task, held_out, time.process_time() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
