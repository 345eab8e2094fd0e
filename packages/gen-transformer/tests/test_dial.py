"""The dial against its own reference and its laws."""

import pytest
import torch

from gen_transformer.config import Config
from gen_transformer.dial import dial
from gen_transformer.model import Transformer, parameters


def config(depth: int) -> Config:
    return Config(vocab=32768, dim=64 * depth, layers=depth, heads=depth, mlp="relu2")


def test_the_model_of_twelve_layers_has_the_published_batch():
    """85 million weights in the blocks and 25 in the output matrix, 10.5 tokens for each, 524,288 at a time."""
    by = dial(config(12))
    assert by.tokens == pytest.approx(10.5 * (12 * 12 * 768**2 + 32768 * 768), rel=1e-3)
    assert (by.batch, by.lr) == (2**19, pytest.approx(4e-3))
    assert by.steps == round(by.tokens / by.batch)


def test_batch_and_rate_follow_their_powers():
    """Four times the width is half the rate; the batch is the nearest power of two to tokens^.383."""
    small, large = dial(config(6)), dial(config(24))
    assert small.lr / large.lr == pytest.approx(2)
    wanted = (large.tokens / small.tokens) ** 0.383
    assert large.batch / small.batch == pytest.approx(wanted, rel=0.42)
    assert (large.batch & (large.batch - 1)) == 0


def test_a_tied_table_counts_as_the_output_matrix_it_is():
    tied = Config(vocab=100, dim=16, layers=1, heads=2, tie=True)
    with torch.device("meta"):
        blocks = parameters(Transformer(tied), tables=False)
    assert (
        dial(tied).tokens == round(10.5 * (blocks + 1600)) == dial(Config(vocab=100, dim=16, layers=1, heads=2)).tokens
    )
