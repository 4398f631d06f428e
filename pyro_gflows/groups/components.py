"""Decomposition: the isotypic components of an event, and the change of basis to coordinates in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import overload

import torch
from torch import Tensor

from pyro_gflows.groups.isotypes import Isotype
from pyro_gflows.numerics.constants import as_constants, made_once
from pyro_gflows.numerics.precision import full_precision

__all__ = ["Decomposition"]


class Decomposition(Sequence[Isotype]):
    r"""The isotypic components of an event, and the change of basis to coordinates in them.

    An isotypic component is the part of an event on which the group acts by copies of one irreducible representation
    (irrep), as the mean of the coordinates and the deviations from the mean are the two components of a vector whose
    coordinates are permuted. Equivariant linear maps (intertwiners) never mix two components, so the components are
    the blocks of which invariant covariances and equivariant linear layers consist.

    A decomposition is a sequence of :class:`Isotype`. Its change of basis is :math:`x \mapsto Q x`, where the rows of
    the orthogonal matrix Q are the bases of all components. Q is applied to one small part of the event at a time, so
    the large matrix is never built.

    Args:
        isotypes: The components, which add up to the whole event.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> components = VectorAction.rows("S3").decomposition
        >>> [(component.dim, component.is_trivial) for component in components]
        [(1, True), (2, False)]
        >>> (components.coordinates(torch.ones(3)).abs() > 1e-5).tolist()  # equal coordinates have no deviations
        [True, False, False]
    """

    def __init__(self, isotypes: Sequence[Isotype]) -> None:
        self._isotypes = tuple(isotypes)

    @overload
    def __getitem__(self, index: int) -> Isotype: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Isotype]: ...
    def __getitem__(self, index: int | slice) -> Isotype | Sequence[Isotype]:
        return self._isotypes[index]

    def __len__(self) -> int:
        return len(self._isotypes)

    def __iter__(self) -> Iterator[Isotype]:
        return iter(self._isotypes)

    in_closed_form: bool = False
    """Whether the change of basis is a formula, so that layers hold no matrix of it."""

    @property
    def is_large(self) -> bool:
        """Whether the event is so large that the components offer no dense bases."""
        return any(isotype.too_large is not None for isotype in self)

    @property
    def sizes(self) -> list[int]:
        """The dimension of each component."""
        return [isotype.multiplicity * isotype.dim for isotype in self]

    @full_precision
    def coordinates(self, x: Tensor) -> Tensor:
        """The coordinates Q x of events, component by component and, within a component, copy by copy.

        Args:
            x: Flattened events, shape ``batch + (numel,)``.

        Returns:
            The coordinates, of the same shape.

        Example:
            >>> from pyro_gflows import ImageAction
            >>> components = ImageAction("D4", size=32).decomposition
            >>> x = torch.randn(5, 32 * 32)
            >>> bool(torch.allclose(components.event(components.coordinates(x)), x, atol=1e-5))
            True
        """
        places, order, _ = self._indices(x.device)
        parts = [self._analyze(kind, x[..., place]).flatten(-2) for kind, place in enumerate(places)]
        return torch.cat(parts, -1).index_select(-1, order.argsort())

    @full_precision
    def event(self, coordinates: Tensor) -> Tensor:
        """The flattened events Q^T c with coordinates c, which inverts :meth:`coordinates`.

        Args:
            coordinates: Coordinates c, shape ``batch + (numel,)``.
        """
        places, order, everywhere = self._indices(coordinates.device)
        ordered = coordinates.index_select(-1, order).split([place.numel() for place in places], -1)
        parts = [
            self._synthesize(kind, part.unflatten(-1, place.shape)).flatten(-2)
            for kind, (part, place) in enumerate(zip(ordered, places, strict=True))
        ]
        return torch.cat(parts, -1).index_select(-1, everywhere)

    def _analyze(self, kind: int, local: Tensor) -> Tensor:
        """The coordinates of summands of one kind, shape ``batch + (n, D)`` before and after."""
        return local @ self._matrices[kind].to(local).T

    def _synthesize(self, kind: int, local: Tensor) -> Tensor:
        return local @ self._matrices[kind].to(local)

    @made_once
    def _members(self) -> list[list[tuple[int, int]]]:
        """For each kind of summand, the isotypes that lie in it, each with the index of its entry of summands."""
        found: dict[int, list[tuple[int, int]]] = {}
        for index, isotype in enumerate(self):
            for group, summands in enumerate(isotype.summands):
                found.setdefault(id(summands.places), []).append((index, group))
        return list(found.values())

    @made_once
    def _places(self) -> list[Tensor]:
        return [self[members[0][0]].summands[members[0][1]].places for members in self._members]

    def _indices(self, device: torch.device) -> tuple[list[Tensor], Tensor, Tensor]:
        """The index tensors of the change of basis, on a device.

        Returns:
            The places of the summands of each kind; for each entry of the result of :meth:`_analyze`, the coordinate
            that it is; and for each entry of an event, its place in the result of :meth:`_synthesize`.
        """
        if device not in self._tables:
            with as_constants():
                everywhere = torch.cat([place.flatten() for place in self._places]).argsort()
                self._tables[device] = (
                    [place.to(device) for place in self._places],
                    self._order.to(device),
                    everywhere.to(device),
                )
        return self._tables[device]

    @made_once
    def _tables(self) -> dict[torch.device, tuple[list[Tensor], Tensor, Tensor]]:
        return {}

    @made_once
    @as_constants()
    def _matrices(self) -> list[Tensor]:
        """For each kind of summand, the orthogonal matrix of the rows of all isotypes in it, shape ``(D, D)``."""
        return [
            torch.cat([self[index].summands[group].rows.flatten(0, 1) for index, group in members])
            for members in self._members
        ]

    @made_once
    @as_constants()
    def _order(self) -> Tensor:
        """For each entry of the result of :meth:`_analyze`, the coordinate that it is."""
        starts = list(itertools.accumulate(self.sizes, initial=0))
        copies = [isotype.copies() for isotype in self]
        order = []
        for members in self._members:
            columns = [
                starts[index] + (copies[index][group][..., None] * self[index].dim + torch.arange(self[index].dim))
                for index, group in members
            ]
            order.append(torch.cat([column.flatten(1) for column in columns], 1).flatten())
        return torch.cat(order)
