"""An encoder-decoder learns to copy, to reverse and to sort, which of them its first token says ([Vaswani17])."""

import pytest
import torch

from gen_core import Arrays, Loader, Trainer
from gen_core.schedule import wsd
from gen_transformer.beam import beam_search
from gen_transformer.config import Config
from gen_transformer.generate import complete
from gen_transformer.model import EncoderDecoder
from gen_transformer.sampling import greedy
from gen_transformer.task import LMTask

COPY, REVERSE, SORT, N, STEPS = 10, 11, 12, 8, 400


def draw(rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Eight digits, what to do with them, and what then comes out."""
    source = torch.randint(10, (rows, N), generator=generator)
    task = torch.randint(COPY, SORT + 1, (rows, 1), generator=generator)
    results = {COPY: source, REVERSE: source.flip(1), SORT: source.sort(1).values}
    return source, task, sum(result * (task == name) for name, result in results.items())


@pytest.mark.slow
def test_copy_reverse_and_sort():
    """All eight digits of all of 500 new sequences, by label smoothing, and a beam finds no other ones."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    half = {"vocab": 13, "dim": 32, "layers": 1, "heads": 4, "context": N, "pos": "learned", "qk_norm": True}
    model = EncoderDecoder(Config(**half, causal=False), Config(**half))
    source, task, result = draw(16_000, generator)
    ids, doc = torch.cat((task, result[:, :-1]), 1), torch.zeros_like(source)
    data = Arrays(ids, result, torch.ones(source.shape), doc, source, doc)
    learner = LMTask(model, lr=0.01, muon=0.03, weight_decay=0.0, smoothing=0.1)
    schedule = wsd(STEPS // 10, STEPS, STEPS // 2)
    Trainer(learner, clip=1.0, device="cpu", schedule=schedule).fit(Loader(data, 64), STEPS)
    model.eval()
    source, task, result = draw(500, generator)
    right = (complete(model.given(source), task, N, warp=greedy) == result).all(1)
    assert right.float().mean() >= 0.99
    assert torch.equal(
        beam_search(model.given(source[:50]), task[:50], N, 3)[0][right[:50], 0], result[:50][right[:50]]
    )
