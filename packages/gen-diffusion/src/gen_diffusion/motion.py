"""What a camera does, in words: motion tags by rule, captions of them, and trajectories that obey a caption.

    tags = tag(features)                                        # one of 27 for each frame
    describe(tags)                                              # "the camera pushes in, then trucks left"
    parse("the camera pushes in, then trucks left")             # (9, 2)
    data = draw_trajectories(1000, generator=generator)         # features, tags, captions

Each of the camera's axes rests, or moves one way or the other, which makes 3^3 = 27 tags. With 0 for rest, 1 for + and
2 for -, tag = x + 3 y + 9 z: x trucks right (+) or left, y booms bottom (+) or top, since it points down, z pushes in
(+) or pulls out; 0 stays static. The rules and their constants are those behind the captions of [Courant24].

[Courant24] E.T. the exceptional trajectories, arXiv:2407.01516.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gen_diffusion.trajectory import to_rot6d

MOVES = (("trucks right", "trucks left"), ("booms bottom", "booms top"), ("pushes in", "pulls out"))  # x, y, z: +, -
STATIC = "stays static"
TAGS = 27
SIGNS = torch.tensor([[(0, 1, -1)[tag // 3**axis % 3] for axis in range(3)] for tag in range(TAGS)])
_MEANING = {move: (axis, side) for axis, pair in enumerate(MOVES) for side, move in enumerate(pair, 1)}
_FORMS = {"push": "pushes", "pull": "pulls", "truck": "trucks", "boom": "booms", "stay": "stays", "is": "stays"}
_FORMS |= {"up": "top", "down": "bottom", "still": "static"}
_GLUE = ("the", "camera", "then", "and")


def name(tag: int) -> str:
    """A tag in words.

    >>> name(0), name(2 + 9)
    ('stays static', 'trucks left and pushes in')
    """
    sides = [tag // 3**axis % 3 for axis in range(3)]
    moves = [MOVES[axis][side - 1] for axis, side in enumerate(sides) if side]
    return " and ".join(moves) or STATIC


def caption(segments: Sequence[int]) -> str:
    """Tags, one for each segment, as a sentence; `parse` reads it.

    >>> caption([9, 2])
    'the camera pushes in, then trucks left'
    """
    return "the camera " + ", then ".join(name(tag) for tag in segments)


def describe(tags: Int[Tensor, "f"]) -> str:
    """The caption of tags that were given frame by frame."""
    return caption(tags.unique_consecutive().tolist())


def parse(text: str) -> tuple[int, ...]:
    """The tags of a caption's segments.

    Segments are divided by "then", motions within one by "and". Capitals, punctuation and the "s" of a verb do not
    matter, and up, down, still are understood.

    Raises:
        ValueError: naming the word or the motion that cannot be read, two motions along one axis, or one beside rest.

    >>> parse("Push in, then boom up and truck left.")
    (9, 8)
    """
    written: list[str] = re.findall(r"[\w'-]+", text.lower())
    words = [_FORMS.get(word, word) for word in written]
    known = [*_MEANING, STATIC]
    for word in words:
        if word not in [*_GLUE, *" ".join(known).split()]:
            raise ValueError(f"cannot read the word {word!r}; a camera {', '.join(known)}, joined by 'and' or 'then'")
    segments = []
    for part in " ".join(words).split("then"):
        moves = [move.strip() for move in part.replace("the camera", "").split(" and ")]
        for move in moves:
            if move not in known:
                raise ValueError(f"cannot read the motion {move!r} in {text!r}; a camera {', '.join(known)}")
        if STATIC in moves and len(moves) > 1:
            both = " and ".join(moves)
            raise ValueError(f"a camera that {STATIC!r} does nothing beside it, got {both!r}; put 'then' between them")
        axes = [_MEANING[move] for move in moves if move != STATIC]
        if len({axis for axis, _ in axes}) < len(axes):
            raise ValueError(f"{' and '.join(moves)!r} moves one axis twice; put 'then' between them")
        segments.append(sum(side * 3**axis for axis, side in axes))
    return tuple(segments)


def spread(segments: Sequence[int], frames: int) -> Int[Tensor, "frames"]:
    """The tags that a caption asks for, frame by frame: its segments are equally long.

    >>> spread([9, 2], 5).tolist()
    [9, 9, 9, 2, 2]
    """
    index = torch.arange(frames) * len(segments) // frames
    return torch.tensor(list(segments))[index]


def tag(
    features: Float[Tensor, "*b f 9"],
    *,
    static: float = 0.02,
    relative: float = 0.4,
    window: int = 56,
    chunk: int = 25,
) -> Int[Tensor, "*b f"]:
    """The motion tag of each frame, on the CPU.

    The velocities are smoothed by a running median, which keeps the edges between motions where they are and a glitch
    out. An axis moves where its speed is above `static` and at least `relative` times that of the fastest axis. Runs of
    a tag that are too short are given to the longer runs beside them, frame by frame to the nearer one.

    Args:
        features: at least two frames; the first velocity, which holds the starting point, is left out.
        static: metres per second.
        relative: share of the speed of the fastest axis.
        window: frames of the median about the one it is for.
        chunk: least number of frames of a run.
    """
    velocity = features[..., 6:].detach().cpu()
    frames = velocity.shape[-2]
    if frames < 2:
        raise ValueError(f"motion takes at least 2 frames, got {frames}")
    velocity = torch.cat([velocity[..., 1:2, :], velocity[..., 1:, :]], -2).reshape(-1, frames, 3)
    smooth = torch.cat([_median(v, min(window // 2, frames - 1)) for v in velocity.split(64)])
    speed = smooth.abs()
    moving = (speed > static) & (speed >= relative * speed.amax(-1, keepdim=True))
    sides = torch.where(moving, torch.where(smooth > 0, 1, 2), 0)
    tags = sides @ torch.tensor([1, 3, 9])
    return torch.stack([_absorb(row, chunk) for row in tags]).reshape(features.shape[:-1])


def _median(x: Float[Tensor, "b f c"], reach: int) -> Float[Tensor, "b f c"]:
    """Of each frame and `reach` frames on either side; beyond the ends the trajectory is mirrored."""
    padded = F.pad(rearrange(x, "b f c -> b c f"), (reach, reach), mode="reflect")
    return rearrange(padded.unfold(-1, 2 * reach + 1, 1).median(-1).values, "b c f -> b f c")


def _absorb(tags: Int[Tensor, "f"], chunk: int) -> Int[Tensor, "f"]:
    """Frames of runs shorter than `chunk` take the tag of the nearest frame of a longer one, the earlier of two."""
    _, counts = tags.unique_consecutive(return_counts=True)
    long = (counts >= chunk).repeat_interleave(counts).nonzero()[:, 0]
    if len(long) == 0:
        return torch.full_like(tags, int(tags.bincount().argmax()))
    frame = torch.arange(len(tags))
    after = torch.searchsorted(long, frame).clamp_max(len(long) - 1)
    before = (after - 1).clamp_min(0)
    nearer = torch.where((long[after] - frame).abs() < (long[before] - frame).abs(), long[after], long[before])
    return tags[nearer]


class Trajectories(NamedTuple):
    """Drawn trajectories, what each truly does in each frame, and the captions that say so."""

    features: Float[Tensor, "n f 9"]
    tags: Int[Tensor, "n f"]
    captions: list[str]


def draw_trajectories(
    n: int, frames: int = 300, *, jitter: float = 0.05, generator: Generator | None = None
) -> Trajectories:
    """Trajectories of one to four segments, each with its own motion, under a camera that pans slowly.

    Segments are equally long up to `jitter`, for a caption does not say when: `spread` does. Each has a random speed
    of 0.4 to 1.2 m/s, its slower axes at least 0.7 times that, so that the tag is beyond doubt; one motion passes into
    the next within half a second. The camera starts in any direction, tilted up to 20 degrees, and turns about the
    vertical by up to 9 degrees a second.

    Args:
        frames: those of a trajectory; a segment has at least 60, so fewer frames have fewer segments.
        jitter: share of a segment's length by which each of its ends may be early or late.
    """
    if frames < 60:
        raise ValueError(f"a motion takes at least 60 frames to be told from another, got frames={frames}")

    def uniform(low: float, high: float, *shape: int) -> Float[Tensor, "..."]:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    most = min(4, frames // 60)
    counts = torch.randint(1, most + 1, (n,), generator=generator)
    other = torch.randint(1, TAGS, (n, most), generator=generator)  # a segment differs from the one before
    segments = torch.randint(TAGS, (n, 1), generator=generator) + F.pad(other, (1, 0))[:, :most].cumsum(1)
    segments = segments % TAGS
    velocity = SIGNS[segments] * uniform(0.4, 1.2, n, most, 1) * uniform(0.7, 1.0, n, most, 3)

    length = frames / counts[:, None]
    ends = torch.arange(1, most) * length + uniform(-jitter, jitter, n, most - 1) * length
    ends = torch.where(torch.arange(1, most) < counts[:, None], ends, math.inf)  # no segment after the last
    late = torch.arange(frames)[:, None] - ends[:, None]  # n frames ends
    share = ((late + 6) / 12).clamp(0, 1)
    share = share * share * (3 - 2 * share)  # 0 to 1 without a jerk, over 12 frames
    velocity = velocity[:, :1] + share @ velocity.diff(dim=1)
    tags = segments.gather(1, (late >= 0).sum(-1))

    yaw = uniform(-math.pi, math.pi, n, 1) + torch.arange(frames) / 25 * uniform(-0.15, 0.15, n, 1)
    pitch = uniform(-0.35, 0.35, n, 1).expand(n, frames)
    features = torch.cat([to_rot6d(_looking(yaw, pitch)), velocity], -1)
    captions = [caption(row[:count]) for row, count in zip(segments.tolist(), counts.tolist(), strict=True)]
    return Trajectories(features, tags, captions)


def _looking(yaw: Float[Tensor, "*b"], pitch: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation of a camera that was tilted about its x axis, then turned about the world's y axis."""
    (a, b), (c, d) = (yaw.cos(), yaw.sin()), (pitch.cos(), pitch.sin())
    zero = torch.zeros_like(a)
    rows = [torch.stack(row, -1) for row in ([a, b * d, b * c], [zero, c, -d], [-b, a * d, a * c])]
    return torch.stack(rows, -2)


class MotionScore(NamedTuple):
    """Averages over the tags that occur, in either set: rare motions count as much as common ones."""

    precision: float
    recall: float
    f1: float


def motion_score(tags: Int[Tensor, "..."], wanted: Int[Tensor, "..."]) -> MotionScore:
    """Macro precision, recall and F1 of tags, frame by frame ([Courant24] section 5); 0 where a quotient is 0 / 0."""
    if tags.shape != wanted.shape:
        raise ValueError(f"tags of shape {tuple(tags.shape)} cannot be compared with {tuple(wanted.shape)}")
    confusion = (wanted.flatten() * TAGS + tags.flatten()).bincount(minlength=TAGS * TAGS).view(TAGS, TAGS).double()
    hit, asked, given = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    occurs = asked + given > 0
    parts = [hit / given.clamp_min(1), hit / asked.clamp_min(1), 2 * hit / (asked + given).clamp_min(1)]
    return MotionScore(*(part[occurs].mean().item() for part in parts))
