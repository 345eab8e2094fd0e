"""Mixtures of sources: ratios of tokens, epochs of each, and an order that is a function of (seed, step) alone."""

from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gen_core.task import Task
from gen_core.testing import check_task
from gen_transformer.data import Corpus, Packed, write_shard
from gen_transformer.mixture import Mixture, ratios_of_epochs
from gen_transformer.tokenizer import characters


class Rows:
    """`n` rows that hold `tokens` tokens in all; row i says whose it is and which."""

    def __init__(self, n: int, tokens: int | float, code: int = 0):
        self.n, self.tokens, self.code = n, tokens, code

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([self.code, index])


# Table 1 of CroissantLLM, in billions of tokens: unique, seen in training, ratio of the two
CROISSANT = {
    "french": (303.51, 1240.08, 4.09),
    "english": (655.64, 1240.09, 1.89),
    "code": (141.43, 288.92, 2.04),
    "parallel": (35.78, 219.26, 6.13),
}


def test_table_1_of_croissantllm():
    """From unique tokens and the ratios seen to the epochs of every source, rows of 10 M tokens."""
    sources = {name: Rows(round(unique * 100), unique) for name, (unique, _, _) in CROISSANT.items()}
    data = Mixture(sources, {name: seen for name, (_, seen, _) in CROISSANT.items()}, batch_size=10)
    total = sum(seen for _, seen, _ in CROISSANT.values())
    assert total == pytest.approx(2988.35)
    end = data.seen(round(total * 10))
    for name, (_, seen, epochs) in CROISSANT.items():
        assert end[name].tokens == pytest.approx(seen, abs=0.02)
        assert end[name].epochs == pytest.approx(epochs, abs=0.006)
    assert sum(s.rows for s in end.values()) == round(total * 10) * 10


def test_ratios_from_epochs():
    sources = {name: Rows(round(unique * 10), unique) for name, (unique, _, _) in CROISSANT.items()}
    ratios = ratios_of_epochs(sources, {name: epochs for name, (_, _, epochs) in CROISSANT.items()})
    assert ratios["french"] == pytest.approx(1240.08, rel=2e-3) and ratios["code"] == pytest.approx(288.92, rel=2e-3)
    with pytest.raises(ValueError, match="name the same"):
        ratios_of_epochs(sources, {"french": 1})


def test_ratios_count_tokens_not_rows():
    """French rows hold 806 tokens, parallel ones 88: equal ratios take nine times as many rows of the latter."""
    data = Mixture({"fr": Rows(50, 50 * 806), "par": Rows(50, 50 * 88)}, {"fr": 1, "par": 1}, batch_size=8)
    seen = data.seen(5000)
    assert seen["fr"].tokens == pytest.approx(seen["par"].tokens, rel=2e-3)
    assert seen["par"].rows / seen["fr"].rows == pytest.approx(806 / 88, rel=2e-3)


@settings(max_examples=50, deadline=None)
@given(
    ratios=st.lists(st.one_of(st.just(0), st.floats(1e-3, 1)), min_size=1, max_size=6).filter(any),
    step=st.integers(0, 200),
)
def test_every_source_keeps_to_its_share(ratios, step):
    """Counts are those of a replay from step 0, and within a row or so of share times rows at every step."""
    sources = {str(i): Rows(7 + i, 7 + i) for i in range(len(ratios))}
    data = Mixture(sources, {str(i): r for i, r in enumerate(ratios)}, batch_size=5)
    replay = Counter(name for s in range(step) for name, _ in data.rows(s))
    for i, r in enumerate(ratios):
        assert replay[str(i)] == data.seen(step)[str(i)].rows
        assert abs(replay[str(i)] - r / sum(ratios) * 5 * step) <= max(1, len(ratios) / 2)


