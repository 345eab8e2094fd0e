"""Pictures of two objects with captions, drawn and read by rule: text-to-image whose correctness can be counted.

    pictures, scenes = draw_scenes(1000, torch.Generator().manual_seed(0), size=16)
    scenes[0].caption                       # 'a red square left of a blue circle'
    accuracy(pictures, scenes)              # {'objects': 1.0, 'relation': 1.0, 'scene': 1.0}

3 shapes, 6 colours and 4 relations make 1080 captions of two objects of different colours. A fifth of them is held
out, by what they mean: "a left of b" goes with "b right of a", which is the same picture. Every object is seen in every
place; what a network never saw is the combination.

The reader knows nothing of a network: it groups pixels by the nearest colour, and takes the shape whose drawing at the
group's own centre and area is nearest to it.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import permutations, product
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor

SHAPES = ("square", "circle", "triangle")
COLOURS = {
    "red": (1, -1, -1),
    "green": (-1, 1, -1),
    "blue": (-1, -1, 1),
    "yellow": (1, 1, -1),
    "magenta": (1, -1, 1),
    "cyan": (-1, 1, 1),
}  # on grey, (0, 0, 0): a pixel half covered by one colour is nearer to it and to grey than to any other colour
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
Split = Literal["seen", "held out", "all"]

EXTENT = 0.34, 0.42  # of an object, in units of the picture's side
GAP, MARGIN, JITTER = 0.09, 0.02, 0.08  # between objects, to the border, and across the direction of the relation
RESIDUAL = 0.3  # largest share of an object's drawing that may be wrong before it is no shape at all


@dataclass(frozen=True)
class Item:
    """One object."""

    colour: str
    shape: str


Found = tuple[Item | None, float, float]  # an object, or None for a group of pixels of no shape; its centre (x, y)


@dataclass(frozen=True)
class Scene:
    """`a`, as seen from `b`: a is left of b, right of it, above or below."""

    a: Item
    relation: str
    b: Item

    @property
    def caption(self) -> str:
        return f"a {self.a.colour} {self.a.shape} {self.relation} a {self.b.colour} {self.b.shape}"

    @property
    def canonical(self) -> "Scene":
        """The same picture described by "left of" or "above"."""
        return self if self.relation in ("left of", "above") else Scene(self.b, OPPOSITE[self.relation], self.a)

    @classmethod
    def parse(cls, caption: str) -> "Scene":
        """The scene of a caption; ValueError for what is not one, with the nearest that is.

        >>> Scene.parse("a red square left of a blue circle").b
        Item(colour='blue', shape='circle')
        """
        captions = _captions()
        if (scene := captions.get(" ".join(caption.lower().split()))) is None:
            near = difflib.get_close_matches(caption, captions, 1, 0)[0]
            raise ValueError(f"no scene of two objects of different colours has the caption {caption!r}; try {near!r}")
        return scene


@cache
def combinations(split: Split = "seen") -> tuple[Scene, ...]:
    """All scenes of a split, in a fixed order; held out is the fifth whose canonical captions hash lowest.

    >>> [len(combinations(split)) for split in ("seen", "held out", "all")]
    [864, 216, 1080]
    """
    pairs = [(Item(c, s), Item(d, t)) for (c, d), s, t in product(permutations(COLOURS, 2), SHAPES, SHAPES)]
    everything = tuple(Scene(a, relation, b) for (a, b), relation in product(pairs, OPPOSITE))
    ranked = sorted({scene.canonical for scene in everything}, key=_hash)
    held_out = set(ranked[: len(ranked) // 5])
    return tuple(scene for scene in everything if split == "all" or (scene.canonical in held_out) == (split != "seen"))


@cache
def _captions() -> dict[str, Scene]:
    return {scene.caption: scene for scene in combinations("all")}


def _hash(scene: Scene) -> bytes:
    return blake2b(scene.caption.encode(), key=b"held out", digest_size=8).digest()


def draw_scenes(
    n: int, generator: Generator | None = None, *, size: int = 16, split: Split = "seen", smooth: bool = True
) -> tuple[Float[Tensor, "n 3 size size"], list[Scene]]:
    """`n` scenes drawn uniformly from a split, as pictures in [-1, 1] and what they show.

    Args:
        size: side of the picture in pixels, at least 16: below, circles cannot be told from squares.
        smooth: anti-aliased; otherwise objects lie on whole pixels, each covered or not.
    """
    if size < 16:
        raise ValueError(f"scenes need at least 16 pixels for their shapes to be told apart, got size={size}")
    known = combinations(split)
    scenes = [known[i] for i in torch.randint(len(known), (n,), generator=generator).tolist()]
    u = torch.rand(n, 7, generator=generator)
    extent = EXTENT[0] + (EXTENT[1] - EXTENT[0]) * u[:, :2]  # of the object in front (left or above), and of the other
    slack = 1 - 2 * MARGIN - GAP - extent.sum(1)
    low, high = (u[:, 2:4].sort(1).values * slack[:, None]).unbind(1)
    along = torch.stack([MARGIN + extent[:, 0] / 2 + low, 1 - MARGIN - extent[:, 1] / 2 - (slack - high)], 1)
    room = 0.5 - EXTENT[1] / 2 - MARGIN - JITTER
    across = 0.5 + room * (2 * u[:, 4:5] - 1) + JITTER * (2 * u[:, 5:7] - 1)
    vertical = torch.tensor([scene.canonical.relation == "above" for scene in scenes], dtype=torch.bool)[:, None]
    x, y = torch.where(vertical, across, along), torch.where(vertical, along, across)
    if not smooth:  # boxes of whole pixels
        extent = (extent * size).round() / size
        x, y = (((z - extent / 2) * size).round() / size + extent / 2 for z in (x, y))

    pictures = torch.zeros(n, 3, size, size)
    for place in (0, 1):
        items = [(scene.canonical.a, scene.canonical.b)[place] for scene in scenes]
        colour = torch.tensor([COLOURS[item.colour] for item in items]).reshape(n, 3, 1, 1)
        for shape in SHAPES:
            rows = [i for i, item in enumerate(items) if item.shape == shape]
            alpha = coverage(shape, x[rows, place], y[rows, place], extent[rows, place], size, 8 if smooth else 1)
            pictures[rows] += alpha[:, None] * colour[rows]
    return pictures, scenes


def coverage(
    shape: str, x: Float[Tensor, "n"], y: Float[Tensor, "n"], extent: Float[Tensor, "n"], size: int, fine: int = 8
) -> Float[Tensor, "n size size"]:
    """The share of each pixel that a shape covers, by `fine` x `fine` points in it.

    Args:
        x, y, extent: centre and side of the square box that the shape fills, in units of the picture's side; x runs to
            the right and y downwards. The triangle stands on its base.
    """
    points = (torch.arange(size * fine) + 0.5) / (size * fine)
    u = (points - x[:, None, None]) / extent[:, None, None]  # -1/2 to 1/2 inside the box, along columns
    v = ((points - y[:, None, None]) / extent[:, None, None]).mT
    if shape == "square":
        inside = torch.maximum(u.abs(), v.abs()) <= 0.5
    elif shape == "circle":
        inside = u**2 + v**2 <= 0.25
    else:
        inside = (v <= 0.5) & (2 * u.abs() <= v + 0.5)
    return rearrange(inside.float(), "n (h i) (w j) -> n h w (i j)", i=fine, j=fine).mean(-1)


def find(picture: Float[Tensor, "3 size size"]) -> list[Found]:
    """Every object of a picture with its centre of mass (x, y) in pixels; None for a group of pixels of no shape."""
    from scipy import ndimage

    size = picture.shape[-1]
    picture = picture.detach().float().cpu()
    colours = torch.tensor([(0, 0, 0), *COLOURS.values()], dtype=torch.float32)
    nearest = (picture - colours[:, :, None, None]).square().sum(1).argmin(0)
    rows, columns = torch.meshgrid(*[torch.arange(size) + 0.5] * 2, indexing="ij")
    found = []
    for index, colour in enumerate(COLOURS, 1):
        if not (nearest == index).any():
            continue
        groups, count = ndimage.label((nearest == index).numpy())  # pyright: ignore[reportGeneralTypeIssues]
        for number in range(1, count + 1):
            group = groups == number
            if group.sum() < (EXTENT[0] * size / 3) ** 2:
                continue  # a speck, a ninth of the smallest box
            near = torch.from_numpy(ndimage.binary_dilation(group, iterations=1)) & (
                (nearest == index) | (nearest == 0)
            )
            alpha = ((picture * colours[index][:, None, None]).sum(0) / 3).clamp(0, 1) * near
            area = alpha.sum()
            x, y = (alpha * columns).sum() / area, (alpha * rows).sum() / area
            shape = _shape(alpha, x, y, area)
            found.append((shape and Item(colour, shape), x.item(), y.item()))
    return found


def _shape(alpha: Float[Tensor, "size size"], x: Tensor, y: Tensor, area: Tensor) -> str | None:
    """The shape whose drawing with this centre of mass and area is nearest, unless even that is far off."""
    size, errors = len(alpha), {}
    for shape, filled in zip(SHAPES, (1.0, torch.pi / 4, 0.5), strict=True):
        extent = (area / filled).sqrt()
        lift = extent / 6 if shape == "triangle" else 0.0  # its centre of mass lies lower than its box's centre
        x0, y0, side = (value.reshape(1) / size for value in (x, y - lift, extent))
        errors[shape] = ((coverage(shape, x0, y0, side, size, 4)[0] - alpha).square().sum() / area).item()
    best = min(errors, key=errors.__getitem__)
    return best if errors[best] < RESIDUAL else None


def read(picture: Float[Tensor, "3 size size"]) -> Scene | None:
    """What a picture shows, canonically ("left of" or "above"), or None where it is not two objects of two colours."""
    return _scene(find(picture))


def _scene(found: list[Found]) -> Scene | None:
    if len(found) != 2:
        return None
    (a, ax, ay), (b, bx, by) = found
    if a is None or b is None or a.colour == b.colour:
        return None
    if abs(ax - bx) > abs(ay - by):
        return Scene(a, "left of" if ax < bx else "right of", b).canonical
    return Scene(a, "above" if ay < by else "below", b).canonical


def accuracy(pictures: Float[Tensor, "n 3 size size"], scenes: Sequence[Scene]) -> dict[str, float]:
    """How often pictures show what they should, by the reader.

    Returns:
        `objects`: the share of the objects asked for that are there, in colour and shape; `scene`: the share of
        pictures that show both, in the relation asked for, and nothing else; `relation`: the share with the right
        relation among those with the right two objects and nothing else (nan if there are none).
    """
    if len(pictures) != len(scenes):
        raise ValueError(f"got {len(pictures)} pictures for {len(scenes)} scenes; pass one scene per picture")
    objects, both, right = 0, 0, 0
    for picture, scene in zip(pictures, scenes, strict=True):
        found = find(picture)
        items = {item for item, *_ in found}
        objects += (scene.a in items) + (scene.b in items)
        if (seen := _scene(found)) is not None:
            both += {seen.a, seen.b} == {scene.a, scene.b}
            right += seen == scene.canonical
    n = max(1, len(scenes))
    return {"objects": objects / n / 2, "relation": right / both if both else float("nan"), "scene": right / n}
