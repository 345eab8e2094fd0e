"""Batches of sequences of unequal length with missing values, as one padded tensor.

    batch = pad_sequences([walk, run])                # tensors (t, d) or (t,), each with its own t
    batch = pad_sequences(padded, lengths=[30, 12])   # (b, t, d)

A missing value is NaN; what lies beyond the end of a sequence is NaN too. Everything is float64.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor


class Sequences(NamedTuple):
    """`b` sequences in one tensor."""

    x: Tensor
    """(b, t, d), float64; NaN where missing and beyond the length."""
    lengths: Tensor
    """(b,), each from 1 to t."""

    @property
    def inside(self) -> Bool[Tensor, "b t"]:
        """Whether a frame belongs to its sequence."""
        return torch.arange(self.x.shape[1], device=self.x.device) < self.lengths[:, None]

    @property
    def seen(self) -> Bool[Tensor, "b t d"]:
        """Whether a value was observed."""
        return ~self.x.isnan()


def pad_sequences(data: Any, lengths: Sequence[int] | Tensor | None = None) -> Sequences:
    """Collect a list of sequences, or a padded tensor (b, t, d) with their lengths; `Sequences` pass as they are.

    Raises:
        ValueError: if there is no sequence, one is empty, their dimensions differ or a value is infinite.
    """
    if isinstance(data, Sequences):
        return data
    if isinstance(data, list | tuple):
        each = [_frames(x) for x in data]
        if not each or len({x.shape[1] for x in each}) > 1:
            raise ValueError(f"sequences need one and the same dimension, got {[tuple(x.shape) for x in each]}")
        lengths = [len(x) for x in each]
        x = torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=torch.nan)
    else:
        x = torch.as_tensor(data).double()
    if x.ndim != 3:
        raise ValueError(f"a batch has the shape (b, t, d), got {tuple(x.shape)}; put one sequence (t, d) into a list")
    ends = torch.as_tensor([x.shape[1]] * len(x) if lengths is None else lengths, device=x.device)
    if ends.shape != x.shape[:1] or not len(ends) or ends.min() < 1 or ends.max() > x.shape[1]:
        raise ValueError(f"each of {len(x)} sequences has a length of 1 to {x.shape[1]}, got {ends.tolist()}")
    if x.isinf().any():
        raise ValueError("a sequence has an infinite value; mark missing values by NaN")
    batch = Sequences(x, ends)
    return Sequences(x.where(batch.inside[..., None], torch.nan), ends)


def _frames(x: Any) -> Tensor:
    """(t, d) of one sequence, where (t,) has d = 1."""
    x = torch.as_tensor(x).double()
    return x[:, None] if x.ndim == 1 else x
