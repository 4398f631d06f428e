"""MeanFree: configurations of particles whose center of mass is at the origin."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints, transform_to

from pyro_gflows.numerics.contrasts import contrasts, from_contrasts
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces.base import Space

__all__ = ["MeanFree"]


class _CenterAtOrigin(constraints.Constraint):
    """Finite configurations of n particles in R^d whose center of mass is 0, to the precision of their dtype."""

    event_dim = 2

    def __init__(self, n: int, d: int) -> None:
        self.n, self.d = n, d

    def check(self, value: Tensor) -> Tensor:
        center = value.mean(-2).abs().amax(-1)
        # the size of the configuration, in whatever unit; false where an entry is NaN
        return center <= math.sqrt(torch.finfo(value.dtype).eps) * value.abs().amax((-2, -1))

    def __repr__(self) -> str:
        return f"{self.n} particles in R^{self.d} with center of mass 0"


class _FromCoordinates(Transform):
    """The isometric map of coordinates in R^((n-1) d) to configurations with center of mass 0."""

    bijective = True
    domain = constraints.real_vector

    def __init__(self, codomain: _CenterAtOrigin) -> None:
        super().__init__()
        self._codomain = codomain

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]  # torch declares an attribute
        return self._codomain

    def _call(self, x: Tensor) -> Tensor:
        return from_contrasts(x.unflatten(-1, (self._codomain.n - 1, self._codomain.d)), -2)

    def _inverse(self, y: Tensor) -> Tensor:
        return contrasts(y, -2).flatten(-2)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])

    def forward_shape(self, shape: Any) -> torch.Size:
        return torch.Size([*shape[:-1], self._codomain.n, self._codomain.d])

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size([*shape[:-2], (self._codomain.n - 1) * self._codomain.d])


# so that Pyro's automatic guides and NUTS work with latent configurations
for _maps_to in (biject_to, transform_to):
    _maps_to.register(_CenterAtOrigin, _FromCoordinates)

_CONSTRAINTS: dict[tuple[int, int], _CenterAtOrigin] = {}


@registered
class MeanFree(Space):
    """Configurations of n particles in R^d with center of mass 0: the space of a cluster that no translation changes.

    An energy that depends on differences of positions only has no normalizable density on R^(n d), as the cluster may
    be anywhere. It has one on this linear subspace of dimension (n - 1) d. Densities are with respect to Lebesgue
    measure in an orthonormal basis of it, so a standard normal density has the constant -(n - 1) d/2 log(2 pi).

    Args:
        n: The number of particles, at least 2.
        d: The dimension of the space in which the particles are.

    Raises:
        ValueError: There are fewer than 2 particles, or d is not positive.

    Example:
        >>> space = MeanFree(4, 2)
        >>> space, space.dimension, space.event_shape
        (MeanFree(4 x 2), 6, torch.Size([4, 2]))
        >>> space.project(torch.tensor([[3.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 2.0]])).sum(0)
        tensor([0., 0.])
    """

    advice = (
        "on configurations of particles take the bases InvariantNormal and InvariantStudentT, the layer "
        "GPairPotential, or InCoordinates(layer, action) around any layer of action.coordinates"
    )

    def __init__(self, n: int, d: int) -> None:
        if n < 2 or d < 1:
            raise ValueError(
                f"expected at least 2 particles in a space of at least 1 dimension, got n = {n} and d = {d}"
            )
        self.n, self.d = n, d
        self.event_shape = torch.Size([n, d])

    @property
    def constraint(self) -> constraints.Constraint:
        key = (self.n, self.d)
        return _CONSTRAINTS.setdefault(key, _CenterAtOrigin(*key))

    @property
    def dimension(self) -> int:
        return (self.n - 1) * self.d

    @property
    def volume(self) -> float:
        return math.inf

    def project(self, x: Tensor) -> Tensor:
        return x - x.mean(-2, keepdim=True)

    def tangent_basis(self, x: Tensor) -> Tensor:
        unit = torch.eye(self.dimension, dtype=x.dtype, device=x.device).unflatten(-1, (self.n - 1, self.d))
        return from_contrasts(unit, -2).flatten(-2).expand(*x.shape[:-2], -1, -1)

    def _key(self) -> Any:
        return (self.n, self.d)
