"""Micro-batches: together they are the batch, and what has no rows is refused."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from gen_core.micro import micro_batches


class Pair(NamedTuple):
    x: torch.Tensor
    y: list


def rows(piece):
    """The rows of a piece as plain tuples, whatever held them."""
    x, words, (ragged, pair), column, constant = piece
    parts = (x.tolist(), words, [r.tolist() for r in ragged], pair.x.tolist(), pair.y, column["k"].tolist())
    return list(zip(*parts, strict=True)), constant


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_pieces_hold_every_row_once_in_order(size):
    """Tensors, strings, rows of several lengths, named tuples, arrays; the two columns of a pair are no rows."""
    ragged = [torch.zeros(i + 1) for i in range(5)]
    pair = Pair(torch.arange(5.0), list("vwxyz"))
    batch = (torch.arange(5), list("abcde"), (ragged, pair), {"k": np.arange(5) * 2}, 0.5)
    pieces, shares = micro_batches(batch, size)
    assert [row for piece in pieces for row in rows(piece)[0]] == rows(batch)[0]
    assert all(rows(piece)[1] == 0.5 for piece in pieces)
    assert [len(piece[0]) for piece in pieces] == pytest.approx([5 * share for share in shares])


def test_a_pair_of_columns_is_cut_by_column_even_in_a_batch_of_two():
    pieces, _ = micro_batches(([torch.tensor([1, 2]), torch.tensor([3, 4])],), 1)
    assert [[column.tolist() for column in piece[0]] for piece in pieces] == [[[1], [3]], [[2], [4]]]


def test_without_tensors_the_items_are_the_rows():
    assert micro_batches((["a", "b", "c"], None), 2)[0] == [(["a", "b"], None), (["c"], None)]


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (torch.zeros(3), r"Tensor of shape \(3,\)"),
        (torch.tensor(1.0), r"Tensor of shape \(\)"),
        (["a", "b", "c"], "list of 3 items"),
        ({"a", "b"}, "set of 2 items"),
        (iter("ab"), "str_ascii_iterator|str_iterator"),
        (len, "builtin_function_or_method"),
    ],
)
def test_what_has_no_rows_to_cut_is_refused(part, named):
    with pytest.raises(ValueError, match=f"same number of rows, 2 here, but got ({named});"):
        micro_batches((torch.zeros(2, 3), part), 1)


def test_a_batch_without_rows_is_refused():
    for batch in ((), (0.5,), (torch.zeros(0, 3),)):
        with pytest.raises(ValueError, match="at least one row"):
            micro_batches(batch, 2)
