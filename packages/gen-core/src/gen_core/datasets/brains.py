"""Slices of two T1-weighted volumes of the human brain, 1 mm a voxel, in three planes.

    training, held_out = brains("train"), brains("test")  # Arrays: pictures (n, 1, 64, 64) as bytes, and planes

The volumes are Colin 27, the mean of 27 scans of one brain (of mricron-data), and ICBM 152, the mean of 152 brains
(of nilearn), both without the skull. Neighbouring slices are nearly alike: held out is every fourth block of eight
slices of a volume and plane, and two slices beside it belong to neither part. What is measured is therefore how these
two brains are filled in, and nothing about other people.

Colin 27: Holmes et al., Journal of Computer Assisted Tomography 22(2), 1998. ICBM 152: Fonov et al., NeuroImage 54(1),
2011. Copyright of both: Montreal Neurological Institute; free use and distribution with that notice.
"""

import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8

from gen_core.data import Arrays, Split
from gen_core.datasets.packages import MRICRON, NILEARN, check, unpacked
from gen_core.datasets.sizes import resized

FILES = {
    "ch2bet.nii.gz": (MRICRON, "03641f6942f3ab92f187713b4da4d75c"),
    "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz": (NILEARN, "f1d9dd0009782503f8010ad81829c3aa"),
}
PLANES = ("sagittal", "coronal", "axial")
SIDE = 192  # mm of the square that a slice is put into
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}  # of NIfTI's datatype
BLOCK, GAP, LEAST = 8, 2, 0.1  # slices, slices, share of the pixels of a slice that are not dark


def brains(split: Split = "all", size: int | tuple[int, int] = 64, *, folder: str | Path | None = None) -> Arrays:
    """Pictures `(n, 1, height, width)` as bytes, front or top upwards, and their planes.

    Args:
        split: `all` has the slices between the parts too.
        size: 192 mm are so many pixels.
        folder: holds the files of FILES; by default the packages mricron-data and nilearn.

    Raises:
        FileNotFoundError: without a volume, naming the command that installs it.
        ValueError: for a volume that is damaged.
    """
    found, labels, digests = [], [], []
    for name, (package, digest) in FILES.items():
        file = package.find(name, folder)
        data = unpacked(file)
        values, affine = parse_nifti(data, file)
        check(file, data, digest)
        digests.append(digest)
        for plane, pictures in enumerate(slices(upright(values, affine, file))):
            chosen = pictures[part(len(pictures), split)]
            found.append(chosen)
            labels += [plane] * len(chosen)
    content = f"{' '.join(digests)} {split} {size}"
    return Arrays(resized(np.concatenate(found), size), torch.tensor(labels), classes=PLANES, content=content)


def part(n: int, split: Split) -> Shaped[np.ndarray, "m"]:
    """Which of `n` neighbouring slices are in a part.

    >>> part(40, "test").tolist(), part(40, "train").tolist()[20:]
    ([24, 25, 26, 27, 28, 29, 30, 31], [20, 21, 34, 35, 36, 37, 38, 39])
    """
    index = np.arange(n)
    held = index // BLOCK % 4 == 3
    near = np.array([held[max(0, i - GAP) : i + GAP + 1].any() for i in index], bool)
    return index[{"train": ~near, "test": held, "all": np.ones(n, bool)}[split]]


def parse_nifti(data: bytes, file: Path) -> tuple[Shaped[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """(values, affine from voxels to mm) of an uncompressed NIfTI-1 file of one volume.

    Raises:
        ValueError: naming `file`, if it is none, has another kind of numbers or is cut off.
    """
    if len(data) < 352 or data[344:348] != b"n+1\0":
        raise ValueError(f"{file} is no NIfTI file; install its package again")
    order = "<" if data[:4] == struct.pack("<i", 348) else ">"
    _, *shape = struct.unpack(f"{order}4h", data[40:48])
    (kind,), (offset, slope, shift) = (
        struct.unpack(f"{order}h", data[70:72]),
        struct.unpack(f"{order}3f", data[108:120]),
    )
    if kind not in TYPES:
        raise ValueError(
            f"{file} holds numbers of NIfTI's type {kind}; convert it to one of {', '.join(map(str, TYPES))}"
        )
    values = np.frombuffer(data[int(offset) :], order + TYPES[kind])
    if len(values) < np.prod(shape):
        raise ValueError(f"{file} is damaged: it holds {len(values):,} of {np.prod(shape):,} voxels; install it again")
    values = values[: np.prod(shape)].reshape(shape, order="F")
    rows = np.array(struct.unpack(f"{order}12f", data[280:328])).reshape(3, 4)
    return values * slope + shift if slope else values, np.vstack([rows, [0.0, 0.0, 0.0, 1.0]])


def upright(
    values: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], file: Path
) -> UInt8[np.ndarray, "side side side"]:
    """The brain as bytes in the middle of a cube, right, front and top last; the brightest thousandth is 255.

    Raises:
        ValueError: naming `file`, for a volume that is turned, has voxels of other sizes than 1 mm or shows more.
    """
    directions = np.diag(affine)[:3]
    if not np.allclose(affine[:3, :3], np.diag(np.sign(directions))):
        raise ValueError(f"{file} has no voxels of 1 mm along the axes of the head; resample it")
    values = values[tuple(slice(None, None, int(step)) for step in np.sign(directions))].astype(np.float64)
    values = (values / np.quantile(values, 0.999) * 255).clip(0, 255).round().astype(np.uint8)
    values = values[tuple(slice(found.min(), found.max() + 1) for found in values.nonzero())]
    if max(values.shape) > SIDE:
        raise ValueError(f"{file} shows {max(values.shape)} mm, and a brain has {SIDE} at most; take the skull away")
    return np.pad(values, [((SIDE - n) // 2, SIDE - n - (SIDE - n) // 2) for n in values.shape])


def slices(volume: UInt8[np.ndarray, "side side side"]) -> list[UInt8[np.ndarray, "n side side"]]:
    """The slices of each plane that are not nearly empty, from left, back and bottom, as pictures."""
    planes = [np.moveaxis(volume, axis, 0).swapaxes(1, 2)[:, ::-1] for axis in range(3)]
    return [plane[(plane > 10).mean((1, 2)) > LEAST] for plane in planes]
