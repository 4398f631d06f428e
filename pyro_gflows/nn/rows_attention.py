"""Attention over rows: weighted means in place of the plain mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_gflows.actions import RowTables, VectorAction
from pyro_gflows.nn.feature_maps import feature_map
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.rows_linear import RowsLinear

__all__ = ["AttentiveRows", "Over"]

#: What a row attends to: a few weighted means of all rows, or every row.
Over = Literal["means", "pairs"]


class AttentiveRows(nn.Module):
    r"""An equivariant linear map of rows plus what each row reads from the others by attention.

    Row i gains :math:`\sum_j a_{ij} V x_j`, where the values :math:`V x_j` are linear in the even features of row j.
    The weights are functions of invariant even features. Over "means", each of k keys is a softmax over the rows, which
    gives k weighted means, and row i mixes these by a softmax over the k keys; the cost is linear in the number of
    rows. Over "pairs", :math:`a_{ij}` is the usual softmax over j of the products of queries and keys; the cost is
    quadratic.

    Odd features carry the sign of their row, so they cannot be summed over rows. A product of two odd features of one
    row can, and gives row i the odd features

    .. math:: \Big(\frac{1}{n} \sum_j v_j k_j^T\Big)\, q_i, \qquad v_j = V z_j, \quad
        k_j = \frac{K z_j}{\sqrt{1 + |K z_j|^2}}, \quad q_i = \frac{Q z_i}{\sqrt{1 + |Q z_i|^2}}

    in which the signs of the other rows cancel and that of row i remains.

    Args:
        layout_in: What the rows of the input consist of.
        layout_out: What the rows of the output consist of: those of a hidden layer, with the same features in every
            block.
        keys: The number k of keys, or of scalars in a query.
        over: "means" or "pairs".
    """

    def __init__(self, layout_in: RowFeatures, layout_out: RowFeatures, *, keys: int, over: Over) -> None:
        super().__init__()
        self.plain, self._over = RowsLinear(layout_in, layout_out), over
        features = next(action for action in layout_out.even if action is not None)
        invariants = features.trivial_fields(keys)
        even = [*layout_in.even, layout_in.rest]
        self.values, self.keys = _maps(layout_in.even, features), _maps(layout_in.even, invariants)
        self.queries = _maps(even if layout_out.rest is not None else layout_in.even, invariants)
        odd = [action if target is not None else None for action, target in _pairs(layout_in.odd, layout_out.odd)]
        self._odd = [action is not None for action in odd]
        read = [action for action in odd if action is not None]
        self.odd_values, self.odd_keys, self.odd_queries = (_maps(read, features) for _ in range(3))

    def forward(self, rows: RowTables, mask: Tensor | None = None) -> RowTables:
        plain: RowTables = self.plain(rows, mask)
        found = self._attend([*rows.even, rows.rest.unsqueeze(-2)], rows.even, mask)
        even = [x + y for x, y in zip(plain.even, found, strict=False)]
        rest = plain.rest + found[-1].squeeze(-2) if len(found) > len(even) else plain.rest
        return RowTables(tuple(even), self._attend_odd(rows.odd, plain.odd, mask), rest)

    def _attend(self, readers: Sequence[Tensor], rows: Sequence[Tensor], mask: Tensor | None) -> list[Tensor]:
        values = torch.cat(_each(self.values, rows), -2)
        keys = torch.cat(_each(self.keys, rows), -2)
        queries = [layer(x) for layer, x in zip(self.queries, readers, strict=False)]
        if mask is not None:  # a row that is not there has no weight, also where there is no other row
            values = values * mask[..., None]
        if self._over == "pairs":
            scale = keys.shape[-1] ** -0.5
            return [_shares(scale * query @ keys.mT, mask) @ values for query in queries]
        means = _shares(keys.mT, mask) @ values
        return [query.softmax(-1) @ means for query in queries]

    def _attend_odd(self, rows: Sequence[Tensor], plain: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, ...]:
        read = [z for z, wanted in zip(rows, self._odd, strict=True) if wanted]
        if not read:
            return tuple(plain)
        keys = _bounded(torch.cat(_each(self.odd_keys, read), -2))
        count: Tensor | int = keys.shape[-2]
        if mask is not None:
            keys, count = keys * mask[..., None], mask.sum(-1).clamp_min(1)[..., None, None]
        moments = torch.cat(_each(self.odd_values, read), -2).mT @ keys / count
        gained = iter([_bounded(query) @ moments.mT for query in _each(self.odd_queries, read)])
        return tuple(z + next(gained) if wanted else z for z, wanted in zip(plain, self._odd, strict=True))


def _shares(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The softmax over the rows that are there, along the last dimension."""
    if mask is not None:
        scores = scores.masked_fill(~mask[..., None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


def _maps(actions: Sequence[VectorAction | None], target: VectorAction) -> nn.ModuleList:
    return nn.ModuleList(feature_map(action, target) for action in actions)


def _each(layers: nn.ModuleList, inputs: Sequence[Tensor]) -> list[Tensor]:
    return [layer(x) for layer, x in zip(layers, inputs, strict=True)]


def _pairs(
    first: Sequence[VectorAction | None], second: Sequence[VectorAction | None]
) -> zip[tuple[VectorAction | None, VectorAction | None]]:
    return zip(first, second, strict=True)


def _bounded(x: Tensor) -> Tensor:
    """The vectors in the unit ball that have the directions of x."""
    return x / (1 + x.square().sum(-1, keepdim=True)).sqrt()
