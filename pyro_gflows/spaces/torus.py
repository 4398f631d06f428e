"""Torus: all vectors of angles, with Lebesgue measure on [0, 2 pi)^d."""

from __future__ import annotations

import math

from torch import Tensor
from torch.distributions import biject_to, constraints, identity_transform, transform_to

from pyro_gflows.numerics.angles import angle_between, wrap_angle
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces.flat import Flat

__all__ = ["Torus"]


class _Angles(type(constraints.real)):  # type: ignore[misc]
    """Every real number: an angle, which counts modulo 2 pi."""

    def check(self, value: Tensor) -> Tensor:
        return value == value  # every real number, so all but NaN


# Pyro's maps to a support leave angles as they are, as they do for VonMises
for _maps_to in (biject_to, transform_to):
    _maps_to.register(_Angles, lambda constraint: identity_transform)

_ANGLES: dict[int, constraints.Constraint] = {}


@registered
class Torus(Flat):
    """Tensors of angles, with Lebesgue measure on [0, 2 pi)^d: the space of directions, phases and dihedral angles.

    Angles are in radians and count modulo 2 pi. Any real numbers are accepted as angles, as Pyro's VonMises does;
    ``project`` wraps them into [0, 2 pi), and ``difference`` compares them modulo 2 pi.

    Args:
        event_shape: The shape of an event.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> import torch
        >>> space = Torus((2,))
        >>> space, space.dimension, round(space.volume, 3)
        (Torus(2), 2, 39.478)
        >>> space.project(torch.tensor([-1.0, 7.0]))
        tensor([5.2832, 0.7168])
        >>> space.difference(torch.tensor([0.1, 1.0]), torch.tensor([6.2, 1.0]))
        tensor([0.1832, 0.0000])
    """

    advice = (
        "on angles take the bases InvariantUniform and InvariantVonMises, and the layers g_coupling and "
        "g_autoregressive (circular splines), g_residual or GGradient"
    )

    @property
    def constraint(self) -> constraints.Constraint:
        # one object for each rank, so that constraints can be compared by identity
        return _ANGLES.setdefault(self.event_dim, constraints.independent(_Angles(), self.event_dim))

    @property
    def volume(self) -> float:
        return (2 * math.pi) ** self.dimension

    def project(self, x: Tensor) -> Tensor:
        return wrap_angle(x)

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        return angle_between(x, y)
