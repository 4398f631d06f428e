"""The order and the signs of rows from scalars of each row that the group of the features leaves as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.actions.row_layout import RowTables
from pyro_gflows.actions.row_order import lexicographic_order
from pyro_gflows.actions.rows import RowsAction
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.numerics.constants import as_constants
from pyro_gflows.numerics.tables import take_rows

__all__ = ["InvariantOrder"]

_KEYS = 3  # scalars of a row; further ones decide where the first are equal


@dataclass(frozen=True, eq=False)
class _Kind:
    """The copies of one irrep of H among the features that a row reads, and random combinations of them.

    Attributes:
        rows: The bases of the copies, shape ``(m, d, width)``.
        odd: Which of the copies change their sign with the row, shape ``(m,)``.
        weights: Combinations of the copies, shape ``(2 + 2 _KEYS, m)``; the first two are for the sign.
        is_trivial: Whether H leaves the copies as they are.
    """

    rows: Tensor
    odd: Tensor
    weights: Tensor
    is_trivial: bool

    @property
    def tells_signs(self) -> bool:
        """Whether there are scalars of these copies that change their sign with the row."""
        return bool(self.odd.any()) and (self.is_trivial or not bool(self.odd.all()))

    def copies(self, table: Tensor) -> Tensor:
        """The copies in each row, shape ``batch + (n, m, d)``."""
        return torch.einsum("mdw,...nw->...nmd", self.rows.to(table), table)

    def sign_key(self, table: Tensor, reference: Tensor | None) -> Tensor:
        """A scalar of each row that changes its sign with the row: an inner product of odd copies with even ones.

        Args:
            table: What the rows read.
            reference: None; or what one row reads, whose odd copies stand for the even ones.
        """
        copies, odd = self.copies(table), self.odd.to(table)
        weights = self.weights[:2].to(table)
        first = torch.einsum("m,...nmd->...nd", weights[0] * odd, copies)
        if self.is_trivial:
            return first.squeeze(-1)
        if reference is None:
            second = torch.einsum("m,...nmd->...nd", weights[1] * (1 - odd), copies)
        else:
            second = torch.einsum("m,...nmd->...nd", weights[0] * odd, self.copies(reference))
        return (first * second).sum(-1)

    def keys(self, table: Tensor, signs: Tensor) -> Tensor:
        """Invariant scalars of each row, shape ``batch + (n, _KEYS)``."""
        odd = self.odd.to(table)
        copies = self.copies(table) * (1 - odd + odd * signs[..., None])[..., None]
        first, second = torch.einsum("km,...nmd->...nkd", self.weights[2:].to(table), copies).split(_KEYS, -2)
        return first.squeeze(-1) if self.is_trivial else (first * second).sum(-1)


class InvariantOrder:
    r"""The permutation, and the sign of each row, that take rows to a canonical form up to the group H of the features.

    Where H is infinite no element is known that takes an event to a canonical form. The order of the rows is known all
    the same: they are sorted by fixed random combinations of scalars that H leaves as they are, which are the norms
    and the inner products of the features of a row, of the means over all rows, and of the coordinates that no
    permutation changes. The sign of a row is that of inner products of its odd with its even features. So
    :math:`\pi(g\,x) = \pi(x)\,\sigma^{-1}`, where :math:`\sigma` is the permutation and sign part of g, except where
    two rows have equal scalars. Where no odd feature has an even one of its kind, the signs are relative to the first
    row, so that all of them may change at once.

    Args:
        action: How the group acts on rows; without matrices.

    Example:
        >>> action = RowsAction(5, VectorAction.plane("O(2)"))
        >>> order = InvariantOrder(action)
        >>> x, (g,) = torch.randn(10, dtype=torch.float64), action.sample((1,))
        >>> sorted_x, sorted_image = (action.act(order(y), y).unflatten(-1, (5, 2)) for y in (x, action.act(g, x)))
        >>> torch.allclose(sorted_x.norm(dim=-1), sorted_image.norm(dim=-1))
        True
    """

    def __init__(self, action: RowsAction) -> None:
        self.action = action
        layout = action.layout
        with as_constants():
            self._kinds = [_kinds(even, odd, layout.rest) for even, odd in zip(layout.even, layout.odd, strict=True)]

    def __call__(self, x: Tensor) -> Tensor:
        """The elements pi(x), whose part in H is the identity.

        Args:
            x: Events, shape ``batch_shape + (numel,)``.
        """
        return self.action.structure.elements_of(*self._places_and_signs(x))

    def undo(self, x: Tensor, images: Tensor) -> Tensor:
        """The vectors that the elements pi(x) take to ``images``, without a matrix of H.

        Args:
            x: Events, shape ``batch_shape + (numel,)``.
            images: Vectors, whose batch shape broadcasts with that of x.
        """
        rows = self.action.unpack(images)
        even, odd = [], []
        for own_even, own_odd, place, sign in zip(rows.even, rows.odd, *self._places_and_signs(x), strict=True):
            even.append(take_rows(own_even, place))
            odd.append(take_rows(own_odd, place) * sign[..., None].to(own_odd))
        batch = torch.broadcast_shapes(rows.rest.shape[:-1], x.shape[:-1])
        return self.action.pack(RowTables(tuple(even), tuple(odd), rows.rest.expand(*batch, -1)))

    @torch.no_grad()
    def _places_and_signs(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For each block the place to which each row goes, and its sign."""
        rows = self.action.unpack(x.detach().double())
        places, signs = [], []
        for even, odd, kinds in zip(rows.even, rows.odd, self._kinds, strict=True):
            means = even.mean(-2, keepdim=True).expand_as(even)
            rest = rows.rest[..., None, :].expand(*even.shape[:-1], -1)
            sign, order = _signs_and_order(torch.cat([even, means, odd, rest], -1), kinds)
            places.append(order.argsort(-1))
            signs.append(sign.long())
        return places, signs


