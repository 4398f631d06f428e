"""Action and LinearAction: how a group acts on one event tensor."""

from __future__ import annotations

import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_gflows.actions.canonical_form import nearest_image, reference_event
from pyro_gflows.groups.base import LARGEST_LISTED, EnumerableGroup, Group, require_enumerable
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.decomposition import decompose, side_by_side
from pyro_gflows.groups.representations import (
    MatrixRepresentation,
    RegularRepresentation,
    Representation,
    TrivialRepresentation,
)
from pyro_gflows.numerics.constants import as_constants
from pyro_gflows.numerics.precision import on_methods
from pyro_gflows.spaces import Euclidean, Space

__all__ = ["Action", "LinearAction"]

_Linear = TypeVar("_Linear", bound="LinearAction")


class Action(ABC):
    r"""How a group G acts on one event: :math:`x \mapsto g\,x`, with :math:`g\,(h\,x) = (g h)\,x`.

    Elements are tensors of batch shape + ``group.element_shape``: int64 indices for finite groups, float64 defining
    matrices for continuous ones. An action is a plain value: it compares by value, pickles, and follows the device and
    dtype of the events. Inside ``torch.autocast`` it computes in full precision all the same.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, ("act", "act_each", "act_all", "canonical"))

    group: Group
    event_shape: torch.Size

    @property
    def space(self) -> Space:
        """Where the events live: R^n, unless a subclass says otherwise."""
        return Euclidean(self.event_shape)

    # -- the group ----------------------------------------------------------------------------------------------------
    @property
    def event_dim(self) -> int:
        return len(self.event_shape)

    @property
    def numel(self) -> int:
        return self.event_shape.numel()

    @property
    def field_sizes(self) -> list[int]:
        """How many entries along dimension ``-event_dim`` each field takes, which are alike in kind: here one field."""
        return [self.event_shape[0]]

    @property
    def is_finite(self) -> bool:
        return self.group.is_finite

    def elements(self) -> Tensor:
        """All elements of a finite group. Raises ValueError for a continuous one."""
        return require_enumerable(self.group).elements()

    def generators(self) -> Tensor:
        """Elements that generate the group (a dense subgroup of a continuous one)."""
        return self.group.generators()

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Uniformly (Haar) distributed elements, with batch shape ``shape``."""
        return self.group.sample(shape, generator)

    def is_exact(self, element: Tensor) -> bool:
        """Whether ``act(element, x)`` is the group's action to float precision (not an interpolation)."""
        return True

    @property
    def exact_subgroup(self) -> Action:
        """What a density can be invariant under: this action itself, or, of one that interpolates, the part of it for
        whose elements :meth:`is_exact` holds."""
        return self

    # -- acting on events ---------------------------------------------------------------------------------------------
    def act(self, element: Tensor, x: Tensor) -> Tensor:
        """rho(g) x for one element and x of shape ``batch_shape + event_shape``."""
        return self.act_each(element, x)

    @abstractmethod
    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        """rho(g_b) x_b, where the elements' batch shape broadcasts with the batch shape of x."""

    def act_all(self, x: Tensor) -> Tensor:
        """The orbit of x under a finite group, shape ``(|G|, *x.shape)``."""
        elements = self.elements()
        batch_rank = x.ndim - self.event_dim
        return self.act_each(elements.reshape(-1, *[1] * batch_rank), x)

    def canonical(self, x: Tensor) -> Tensor | None:
        r"""Elements g(x) that take x to a canonical form: ``act_each(canonical(x), x)`` is equal along an orbit.

        So :math:`g(h\,x) = g(x)\,h^{-1}`, up to elements that leave x alone. The canonical form is not continuous
        in x: g(x) jumps between elements where two are equally good. No gradient goes through it.

        Args:
            x: events, shape ``batch_shape + event_shape``.

        Returns:
            Elements of that batch shape on the device of x; None where no way to find them is known.
        """
        return None

    @abstractmethod
    def without_symmetry(self) -> Action:
        """The same events under the trivial group C1, which claims nothing of them."""

    def check_event(self, x: Tensor, what: str = "x") -> None:
        """Raise ValueError or TypeError unless x is a floating tensor whose shape ends with the event shape."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"expected {what} to be a floating-point tensor, got {got}; convert it with .float()")
        if x.shape[x.ndim - self.event_dim :] != self.event_shape or x.ndim < self.event_dim:
            raise ValueError(
                f"expected {what} of shape (..., {', '.join(map(str, self.event_shape))}) for {self}, "
                f"got {tuple(x.shape)}"
            )

    # -- values -------------------------------------------------------------------------------------------------------
    @abstractmethod
    def _key(self) -> Any:
        """What two equal actions share."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Action) and type(self) is type(other) and bool(self._key() == other._key())

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._key()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.group} on {' x '.join(map(str, self.event_shape))})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._derived()}

    @staticmethod
    def _derived() -> tuple[str, ...]:
        """Names of attributes that are caches, and are left out of pickles and copies."""
        return ("decomposition", "_tables")


