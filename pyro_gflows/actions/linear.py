"""LinearAction: a group that acts on events by orthogonal matrices."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.canonical_form import nearest_image, reference_event
from pyro_gflows.groups.base import LARGEST_LISTED, EnumerableGroup, Group
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.decomposition import decompose, side_by_side
from pyro_gflows.groups.permutation_representations import RegularRepresentation
from pyro_gflows.groups.representations import Representation, TrivialRepresentation
from pyro_gflows.numerics.constants import as_constants, made_once

__all__ = ["LinearAction"]

_NAMED_FIELDS = 12  # of more fields, a few are named

_Linear = TypeVar("_Linear", bound="LinearAction")


class LinearAction(Action):
    r"""A group that acts by orthogonal matrices, :math:`x \mapsto \rho(g)\,x`.

    This is the base class of :class:`VectorAction` and :class:`ImageAction`; choose one of these. Here g is a group
    element and x an event, and events keep their shape. The map :math:`\rho` from elements to matrices is a
    representation of the group. Linear layers, covariances and splits need a linear action, because the linear maps
    that commute with the group follow from its representation.

    Attributes:
        fields: The representations that lie side by side along dimension ``-event_dim``: one for each block of
            coordinates of a vector, or of channels of an image.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> action = VectorAction.plane("C4")
        >>> isinstance(action, LinearAction), action.matrix(torch.tensor(1)).tolist()  # rotation by 90 degrees
        (True, [[0.0, -1.0], [1.0, 0.0]])
    """

    fields: tuple[Representation, ...]

    @abstractmethod
    def matrix(self, elements: Tensor) -> Tensor:
        """The matrices rho(g) that act on the flattened event, float64, shape ``batch + (numel, numel)``.

        Args:
            elements: Group elements g.
        """

    def canonical(self, x: Tensor) -> Tensor | None:
        self.check_event(x)
        if not isinstance(self.group, EnumerableGroup):
            return None
        with torch.no_grad():
            nearest = self._nearest(self.group, x.detach().double())
            return None if nearest is None else self.group.inverse(nearest)

    def _nearest(self, group: EnumerableGroup, x: Tensor) -> Tensor | None:
        """The element h for which <x, rho(h) w> is largest, where w is a fixed random event.

        None if the group has too many elements to try them all.
        """
        if group.order > LARGEST_LISTED:
            return None
        return nearest_image(x.flatten(-self.event_dim), group.order, self._reference_images)

    def _reference_images(self, elements: Tensor) -> Tensor:
        key = ("reference", elements.device)
        if key not in self._tables:
            with as_constants():
                self._tables[key] = reference_event(self.event_shape).to(elements.device)
        return self.act_each(elements, self._tables[key]).flatten(-self.event_dim)

    @made_once
    def _tables(self) -> dict[Any, Tensor]:
        return {}

    # -- orthonormal coordinates --------------------------------------------------------------------------------------
    @property
    def coordinates(self) -> LinearAction:
        """How the group acts on orthonormal coordinates of an event, which here are its entries: this action."""
        return self

    def to_coordinates(self, x: Tensor) -> Tensor:
        """The flattened events.

        Args:
            x: Events, shape ``batch_shape + event_shape``.
        """
        return x.flatten(-self.event_dim)

    def from_coordinates(self, z: Tensor) -> Tensor:
        """The events of these coordinates, which inverts :meth:`to_coordinates`.

        Args:
            z: Coordinates, shape ``batch_shape + (numel,)``.
        """
        return z.unflatten(-1, self.event_shape)

    # -- structure ----------------------------------------------------------------------------------------------------
    @property
    def point_group(self) -> Group:
        """The group whose representations the fields are: the whole group, without the shifts of a periodic grid."""
        return self.group

    @property
    @abstractmethod
    def decomposition(self) -> Decomposition:
        """The parts of the event on which the group acts by copies of one irreducible representation.

        These isotypic components come with projections, and with the change of basis to coordinates in them.
        """

    @made_once
    @as_constants()
    def _entries(self) -> frozenset[float]:
        """The distinct entries of the matrices of all fields, where any entry other than -1, 0 and 1 is nan."""
        return frozenset({0.0, 1.0}).union(*[field.entries() for field in set(self.fields)])

    @property
    def is_signed_permutation(self) -> bool:
        """Whether every rho(g) permutes coordinates and changes signs."""
        return self._entries <= {-1.0, 0.0, 1.0}

    @property
    def is_permutation(self) -> bool:
        """Whether every rho(g) permutes coordinates."""
        return self._entries <= {0.0, 1.0}

    @property
    def field_sizes(self) -> list[int]:
        """The number of entries of each field along dimension ``-event_dim``."""
        return [field.size for field in self.fields]

    def field_decomposition(self) -> Decomposition:
        """The isotypic components of the fields: of the whole vector, or of the channels at one pixel of an image."""
        known = {field: decompose(field) for field in dict.fromkeys(self.fields)}
        return side_by_side([known[field] for field in self.fields], self.field_sizes)

    def invariants(self) -> Tensor:
        """Orthonormal vectors of field entries that every element leaves as they are.

        Returns:
            Shape ``(count, sum(field_sizes))``.
        """
        rows = [isotype.basis.flatten(0, 1) for isotype in self.field_decomposition() if isotype.is_trivial]
        return rows[0] if rows else torch.zeros(0, sum(self.field_sizes), dtype=torch.float64)

    # -- related actions of the same group, on the same kind of event -------------------------------------------------
    @abstractmethod
    def with_fields(self: _Linear, fields: Sequence[Representation]) -> _Linear:
        """The action of the same group on events of the same kind with other fields (for images, on the same grid).

        Args:
            fields: One representation of the group for each field.
        """

    def absolute(self: _Linear) -> _Linear:
        """The action by the matrices |rho(g)|, which permutes coordinates as this action does but changes no sign.

        Raises:
            ValueError: The action does not permute coordinates up to signs.
        """
        if self.is_permutation:
            return self
        if not self.is_signed_permutation:
            raise ValueError(f"expected a signed permutation action, got {self}")
        return self.with_fields([field.absolute() for field in self.fields])

    def regular_fields(self: _Linear, copies: int) -> _Linear:
        """The action on ``copies`` regular representations (for images, regular fields on the same grid).

        Args:
            copies: The number of fields.
        """
        return self.with_fields([RegularRepresentation(self.point_group)] * copies)

    def trivial_fields(self: _Linear, copies: int) -> _Linear:
        """The action on ``copies`` invariant scalars (for images, scalar fields on the same grid).

        Args:
            copies: The number of fields.
        """
        return self.with_fields([TrivialRepresentation(self.point_group)] * copies)

    def direct_sum(self: _Linear, *others: LinearAction) -> _Linear:
        """The action on events side by side, concatenated along dimension ``-event_dim``.

        Args:
            others: Actions of the same group on events of the same kind.

        Raises:
            ValueError: An action is of another kind or group.

        Example:
            >>> from pyro_gflows.actions import VectorAction
            >>> VectorAction.plane("D4").direct_sum(VectorAction.trivial("D4"))
            VectorAction(D4 on R^3: defining + trivial)
        """
        return self.with_fields([field for action in (self, *self._require(others)) for field in action.fields])

    def copies(self: _Linear, count: int) -> _Linear:
        """The action on ``count`` copies of the event side by side.

        Args:
            count: The number of copies.
        """
        if count < 1:
            raise ValueError(f"expected a positive number of copies, got {count}")
        return self.direct_sum(*[self] * (count - 1))

    def _fields_in_words(self) -> str:
        runs = [(field.name, len(list(run))) for field, run in itertools.groupby(self.fields)]
        words = [name if count == 1 else f"{count} x {name}" for name, count in runs]
        return " + ".join(words if len(words) <= _NAMED_FIELDS else [*words[:3], "...", words[-1]])

    def _require(self: _Linear, others: Sequence[LinearAction]) -> list[_Linear]:
        """The others if they are of this kind and group, else a ValueError that names both actions."""
        found: list[_Linear] = []
        for other in others:
            if not isinstance(other, type(self)) or type(other) is not type(self) or other.group != self.group:
                raise ValueError(f"expected actions of one kind and group, got {self} and {other}")
            found.append(other)
        return found