def _signs_and_order(table: Tensor, kinds: list[_Kind]) -> tuple[Tensor, Tensor]:
    """The sign of each row, and the index of the row at each place."""
    ones = table.new_ones(table.shape[:-1])
    telling = [kind for kind in kinds if kind.tells_signs]
    if telling:
        sign = _signs(torch.stack([kind.sign_key(table, None) for kind in telling]).sum(0))
        return sign, _order(table, kinds, sign)
    order = _order(table, kinds, ones)
    odd = [kind for kind in kinds if bool(kind.odd.any())]
    if not odd:
        return ones, order
    first = torch.take_along_dim(table, order[..., :1, None], -2)
    return _signs(torch.stack([kind.sign_key(table, first) for kind in odd]).sum(0)), order


def _signs(keys: Tensor) -> Tensor:
    return torch.where(keys < 0, -torch.ones_like(keys), torch.ones_like(keys))


def _order(table: Tensor, kinds: list[_Kind], sign: Tensor) -> Tensor:
    if not kinds:  # the event holds no features of these rows
        return torch.arange(table.shape[-2], device=table.device).expand(table.shape[:-1])
    return lexicographic_order(torch.stack([kind.keys(table, sign) for kind in kinds]).sum(0))


def _kinds(even: VectorAction | None, odd: VectorAction | None, rest: VectorAction | None) -> list[_Kind]:
    """The irreps of H among the features of a row, the means of the even ones, the odd ones and the rest."""
    if even is None and odd is None:
        return []
    parts = [(action, changes) for action, changes in ((even, 0), (even, 0), (odd, 1), (rest, 0)) if action is not None]
    fields = [(field, changes) for action, changes in parts for field in action.fields]
    generator = torch.Generator().manual_seed(0)
    found = []
    for isotype in VectorAction([field for field, _ in fields]).decomposition:
        weights = torch.randn(2 + 2 * _KEYS, isotype.multiplicity, generator=generator, dtype=torch.float64)
        changing = torch.tensor([bool(fields[label][1]) for label in isotype.labels])
        found.append(_Kind(isotype.basis, changing, weights, isotype.is_trivial))
    return found
