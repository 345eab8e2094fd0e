"""Camera trajectories as features for a network, and back.

    features = to_features(poses)           # camera-to-world matrices, one a frame -> nine numbers a frame
    poses = to_poses(features)              # exactly the same matrices

A camera looks along its z axis, x points right and y down in its picture. The nine numbers of a frame are the first two
**columns** of the camera-to-world rotation, that is the camera's x and y axes in the world, each vector's three numbers
together ([Zhou19]), then the velocity in metres per second, seen **by the camera**: v_t = R_t' (p_t - p_(t-1)) fps. So
v = (1, 0, 0) is a truck to the right wherever the camera looks. One frame before the first, the camera is at the
origin of the world: the first velocity holds where the trajectory begins, and nothing is lost.

[Courant24] has the same nine numbers with the velocity along the world's axes. Along the camera's, features do not
change when the world is turned about (but for the rotation), and what a caption says stands in them directly.

[Courant24] E.T. the exceptional trajectories, arXiv:2407.01516.
[Zhou19] On the continuity of rotation representations in neural networks, arXiv:1812.07035.
"""

import textwrap
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float
from torch import Tensor

FPS = 25.0  # frames per second, as in [Courant24]


def to_rot6d(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """The first two columns, one after the other ([Zhou19] eq. 14).

    >>> to_rot6d(torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9.0]])).tolist()
    [1.0, 4.0, 7.0, 2.0, 5.0, 8.0]
    """
    return torch.cat([rotation[..., 0], rotation[..., 1]], -1)


def to_rotation(rot6d: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation nearest in the order of Gram-Schmidt: the first vector keeps its direction ([Zhou19] eq. 15).

    Any six numbers will do. Where the first three are 0, the first column is (1, 0, 0); where the second three are
    0 or parallel to the first, the second column is some unit vector at a right angle to it. No gradient passes there.
    """
    a, b = rot6d[..., :3], rot6d[..., 3:]
    x = _unit(a, torch.eye(3).to(a)[0].expand_as(a), 1e-6)
    away = F.one_hot(x.abs().argmin(-1), 3).to(x)  # the axis farthest from x
    other = F.normalize(torch.linalg.cross(x.detach(), away), dim=-1)
    y = _unit(b - (x * b).sum(-1, keepdim=True) * x, other, 1e-6 * b.detach().norm(dim=-1, keepdim=True).clamp_min(1))
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def _unit(v: Float[Tensor, "*b 3"], otherwise: Float[Tensor, "*b 3"], least: Any) -> Float[Tensor, "*b 3"]:
    """v / |v|, and `otherwise` where v is 0 but for rounding, up to `least`: its direction is noise."""
    size = v.norm(dim=-1, keepdim=True)
    known = size > least
    return torch.where(known, v / torch.where(known, size, 1), otherwise)


def to_features(poses: Float[Tensor, "*b f 4 4"], fps: float = FPS) -> Float[Tensor, "*b f 9"]:
    """Camera-to-world matrices [R p; 0 1], p in metres -> (rot6d, velocity in metres per second).

    Matrices that take the world to the camera, as many data sets hold, have to be inverted first: their last column is
    not where the camera is.

    Raises:
        ValueError: if a last row is not (0, 0, 0, 1) or a rotation is not one, reflections among them.
    """
    R, p = poses[..., :3, :3], poses[..., :3, 3]
    bottom, error = poses.new_tensor([0, 0, 0, 1]), (R.mT @ R - torch.eye(3).to(R)).abs().amax()
    if (poses[..., 3, :] != bottom).any():
        raise ValueError("poses are matrices [R p; 0 1], but a last row is not 0, 0, 0, 1; give them untransposed")
    if error > 1e-3 or (torch.linalg.det(R) < 0).any():
        raise ValueError(
            f"a rotation is not orthonormal and right-handed (R'R - I is up to {error:.2g}); remove scales"
        )
    step = p.diff(dim=-2, prepend=torch.zeros_like(p[..., :1, :]))
    velocity = einsum(R, step, "... f world camera, ... f world -> ... f camera") * fps
    return torch.cat([to_rot6d(R), velocity], -1)


def to_poses(features: Float[Tensor, "*b f 9"], fps: float = FPS) -> Float[Tensor, "*b f 4 4"]:
    """The inverse of `to_features`, with a proper rotation whatever the first six features are."""
    R = to_rotation(features[..., :6])
    step = einsum(R, features[..., 6:], "... f world camera, ... f camera -> ... f world") / fps
    poses = torch.cat([R, step.cumsum(-2)[..., None]], -1)
    bottom = poses.new_tensor([0, 0, 0, 1]).expand(*poses.shape[:-2], 1, 4)
    return torch.cat([poses, bottom], -2)


def plot(
    features: Float[Tensor, "*n f 9"],
    path: str | PathLike[str],
    captions: str | Sequence[str] = "",
    *,
    columns: int = 3,
    cameras: int = 8,
) -> Path:
    """Draw a trajectory, or several beside one another, as a PNG, and return its path.

    A path is coloured by time, from dark to light, with a pyramid of sight for some of its cameras. Up in the picture
    is up in the world, whose y points down, and the three axes have one scale.

    Args:
        captions: titles, one for each trajectory.
        cameras: pyramids, at equal intervals of time.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    features = features[None] if features.ndim == 2 else features
    captions = [captions] * len(features) if isinstance(captions, str) else captions
    columns = min(columns, len(features))
    rows = -(-len(features) // columns)
    figure = Figure(
        figsize=(4.5 * columns + 0.8, 5 * rows), dpi=90, layout=ConstrainedLayoutEngine(rect=(0, 0, 1, 0.97))
    )
    FigureCanvasAgg(figure)
    cells = [figure.add_subplot(rows, columns, i + 1, projection="3d") for i in range(len(features))]
    lines = []
    for axes, poses, caption in zip(cells, to_poses(features.detach().double().cpu()), captions, strict=True):
        axes.set_title(textwrap.fill(caption, 50), fontsize=9, y=1.02)
        lines.append(_draw(axes, poses, cameras))
    figure.colorbar(lines[0], ax=cells, shrink=0.6 / rows, label="time (s)")
    figure.savefig(path, metadata={"Software": None})
    return Path(path)


def _draw(axes: Any, poses: Float[Tensor, "f 4 4"], cameras: int) -> Any:
    """One trajectory; returns the coloured line."""
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    world = torch.tensor([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]]).double()  # (x, z, up): right-handed, upright
    p, R = poses[:, :3, 3] @ world.T, world @ poses[:, :3, :3]
    extent = (p.amax(0) - p.amin(0)).max().item()
    size = max(0.06 * extent, 0.05)
    corners = size * torch.tensor([[-0.8, -0.5, 1], [0.8, -0.5, 1], [0.8, 0.5, 1], [-0.8, 0.5, 1]]).double()
    steps, seconds = torch.stack([p[:-1], p[1:]], 1).numpy(), torch.arange(1, len(p)).numpy() / FPS
    line = Line3DCollection(steps, array=seconds, cmap="viridis", lw=3, capstyle="round")
    axes.add_collection(line)
    for frame in torch.linspace(0, len(p) - 1, cameras).round().long().tolist():
        seen = p[frame] + corners @ R[frame].T
        edges = [torch.stack([p[frame], c]) for c in seen] + [torch.stack([seen[i - 1], seen[i]]) for i in range(4)]
        colour = line.get_cmap()(frame / max(1, len(p) - 1))
        axes.add_collection(Line3DCollection(torch.stack(edges).numpy(), colors=[colour], linewidths=1))
    middle, half = (p.amax(0) + p.amin(0)) / 2, extent / 2 + 1.2 * size
    for name, centre in zip("xyz", middle.tolist(), strict=True):
        getattr(axes, f"set_{name}lim")(centre - half, centre + half)
    axes.set_box_aspect((1, 1, 1), zoom=0.88)
    axes.patch.set_alpha(0)  # or it hides a neighbour's label
    axes.set(xlabel="x (m)", ylabel="z (m)", zlabel="up (m)")
    return line
