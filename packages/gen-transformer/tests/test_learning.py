"""A transformer learns a source of known entropy, and cannot know more than there is to know."""

from pathlib import Path

import torch

from gen_core import Arrays, Loader, Trainer
from gen_core.schedule import linear
from gen_core.testing import load
from gen_transformer.config import Config
from gen_transformer.loss import logprobs
from gen_transformer.model import Transformer
from gen_transformer.task import LMTask

Markov = load(Path(__file__).with_name("markov.py")).Markov
T, ROWS, STEPS = 32, 32, 100
CONFIG = Config(vocab=4, dim=32, layers=2, heads=2, context=T, mlp="relu2", qk_norm=True, zero_init=True)


def rows(ids: torch.Tensor) -> Arrays:
    """Batches of language modelling, one document a row."""
    ones = torch.ones(len(ids), T)
    return Arrays(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), ones, torch.zeros(len(ids), T, dtype=torch.int64))


def test_a_markov_source_is_learned_to_its_entropy_rate_and_never_below():
    """Attention has to find the two symbols that matter; a loss below the source's own would mean it saw the answer."""
    source = Markov(4)
    text = source.draw(ROWS * STEPS // 4, 4 * T + 1).unfold(1, T + 1, T).flatten(0, 1)
    torch.manual_seed(0)
    model = Transformer(CONFIG)
    task = LMTask(model, lr=2e-2, muon=0.05, weight_decay=0.0)
    Trainer(task, clip=1.0, schedule=linear(10, STEPS), device="cpu").fit(Loader(rows(text), ROWS), STEPS)
    new = source.draw(512, T + 1)
    with torch.no_grad():
        excess = -logprobs(model, new)[:, 1:] - source.nll(new)  # of the same symbols, so that their luck cancels
    error = excess.mean(1).std() / len(new) ** 0.5
    assert -3 * error < excess.mean() < 0.02