def test_every_epoch_of_a_source_reads_each_row_once_in_another_order():
    data = Mixture({"a": Rows(13, 13), "b": Rows(5, 5)}, {"a": 3, "b": 1}, batch_size=4, seed=1)
    order = [i for step in range(60) for name, i in data.rows(step) if name == "a"]
    epochs = [order[e * 13 : (e + 1) * 13] for e in range(len(order) // 13)]
    assert len(epochs) > 10 and all(sorted(e) == list(range(13)) for e in epochs)
    assert len(set(map(tuple, epochs))) == len(epochs)
    other = Mixture({"a": Rows(13, 13), "b": Rows(5, 5)}, {"a": 3, "b": 1}, batch_size=4, seed=2)
    assert data.rows(0) != other.rows(0) and data.order_hash != other.order_hash


def test_any_step_and_any_number_of_processes():
    make = lambda: Mixture({"a": Rows(13, 13, 0), "b": Rows(50, 50, 1)}, {"a": 1, "b": 3}, batch_size=6, seed=1)
    whole = list(islice(make().batches(), 40))
    for world in (1, 2, 3):
        for rank in range(world):
            rows = slice(rank * 6 // world, (rank + 1) * 6 // world)
            for got, want in zip(islice(make().batches(23, rank, world), 17), whole[23:], strict=True):
                assert torch.equal(got, want[rows])


def test_new_ratios_change_the_pace_and_not_the_order_within_a_source():
    sources = {"a": Rows(30, 30), "b": Rows(30, 30)}
    steady = Mixture(sources, {"a": 1, "b": 1}, batch_size=4)
    changed = Mixture(sources, [(0, {"a": 1, "b": 1}), (10, {"a": 3, "b": 1}), (20, {"a": 0, "b": 1})], batch_size=4)
    rows = lambda data, name, steps: [i for s in range(steps) for n, i in data.rows(s) if n == name]
    for name in "ab":
        assert rows(changed, name, 10) == rows(steady, name, 10)
        shorter, longer = sorted((rows(changed, name, 40), rows(steady, name, 40)), key=len)
        assert longer[: len(shorter)] == shorter
    assert (changed.seen(20)["a"].rows, changed.seen(20)["b"].rows) == (50, 30)
    assert (changed.seen(30)["a"].rows, changed.seen(30)["b"].rows) == (50, 70)


def test_a_step_far_out_costs_no_more():
    """Counting up to it would outlast the time limit of a test."""
    data = Mixture({"a": Rows(1000, 1000), "b": Rows(10, 10)}, {"a": 0.7, "b": 0.3}, batch_size=64)
    assert len(data.rows(10**9)) == 64
    assert data.seen(10**9)["b"].rows == pytest.approx(0.3 * 64 * 10**9, abs=2)


def test_once_gives_every_row_once():
    data = Mixture({"a": Rows(13, 13, 0), "b": Rows(5, 5, 1)}, {"a": 1, "b": 0}, batch_size=4)
    rows = [tuple(r) for rank in range(2) for n, batch in data.once(rank, 2) if n is not None for r in batch.tolist()]
    assert sorted(rows) == [(0, i) for i in range(13)] + [(1, i) for i in range(5)]
    assert len(data) == 4


LETTERS = "abcdefgh"


class Bigram(Task):
    """The smallest language model."""

    def __init__(self):
        super().__init__()
        self.next = nn.Embedding(8, 8)

    def optimizers(self):
        return {"main": torch.optim.SGD(self.next.parameters(), lr=0.1)}

    def loss(self, ids, targets, weight, doc):
        losses = nn.functional.cross_entropy(self.next(ids).flatten(0, 1), targets.flatten(), reduction="none")
        return (losses * weight.flatten()).sum() / weight.sum().clamp(min=1)

    def step(self, batch, t):
        return {"loss": t.minimize("main", self.loss, *batch, weight=lambda *b: b[2].sum())}


def make():
    import tempfile
    from pathlib import Path

    tok, folder = characters(LETTERS), Path(tempfile.mkdtemp())
    generator = torch.Generator().manual_seed(0)
    for name, n in {"en": 12, "fr": 30}.items():
        sizes = torch.randint(2, 30, (n,), generator=generator).tolist()
        draws = [torch.randint(0, 8, (size,), generator=generator).tolist() for size in sizes]
        write_shard(folder / name, tok, [tok.decode(ids) for ids in draws])
    sources = {name: Packed(Corpus(folder / name), 32) for name in ("en", "fr")}
    torch.manual_seed(0)
    return Bigram(), Mixture(sources, [(0, {"en": 1, "fr": 1}), (2, {"en": 1, "fr": 4})], batch_size=4)


def test_training_on_a_mixture_resumes_to_the_bit_and_does_not_depend_on_micro_batches_or_processes():
    check_task(make, steps=6, only=("resume", "micro", "world"))


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ({"a": 1}, r"ratios name \['a'\], the sources are \['a', 'b'\]"),
        ({"a": 1, "b": -1}, "at least 0 and not all 0"),
        ({"a": 0, "b": 0}, "not all 0"),
        ([(5, {"a": 1, "b": 1})], r"rising steps from 0 on, got steps \[5\]"),
        ([(0, {"a": 1, "b": 1}), (0, {"a": 1, "b": 2})], "rising steps"),
    ],
)
def test_ratios_that_make_no_sense_are_refused(ratios, message):
    with pytest.raises(ValueError, match=message):
        Mixture({"a": Rows(3, 3), "b": Rows(3, 3)}, ratios, batch_size=2)


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match="source 'a' has no rows"):
        Mixture({"a": Rows(0, 0)}, {"a": 1}, batch_size=2)
    with pytest.raises(ValueError, match="does not divide among 3"):
        Mixture({"a": Rows(3, 3)}, {"a": 1}, batch_size=2).batches(0, 0, 3)
