r"""Isotypic components as operators: what each irreducible representation takes up of an event.

An event is a direct sum of small summands (the fields of a vector, each field of an image on each orbit of pixels), and
each summand holds its own copies of each irrep. So a component is known by a few rows on each summand: a projection
costs as much as reading the event a few times, and no matrix of the size of the event is made unless it is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pyro_gflows.deprecation import renamed_attributes
from pyro_gflows.groups.representations import Representation
from pyro_gflows.numerics.constants import as_constants
from pyro_gflows.numerics.precision import full_precision

__all__ = ["Isotype", "Summands"]


@dataclass(frozen=True, eq=False)
class Summands:
    """Summands of an event that are alike, and the copies of one irrep in each of them.

    Attributes:
        make_rows: gives the rows, shape ``(m, d, D)``: m copies in a summand of D numbers. It is a call, so that the
            waves of a large grid are computed when they are needed.
        count: m.
        places: which entries of the flattened event each summand is, shape ``(n, D)``. The isotypes of one
            decomposition share this tensor where they lie in the same summands.
        order: the place of each summand in the direct sum.
        labels: the field that each summand belongs to.
    """

    make_rows: Callable[[], Tensor]
    count: int
    places: Tensor
    order: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def rows(self) -> Tensor:
        return self.make_rows()


@renamed_attributes(changed="in_basis")
@dataclass(frozen=True, eq=False)
class Isotype:
    r"""One irreducible representation V, and where it sits in the event.

    Attributes:
        summands: the copies of V, summand by summand; all rows are orthonormal, and every copy carries the same
            matrices.
        commutant: shape ``(1 | 2 | 4, d, d)``; an orthogonal basis of the maps that commute with V (the identity
            first), as many as the type of V says.
        representation: where ``V`` was first found, with the rows that carry it.
        is_trivial: V is the trivial representation.
        event_shape: the shape of one event.
        too_large: why :attr:`basis` is not given; None: it is.
    """

    summands: tuple[Summands, ...]
    commutant: Tensor
    representation: tuple[Representation, Tensor]
    is_trivial: bool
    event_shape: torch.Size
    too_large: str | None = None

    @property
    def multiplicity(self) -> int:
        """How many copies of V the event holds."""
        return sum(len(group.order) * group.count for group in self.summands)

    @property
    def dim(self) -> int:
        """The dimension of V."""
        return self.commutant.shape[-1]

    @property
    def type(self) -> Literal["real", "complex", "quaternionic"]:
        """Which numbers the maps that commute with V are."""
        kinds: dict[int, Literal["real", "complex", "quaternionic"]] = {1: "real", 2: "complex", 4: "quaternionic"}
        return kinds[len(self.commutant)]

    @functools.cached_property
    def labels(self) -> tuple[int, ...]:
        """For each copy, the index of the field it lies in."""
        found = [
            (order, label)
            for group in self.summands
            for order, label in zip(group.order, group.labels, strict=True)
            for _ in range(group.count)
        ]
        return tuple(label for _, label in sorted(found))

    @property
    def basis(self) -> Tensor:
        """Shape ``(m, d, numel)``; row (a, i) is the i-th basis vector of the a-th copy.

        Raises:
            ValueError: the event is so large that no layer should use it; :meth:`dense_basis` computes it all the same.
        """
        if self.too_large is not None:
            raise ValueError(self.too_large)
        return self._dense

    @functools.cached_property
    @as_constants()
    def _dense(self) -> Tensor:
        return self.dense_basis()

    def dense_basis(self) -> Tensor:
        """:attr:`basis`, however large it is."""
        out = torch.zeros(self.multiplicity, self.dim, self.event_shape.numel(), dtype=torch.float64)
        within = torch.arange(self.dim)[:, None]
        for group, copies in zip(self.summands, self.copies(), strict=True):
            out[copies[..., None, None], within, group.places[:, None, None, :]] = group.rows
        return out

    def copies(self) -> list[Tensor]:
        """Which copies each of the summands holds, shape ``(n, m)`` for each entry of :attr:`summands`."""
        counts = [(order, index, group.count) for index, group in enumerate(self.summands) for order in group.order]
        counts.sort()
        starts: list[list[int]] = [[] for _ in self.summands]
        total = 0
        for _, index, count in counts:  # within one entry the summands are listed in their order
            starts[index].append(total)
            total += count
        return [
            torch.tensor(first)[:, None] + torch.arange(group.count)
            for first, group in zip(starts, self.summands, strict=True)
        ]

    def irrep(self, elements: Tensor) -> Tensor:
        """The matrices of V, shape ``batch + (d, d)``."""
        representation, rows = self.representation
        return rows @ representation.matrices(elements) @ rows.T

    @full_precision
    def project(self, x: Tensor) -> Tensor:
        r"""The orthogonal projection of x on the component, :math:`P x = B^T B x`, without a dense basis B.

        Args:
            x: events, shape ``batch + event_shape``, of any floating dtype and on any device.

        Raises:
            ValueError: x does not end with the event shape.

        Example:
            >>> from pyro_gflows import ImageAction
            >>> action = ImageAction("D4", size=32)
            >>> means = action.decomposition[0].project(torch.randn(5, 1, 32, 32))
            >>> bool(torch.allclose(action.act(torch.tensor(3), means), means))
            True
        """
        rank = len(self.event_shape)
        if x.shape[x.ndim - rank :] != self.event_shape or x.ndim < rank:
            raise ValueError(
                f"expected x of shape (..., {', '.join(map(str, self.event_shape))}), got {tuple(x.shape)}"
            )
        flat = x.flatten(-rank)
        moved, places = [], []
        for group in self.summands:
            rows, place = group.rows.flatten(0, 1).to(x), group.places.to(x.device)
            moved.append((flat[..., place] @ rows.T @ rows).flatten(-2))
            places.append(place.flatten())
        out = torch.zeros_like(flat).index_copy(-1, torch.cat(places), torch.cat(moved, -1))
        return out.unflatten(-1, self.event_shape)

    def in_basis(self, change: Tensor) -> Isotype:
        """The same component in another basis of V, ``change @ basis`` for each copy; the irrep is still the old V."""
        summands = tuple(
            replace(group, make_rows=functools.partial(torch.matmul, change, group.rows)) for group in self.summands
        )
        return replace(self, summands=summands)
