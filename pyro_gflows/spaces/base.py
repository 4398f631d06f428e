"""Space: where events live."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["Space", "require_space"]


class Space(ABC):
    r"""Where an event lives, as a subset of tensors of one shape, and the measure with respect to which densities are.

    That measure is Lebesgue's on R^n, and the Riemannian volume elsewhere. A space gives Pyro's own checks their
    ``support`` (:attr:`constraint`), and the tests of log-dets the bases in which a Jacobian is a square matrix
    (:meth:`tangent_basis`). A space is a plain value: it compares by value, pickles, and has no device of its own.

    Attributes:
        event_shape: the shape of an event.
    """

    event_shape: torch.Size

    @property
    def event_dim(self) -> int:
        """How many dimensions of a tensor make one event."""
        return len(self.event_shape)

    @property
    @abstractmethod
    def constraint(self) -> constraints.Constraint:
        """What torch and Pyro check events with; of ``event_dim`` event dimensions, the same object at every call."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """How many coordinates an event needs: the dimension of the tangent spaces."""

    @property
    @abstractmethod
    def volume(self) -> float:
        """The measure of the whole space; ``math.inf`` where it has no end."""

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the space, for x of shape ``batch_shape + event_shape``."""

    @abstractmethod
    def tangent_basis(self, x: Tensor) -> Tensor:
        """An orthonormal basis of the tangent space at x.

        Args:
            x: points of the space, shape ``batch_shape + event_shape``.

        Returns:
            shape ``batch_shape + (dimension, event_shape.numel())``, one flattened event a row.
        """

    @abstractmethod
    def _key(self) -> Any:
        """What two equal spaces of one class share."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and type(self) is type(other) and bool(self._key() == other._key())

    def __hash__(self) -> int:
        return hash((type(self).__name__, self._key()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' x '.join(map(str, self.event_shape))})"


def require_space(space: Space, kinds: tuple[type[Space], ...], what: str) -> None:
    """Raise unless a map or a density is one on this space.

    Args:
        space: where the events live.
        kinds: the classes of spaces on which it is one.
        what: its name, for the error.

    Raises:
        ValueError: the space is of none of these kinds.

    Example:
        >>> from pyro_gflows.spaces.euclidean import Euclidean
        >>> require_space(Euclidean((3,)), (Euclidean,), "GActNorm")
    """
    if not isinstance(space, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"{what} is defined on {names}, got events on {space}; take a transform or a base that names "
            f"{type(space).__name__} among its spaces"
        )
