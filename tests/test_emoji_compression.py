"""The split of tests/benchmarks/emoji_compression.py: by what a picture shows, since variants of it leak."""

from pathlib import Path

import pytest
import torch

from gen_core.testing import load

emoji = load(Path(__file__).parent / "benchmarks" / "emoji_compression.py")
TONES = (0x1F3FB, 0x1F3FC, 0x1F3FD, 0x1F3FE, 0x1F3FF)


def variants(base: int) -> list[tuple[int, ...]]:
    """A base alone, in five tones, and each of these as a man and as a woman."""
    toned = [(base,), *[(base, tone) for tone in TONES]]
    return [*toned, *[(*codes, 0x200D, gender) for codes in toned for gender in (0x2640, 0x2642)]]


def test_all_variants_of_a_base_are_on_one_side_and_a_tenth_of_the_bases_is_held_out():
    bases = range(0x1F400, 0x1F400 + 500)
    held = emoji.held_out(codes for base in bases for codes in variants(base)).view(500, -1)
    assert held.shape[1] == 18 and (held == held[:, :1]).all()
    assert held[:, 0].float().mean().item() == pytest.approx(0.1, abs=0.04)
    assert torch.equal(emoji.held_out([(0x1F44B, 0x1F3FB), (0x1F44B,)]), emoji.held_out([(0x1F44B,)] * 2))


def test_a_random_split_leaks_and_this_one_does_not():
    """Pictures of variance 1, variants that differ by .01: the nearest picture to train on is a twin or a stranger."""
    g = torch.Generator().manual_seed(0)
    looks = torch.randn(200, 1, 30, generator=g) + 0.1 * torch.randn(200, 18, 30, generator=g)
    x = looks.flatten(0, 1)
    nearest = lambda held: torch.cdist(x[held], x[~held]).min(1).values.square().mean().item() / 30
    held = emoji.held_out(codes for base in range(0x1F400, 0x1F400 + 200) for codes in variants(base))
    anyone = torch.rand(len(x), generator=g) < held.float().mean()
    assert nearest(anyone) < 0.03 < 0.5 < nearest(held)
