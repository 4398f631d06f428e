r"""Isotype: the part of an event that consists of copies of one irreducible representation.

An event is a direct sum of small summands (the fields of a vector, or each field of an image on each orbit of pixels),
and each summand holds its own copies of each irrep. A component is therefore described by a few rows on each summand: a
projection costs as much as reading the event a few times, and a matrix of the size of the event is made only on demand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pyro_gflows.deprecation import renamed_attributes
from pyro_gflows.groups.averages import IrrepImages
from pyro_gflows.groups.representations import Representation
from pyro_gflows.numerics.constants import as_constants, made_once
from pyro_gflows.numerics.precision import full_precision

__all__ = ["Isotype", "Summands"]


@dataclass(frozen=True, eq=False)
class Summands:
    """Summands of an event that are alike, and the copies of one irrep in each of them.

    Attributes:
        make_rows: A function that gives the rows, shape ``(m, d, D)``: the bases of m copies in a summand of D
            coordinates. It is a function so that the waves of a large grid are computed only when they are needed.
        count: The number m of copies in each summand.
        places: For each summand, the entries of the flattened event that it consists of, shape ``(n, D)``. The isotypes
            of one decomposition share this tensor where they lie in the same summands.
        order: The position of each summand in the direct sum.
        labels: For each summand, the index of its field.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> (summands,) = VectorAction.rows("S3").copies(2).decomposition[0].summands
        >>> summands.places.tolist(), summands.count, summands.order
        ([[0, 1, 2], [3, 4, 5]], 1, (0, 1))
    """

    make_rows: Callable[[], Tensor]
    count: int
    places: Tensor
    order: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def rows(self) -> Tensor:
        """The rows that ``make_rows`` gives, shape ``(m, d, D)``."""
        return self.make_rows()


@renamed_attributes(changed="in_basis")
@dataclass(frozen=True, eq=False)
class Isotype:
    r"""An isotypic component: all copies of one irreducible representation V in an event.

    A representation is irreducible if no part of it can be split off: no smaller subspace is mapped to itself by every
    group element. The coordinates of an event in one component are an m x d table: m copies (the multiplicity) of a
    vector on which the group acts by the d x d matrices V(g).

    Attributes:
        summands: The copies of V, summand by summand. All rows are orthonormal, and every copy has the same matrices
            V(g).
        commutant: An orthogonal basis of the linear maps that commute with V, the identity first, shape
            ``(1, d, d)``, ``(2, d, d)`` or ``(4, d, d)`` according to :attr:`type`.
        representation: The representation in which V was first found, and the rows that span V in it.
        is_trivial: Whether V is the trivial representation, so that the group leaves the component as it is.
        event_shape: The shape of one event.
        too_large: The reason why :attr:`basis` is not available, or None where it is.
        outer: The name of the first factor where V is known to be the tensor product of an irrep of a first group,
            in a fixed basis, and of an irrep of a second one; else None.
        inner: The component of the second factor, or None.
        images: The matrices V(g) of all elements, where they were computed; else None.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> mean, differences = VectorAction.rows("S3", features=2).decomposition
        >>> mean.is_trivial, differences.multiplicity, differences.dim, differences.basis.shape
        (True, 2, 2, torch.Size([2, 2, 6]))
    """

    summands: tuple[Summands, ...]
    commutant: Tensor
    representation: tuple[Representation, Tensor]
    is_trivial: bool
    event_shape: torch.Size
    too_large: str | None = None
    outer: str | None = None
    inner: Isotype | None = None
    images: IrrepImages | None = None

    @property
    def multiplicity(self) -> int:
        """The number m of copies of V in the event."""
        return sum(len(group.order) * group.count for group in self.summands)

    @property
    def dim(self) -> int:
        """The dimension d of V."""
        return self.commutant.shape[-1]

    @property
    def type(self) -> Literal["real", "complex", "quaternionic"]:
        """The kind of the linear maps that commute with V, which multiply as R, C or the quaternions do."""
        kinds: dict[int, Literal["real", "complex", "quaternionic"]] = {1: "real", 2: "complex", 4: "quaternionic"}
        return kinds[len(self.commutant)]

    @made_once
    def labels(self) -> tuple[int, ...]:
        """For each copy of V, the index of the field in which it lies."""
        found = [
            (order, label)
            for group in self.summands
            for order, label in zip(group.order, group.labels, strict=True)
            for _ in range(group.count)
        ]
        return tuple(label for _, label in sorted(found))

    @property
    def basis(self) -> Tensor:
        """An orthonormal basis of the component, shape ``(m, d, numel)``; row (a, i) is basis vector i of copy a.

        Raises:
            ValueError: The event is so large that no layer should use the basis; :meth:`dense_basis` computes it all
                the same.
        """
        if self.too_large is not None:
            raise ValueError(self.too_large)
        return self._dense

    @made_once
    @as_constants()
    def _dense(self) -> Tensor:
        return self.dense_basis()

    def dense_basis(self) -> Tensor:
        """The tensor :attr:`basis`, computed for an event of any size."""
        out = torch.zeros(self.multiplicity, self.dim, self.event_shape.numel(), dtype=torch.float64)
        within = torch.arange(self.dim)[:, None]
        for group, copies in zip(self.summands, self.copies(), strict=True):
            out[copies[..., None, None], within, group.places[:, None, None, :]] = group.rows
        return out

    def copies(self) -> list[Tensor]:
        """The indices of the copies in each summand, shape ``(n, m)`` for each entry of :attr:`summands`."""
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
        """The matrices V(g), float64, shape ``batch + (d, d)``.

        Args:
            elements: Group elements g.
        """
        representation, rows = self.representation
        if len(rows) != self.dim:
            raise ValueError(self.too_large)
        return rows @ representation.matrices(elements) @ rows.T

    @full_precision
    def project(self, x: Tensor) -> Tensor:
        r"""The orthogonal projection of x on the component, :math:`P x = B^T B x`, computed without a dense basis B.

        Args:
            x: Events, shape ``batch + event_shape``, of any floating-point dtype and on any device.

        Raises:
            ValueError: The shape of x does not end with the event shape.

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
        projected, places = [], []
        for group in self.summands:
            rows, place = group.rows.flatten(0, 1).to(x), group.places.to(x.device)
            projected.append((flat[..., place] @ rows.T @ rows).flatten(-2))
            places.append(place.flatten())
        out = torch.zeros_like(flat).index_add(-1, torch.cat(places), torch.cat(projected, -1))
        return out.unflatten(-1, self.event_shape)

    def in_basis(self, change: Tensor) -> Isotype:
        """The same component with the basis ``change @ basis`` of each copy; :meth:`irrep` still refers to the old one.

        Args:
            change: An orthogonal matrix, shape ``(d, d)``.
        """
        summands = tuple(
            replace(group, make_rows=functools.partial(torch.matmul, change, group.rows)) for group in self.summands
        )
        return replace(self, summands=summands)