class LinearAction(Action):
    r"""A group that acts by orthogonal matrices, :math:`x \mapsto \rho(g)\,x`; :math:`\rho` is its representation.

    Linear layers, factors and splits need one: what they may do follows from how the representation decomposes.
    """

    fields: tuple[Representation, ...]
    """The representations that lie side by side along dimension ``-event_dim`` (vector entries, image channels)."""

    @abstractmethod
    def matrix(self, elements: Tensor) -> Tensor:
        """rho(g) on the flattened event, materialized in float64, shape ``batch + (numel, numel)``."""

    def canonical(self, x: Tensor) -> Tensor | None:
        self.check_event(x)
        if not isinstance(self.group, EnumerableGroup):
            return None
        with torch.no_grad():
            nearest = self._nearest(self.group, x.detach().double())
            return None if nearest is None else self.group.inverse(nearest)

    def _nearest(self, group: EnumerableGroup, x: Tensor) -> Tensor | None:
        """The element h for which <x, rho(h) w> is largest, where w is a fixed random event; None if there are too
        many elements to look for it."""
        if group.order > LARGEST_LISTED:
            return None
        return nearest_image(x.flatten(-self.event_dim), group.order, self._reference_images)

    def _reference_images(self, elements: Tensor) -> Tensor:
        key = ("reference", elements.device)
        if key not in self._tables:
            with as_constants():
                self._tables[key] = reference_event(self.event_shape).to(elements.device)
        return self.act_each(elements, self._tables[key]).flatten(-self.event_dim)

    @functools.cached_property
    def _tables(self) -> dict[Any, Tensor]:
        return {}

    # -- structure ----------------------------------------------------------------------------------------------------
    @property
    def point_group(self) -> Group:
        """The group whose representations the fields are: the whole one, or all but the shifts of a periodic grid."""
        return self.group

    @property
    @abstractmethod
    def decomposition(self) -> Decomposition:
        """Isotypic components of the event: projections on them, and the change of basis to coordinates in them."""

    @functools.cached_property
    @as_constants()
    def _entries(self) -> frozenset[float]:
        """The entries of the matrices of all fields, each of -1, 0 and 1 as it is and any other as nan."""
        found = {0.0, 1.0}
        for field in set(self.fields):
            if isinstance(field, TrivialRepresentation):
                continue
            if not isinstance(self.point_group, EnumerableGroup):
                return frozenset({math.nan})
            entries = field.matrices(self.point_group.elements()).unique().tolist()
            found |= {entry if entry in (-1.0, 0.0, 1.0) else math.nan for entry in entries}
        return frozenset(found)

    @property
    def is_signed_permutation(self) -> bool:
        """Every rho(g) permutes coordinates, up to signs."""
        return self._entries <= {-1.0, 0.0, 1.0}

    @property
    def is_permutation(self) -> bool:
        """Every rho(g) permutes coordinates."""
        return self._entries <= {0.0, 1.0}

    @property
    def field_sizes(self) -> list[int]:
        """How many entries along dimension ``-event_dim`` each field takes."""
        return [field.size for field in self.fields]

    def field_decomposition(self) -> Decomposition:
        """Isotypic components of the fields alone (for vectors, of the whole event)."""
        known = {field: decompose(field) for field in dict.fromkeys(self.fields)}
        return side_by_side([known[field] for field in self.fields], self.field_sizes)

    def invariants(self) -> Tensor:
        """Orthonormal field vectors that every element leaves alone, shape ``(count, sum(field_sizes))``."""
        rows = [isotype.basis.flatten(0, 1) for isotype in self.field_decomposition() if isotype.is_trivial]
        return rows[0] if rows else torch.zeros(0, sum(self.field_sizes), dtype=torch.float64)

    # -- related actions of the same group, on the same kind of event -------------------------------------------------
    @abstractmethod
    def with_fields(self: _Linear, fields: Sequence[Representation]) -> _Linear:
        """The action on events of the same kind with other fields (images: on the same grid)."""

    def absolute(self: _Linear) -> _Linear:
        """The permutation action |rho| of a signed permutation action."""
        if self.is_permutation:
            return self
        if not self.is_signed_permutation:
            raise ValueError(f"expected a signed permutation action, got {self}")
        group = require_enumerable(self.point_group)
        matrices = [field.matrices(group.elements()).abs() for field in self.fields]
        return self.with_fields(
            [
                MatrixRepresentation(group, table, name=f"|{field.name}|")
                for field, table in zip(self.fields, matrices, strict=True)
            ]
        )

    def regular_fields(self: _Linear, copies: int) -> _Linear:
        """``copies`` regular representations (image: regular fields on the same grid)."""
        return self.with_fields([RegularRepresentation(self.point_group)] * copies)

    def trivial_fields(self: _Linear, copies: int) -> _Linear:
        """``copies`` invariant numbers (image: scalar fields on the same grid)."""
        return self.with_fields([TrivialRepresentation(self.point_group)] * copies)

    def direct_sum(self: _Linear, *others: LinearAction) -> _Linear:
        """Events side by side: concatenation along dimension ``-event_dim``."""
        return self.with_fields([field for action in (self, *self._require(others)) for field in action.fields])

    def copies(self: _Linear, count: int) -> _Linear:
        """The direct sum of ``count`` copies."""
        if count < 1:
            raise ValueError(f"expected a positive number of copies, got {count}")
        return self.direct_sum(*[self] * (count - 1))

    def _fields_in_words(self) -> str:
        runs = [(field.name, len(list(run))) for field, run in itertools.groupby(self.fields)]
        return " + ".join(name if count == 1 else f"{count} x {name}" for name, count in runs)

    def _require(self: _Linear, others: Sequence[LinearAction]) -> list[_Linear]:
        """The others, if they are of this kind and group; else ValueError naming both."""
        found: list[_Linear] = []
        for other in others:
            if not isinstance(other, type(self)) or type(other) is not type(self) or other.group != self.group:
                raise ValueError(f"expected actions of one kind and group, got {self} and {other}")
            found.append(other)
        return found
