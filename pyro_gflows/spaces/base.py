"""Space: where events live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["Space", "require_inside", "require_space"]


class Space(ABC):
    """The set in which events live, a subset of the tensors of one shape, with the measure of densities on it.

    That measure is Lebesgue measure on R^n, and the Riemannian volume on a curved space. A space gives Pyro's own
    checks their ``support`` (:attr:`constraint`), and the tests of log-dets the bases in which a Jacobian is a square
    matrix (:meth:`tangent_basis`). A space is a plain value: it compares by value, can be pickled, and is on no device.

    A subclass sets ``event_shape``, writes the abstract methods below, and returns from ``_key`` a value that equal
    spaces share.

    Attributes:
        event_shape: The shape of an event.
        advice: What to take on this space, for errors of maps that are not defined on it.

    Example:
        >>> from pyro_gflows.spaces import Euclidean
        >>> space: Space = Euclidean((3,))
        >>> space.dimension, space.volume, space == Euclidean((3,))
        (3, inf, True)
    """

    event_shape: torch.Size
    advice: ClassVar[str] = "take a transform or a base that names this kind of space among its spaces"

    @property
    def event_dim(self) -> int:
        """The number of dimensions of a tensor that make one event."""
        return len(self.event_shape)

    @property
    @abstractmethod
    def constraint(self) -> constraints.Constraint:
        """The constraint by which torch and Pyro check events, with ``event_dim`` event dimensions.

        It is the same object in every call.
        """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The dimension of the space: the number of coordinates that an event needs."""

    @property
    @abstractmethod
    def volume(self) -> float:
        """The measure of the whole space; ``math.inf`` for an unbounded space."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The point of the space nearest to x.

        Args:
            x: Tensors of shape ``batch_shape + event_shape``.
        """

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        """By how much x differs from y, coordinate by coordinate: x - y, modulo 2 pi for angles.

        Two events are equal where the difference is 0. Tests compare events by it.

        Args:
            x: Tensors of shape ``batch_shape + event_shape``.
            y: Tensors whose batch shape broadcasts with that of x.
        """
        return x - y

    @abstractmethod
    def tangent_basis(self, x: Tensor) -> Tensor:
        """An orthonormal basis of the tangent space at x.

        Args:
            x: Points of the space, of shape ``batch_shape + event_shape``.

        Returns:
            A tensor of shape ``batch_shape + (dimension, event_shape.numel())``, with one flattened event in each row.
        """

    @abstractmethod
    def _key(self) -> Any:
        """A value that two spaces of one class share if and only if they are equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and type(self) is type(other) and bool(self._key() == other._key())

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._key()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' x '.join(map(str, self.event_shape))})"


def require_space(space: Space, kinds: tuple[type[Space], ...], what: str) -> None:
    """Raise unless a map or a density is defined on a space.

    Args:
        space: The space in which the events live.
        kinds: The classes of spaces on which the map or density is defined.
        what: The name of the map or density, for the message.

    Raises:
        ValueError: If the space is of none of these classes.

    Example:
        >>> from pyro_gflows.spaces.euclidean import Euclidean
        >>> require_space(Euclidean((3,)), (Euclidean,), "GActNorm")
    """
    if not isinstance(space, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{what} is defined on {names}, got events on {space}; {space.advice}")


def require_inside(space: Space, x: Tensor) -> None:
    """Raise unless all events lie in a space.

    Args:
        space: The space.
        x: Events, shape ``batch_shape + event_shape``.

    Raises:
        ValueError: If an event lies outside, as a configuration whose center of mass is not 0 does.

    Example:
        >>> from pyro_gflows.spaces.euclidean import Euclidean
        >>> require_inside(Euclidean((3,)), torch.zeros(5, 3))
    """
    inside = space.constraint.check(x)
    if not bool(inside.all()):
        raise ValueError(
            f"expected events in {space} ({space.constraint}), got {int((~inside).sum())} of {inside.numel()} events "
            "outside of it; action.space.project(x) takes each to the nearest event inside"
        )
