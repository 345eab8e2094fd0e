"""Scenes: the reader is right about every combination, and the split hides combinations but nothing else."""

from dataclasses import replace

import pytest
import torch

from gen_diffusion.scenes import (
    COLOURS,
    OPPOSITE,
    SHAPES,
    Item,
    Scene,
    accuracy,
    combinations,
    coverage,
    draw_scenes,
    find,
    read,
)  # fmt: skip

SLOW = pytest.mark.slow
PERFECT = {"objects": 1.0, "relation": 1.0, "scene": 1.0}


def each_once(size, smooth, generator):
    """One picture of every combination: draws until all 1080 have come."""
    first = {}
    while len(first) < 1080:
        for picture, scene in zip(*draw_scenes(2000, generator, size=size, split="all", smooth=smooth), strict=True):
            first.setdefault(scene, picture)
    return torch.stack(list(first.values())), list(first)


@pytest.mark.parametrize(
    ("size", "smooth"), [(16, True), *(pytest.param(*c, marks=SLOW) for c in [(16, False), (32, True), (32, False)])]
)
def test_the_reader_is_always_right(size, smooth):
    """On every combination, as drawn and with noise of standard deviation 0.1."""
    generator = torch.Generator().manual_seed(size)
    pictures, scenes = each_once(size, smooth, generator)
    assert pictures.min() >= -1 and pictures.max() <= 1
    assert accuracy(pictures, scenes) == PERFECT
    assert accuracy(pictures + 0.1 * torch.randn(pictures.shape, generator=generator), scenes) == PERFECT


def test_a_fifth_is_held_out_and_no_attribute():
    """By meaning, not by wording; each object is seen in each place of each relation."""
    seen, held_out, everything = (combinations(split) for split in ("seen", "held out", "all"))
    assert len(held_out) * 5 == len(everything) == 6 * 5 * 3 * 3 * 4 and {*seen, *held_out} == {*everything}
    assert not {scene.canonical for scene in seen} & {scene.canonical for scene in held_out}
    parts = lambda scenes: {p for s in scenes for p in ((s.a, s.relation, "a"), (s.b, s.relation, "b"))}
    assert parts(seen) == parts(everything) and len(parts(seen)) == 18 * 4 * 2
    _, drawn = draw_scenes(3000, torch.Generator().manual_seed(0), split="held out")
    assert set(drawn) == set(held_out)


def test_captions_can_be_parsed():
    assert all(Scene.parse(scene.caption) == scene for scene in combinations("all"))
    scene = Scene(Item("red", "square"), "left of", Item("blue", "circle"))
    assert Scene.parse("A red square  left of a blue circle") == scene
    assert Scene.parse("a blue circle right of a red square").canonical == scene
    for wrong in ("a red sqare left of a blue circle", "a red square left of a red circle", ""):
        with pytest.raises(ValueError, match=r"try 'a \w+ \w+ (left of|right of|above|below) a "):
            Scene.parse(wrong)


def test_what_differs_is_read_as_different():
    """Colours swapped, mirrored along the relation, one object gone: never the original."""
    pictures, scenes = draw_scenes(100, torch.Generator().manual_seed(1), split="all")
    for picture, scene in zip(pictures, scenes, strict=True):
        assert read(picture) == scene.canonical
        a, b = (torch.tensor(COLOURS[item.colour])[:, None, None] for item in (scene.a, scene.b))
        of_a, of_b = ((picture - ((picture * c).sum(0) / 3).clamp_min(0) * c).abs().sum(0) < 1e-5 for c in (a, b))
        strength = picture.abs().amax(0)
        assert read(torch.where(of_a, strength * b, torch.where(of_b, strength * a, picture))) != scene.canonical
        axis = 2 if scene.relation in ("left of", "right of") else 1
        mirrored = read(picture.flip(axis))
        assert mirrored is None or (mirrored.relation == scene.canonical.relation and mirrored != scene.canonical)
        only = torch.where(of_b, 0.0, picture)
        assert read(only) is None and [item for item, *_ in find(only)] == [scene.a]


def test_blobs_and_noise_are_no_shapes():
    """Uniform noise, a blank, a cross: what a bad network draws is not rounded to the nearest scene."""
    generator = torch.Generator().manual_seed(0)
    assert all(read(2 * torch.rand(3, 16, 16, generator=generator) - 1) is None for _ in range(50))
    assert find(torch.zeros(3, 16, 16)) == []
    cross = torch.zeros(3, 16, 16)
    cross[0, 7:9, 2:14] = cross[0, 2:14, 7:9] = 1
    cross[1:] = -cross[:1]
    assert [item for item, *_ in find(cross)] == [None]


def test_accuracy_counts_objects_relations_and_scenes():
    """Wrong relation: the objects stay right. One object wrong: half of the objects."""
    pictures, scenes = draw_scenes(60, torch.Generator().manual_seed(2))
    turned = [replace(scene, relation=OPPOSITE[scene.relation]) for scene in scenes]
    assert accuracy(pictures, turned) == {"objects": 1.0, "relation": 0.0, "scene": 0.0}
    others = [replace(s, a=replace(s.a, shape=SHAPES[SHAPES.index(s.a.shape) - 1])) for s in scenes]
    wrong = accuracy(pictures, others)
    assert (wrong["objects"], wrong["scene"]) == (0.5, 0.0) and wrong["relation"] != wrong["relation"]
    with pytest.raises(ValueError, match="60 pictures for 59 scenes"):
        accuracy(pictures, scenes[1:])


@pytest.mark.parametrize(("shape", "filled"), [("square", 1.0), ("circle", torch.pi / 4), ("triangle", 0.5)])
def test_a_shape_covers_its_area(shape, filled):
    """The coverage adds up to the area; its centre of mass is where geometry says."""
    x, y, extent = torch.tensor([0.4]), torch.tensor([0.55]), torch.tensor([0.5])
    alpha = coverage(shape, x, y, extent, 32)[0]
    at = (torch.arange(32) + 0.5) / 32
    area = alpha.sum() / 32**2
    assert area.item() == pytest.approx(filled * 0.25, rel=0.01)
    assert ((alpha.sum(0) * at).sum() / alpha.sum()).item() == pytest.approx(0.4, abs=2e-3)
    below = 0.5 / 6 if shape == "triangle" else 0.0
    assert ((alpha.sum(1) * at).sum() / alpha.sum()).item() == pytest.approx(0.55 + below, abs=2e-3)


def test_draws_are_keyed_and_too_small_is_refused():
    a, b = (draw_scenes(5, torch.Generator().manual_seed(3), size=24) for _ in range(2))
    assert torch.equal(a[0], b[0]) and a[1] == b[1] and draw_scenes(0)[0].shape == (0, 3, 16, 16)
    with pytest.raises(ValueError, match="size=8"):
        draw_scenes(1, size=8)
