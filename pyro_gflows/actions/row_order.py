"""The order of rows that takes every image of a table to one canonical form."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pyro_gflows.numerics.constants import as_constants

__all__ = ["lexicographic_order", "row_keys", "row_signs"]


def row_keys(rows: Tensor, seed: int) -> Tensor:
    """A fixed random linear combination of the features of each row, by which rows are sorted.

    Args:
        rows: Rows, shape ``batch_shape + (n, features)``.
        seed: The seed of the combination.

    Example:
        >>> row_keys(torch.ones(5, 3, 2), 0).shape
        torch.Size([5, 3])
    """
    return rows @ _weights(rows.shape[-1], seed).to(rows)


@functools.cache
@as_constants()
def _weights(count: int, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def row_signs(odd: Tensor) -> Tensor:
    """A sign for each row that changes whenever the odd features of the row change their sign.

    It is the sign of a fixed random combination of the features; where that is 0, of the first feature that is not 0;
    and 1 for a row of zeros.

    Args:
        odd: Odd features, shape ``batch_shape + (n, features)``.

    Example:
        >>> row_signs(torch.tensor([[-2.0], [3.0], [0.0]])).tolist()
        [-1, 1, 1]
    """
    keyed = torch.cat([row_keys(odd, 1)[..., None], odd], -1)
    nonzero = keyed != 0
    first = nonzero.to(torch.int8).argmax(-1, keepdim=True)  # the first of the largest
    sign = keyed.gather(-1, first).squeeze(-1).sign()
    return torch.where(sign == 0, torch.ones_like(sign), sign).long()


def lexicographic_order(rows: Tensor) -> Tensor:
    """The order that sorts rows by a fixed random combination of their features, and then by the features themselves.

    So rows with equal places are equal rows.

    Args:
        rows: Rows, shape ``batch_shape + (n, features)``.

    Returns:
        The index of the row at each place, shape ``batch_shape + (n,)``.

    Example:
        >>> rows = torch.tensor([[1.0, 2.0], [1.0, 1.0], [1.0, 1.5]])
        >>> order = lexicographic_order(rows)
        >>> torch.equal(rows[order], rows.flip(0)[lexicographic_order(rows.flip(0))])
        True
    """
    keys = torch.cat([row_keys(rows, 0)[..., None], rows], -1)
    order = keys[..., -1].argsort(dim=-1, stable=True)
    for column in range(keys.shape[-1] - 2, -1, -1):
        order = order.gather(-1, keys[..., column].gather(-1, order).argsort(dim=-1, stable=True))
    return order
