"""The rotation groups of the plane and of space, whose elements are matrices in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.groups.base import Group
from pyro_gflows.serialization.registry import registered

__all__ = ["CONTINUOUS_GROUPS", "O2", "O3", "SO2", "SO3", "ContinuousGroup"]


class ContinuousGroup(Group):
    """A continuous group of orthogonal matrices, whose elements have shape ``(..., dimension, dimension)``.

    Its elements cannot be listed. An invariant density is therefore not made by a sum over all elements, but from
    layers that are equivariant by construction.

    Attributes:
        dimension: The dimension of the space on which the matrices act.

    Example:
        >>> from pyro_gflows.groups import SO3
        >>> isinstance(SO3(), ContinuousGroup), SO3().dimension, SO3().identity().shape
        (True, 3, torch.Size([3, 3]))
    """

    order = math.inf
    dimension: int

    def identity(self) -> Tensor:
        return torch.eye(self.dimension, dtype=torch.float64)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        return first @ second

    def inverse(self, elements: Tensor) -> Tensor:
        return elements.mT


def _rotations(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def _uniform(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)


def _random_signs(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    return 1.0 - 2.0 * torch.randint(2, tuple(shape), generator=generator).double()


_REFLECTION = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))


@registered
class SO2(ContinuousGroup):
    """SO(2), the group of all rotations of the plane.

    Elements are 2 x 2 rotation matrices.

    Example:
        >>> SO2().sample((5,)).shape
        torch.Size([5, 2, 2])
    """

    name = "SO(2)"
    dimension = 2
    element_shape = torch.Size([2, 2])

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        return _rotations(2 * math.pi * _uniform(shape, generator))

    def generators(self) -> Tensor:
        angle = torch.tensor([math.pi * (math.sqrt(5) - 1)], dtype=torch.float64)  # generates a dense subgroup
        return _rotations(angle)

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        count = band + 1
        elements = _rotations(2 * math.pi * torch.arange(count, dtype=torch.float64) / count)
        return elements, torch.full((count,), 1.0 / count, dtype=torch.float64)


@registered
class O2(SO2):
    """O(2), the group of all rotations and reflections of the plane.

    Elements are orthogonal 2 x 2 matrices.

    Example:
        >>> O2().sample((5,)).shape
        torch.Size([5, 2, 2])
    """

    name = "O(2)"

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        rotations = super().sample(shape, generator)
        reflects = torch.randint(2, tuple(shape), generator=generator).bool()[..., None, None]
        return torch.where(reflects, rotations @ _REFLECTION, rotations)

    def generators(self) -> Tensor:
        return torch.cat([super().generators(), _REFLECTION[None]])

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        elements, weights = super().quadrature(band)
        return torch.cat([elements, elements @ _REFLECTION]), torch.cat([weights, weights]) / 2


def _about_z(angle: Tensor) -> Tensor:
    out = torch.zeros(*angle.shape, 3, 3, dtype=torch.float64)
    out[..., :2, :2] = _rotations(angle)
    out[..., 2, 2] = 1.0
    return out


def _about_y(angle: Tensor) -> Tensor:
    swap = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]], dtype=torch.float64)
    return swap.T @ _about_z(angle) @ swap


@registered
class SO3(ContinuousGroup):
    """SO(3), the group of all rotations of three-dimensional space.

    Elements are 3 x 3 rotation matrices.

    Example:
        >>> SO3().sample((5,)).shape
        torch.Size([5, 3, 3])
    """

    name = "SO(3)"
    dimension = 3
    element_shape = torch.Size([3, 3])

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        gaussian = torch.randn(*shape, 3, 3, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(gaussian)
        q = q * r.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]  # Haar on O(3)
        return q * torch.linalg.det(q)[..., None, None]

    def generators(self) -> Tensor:
        angle = torch.tensor([math.pi * (math.sqrt(5) - 1)], dtype=torch.float64)
        return torch.cat([_about_z(angle), _about_y(angle)])

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        # Euler angles z-y-z, uniform in the two outer ones and Gauss-Legendre in the cosine of the middle one
        count = band + 1
        outer = _about_z(2 * math.pi * torch.arange(count, dtype=torch.float64) / count)
        nodes, gauss = np.polynomial.legendre.leggauss(band // 2 + 1)
        middle = _about_y(torch.as_tensor(np.arccos(nodes)))
        elements = outer[:, None, None] @ middle[:, None] @ outer
        weights = (torch.as_tensor(gauss) / (2 * count**2))[:, None].expand(count, -1, count)
        return elements.reshape(-1, 3, 3), weights.reshape(-1)


@registered
class O3(SO3):
    """O(3), the group of all rotations and reflections of three-dimensional space.

    Elements are orthogonal 3 x 3 matrices.

    Example:
        >>> O3().sample((5,)).shape
        torch.Size([5, 3, 3])
    """

    name = "O(3)"

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        return super().sample(shape, generator) * _random_signs(shape, generator)[..., None, None]

    def generators(self) -> Tensor:
        return torch.cat([super().generators(), -torch.eye(3, dtype=torch.float64)[None]])

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        elements, weights = super().quadrature(band)
        return torch.cat([elements, -elements]), torch.cat([weights, weights]) / 2


CONTINUOUS_GROUPS: dict[str, type[ContinuousGroup]] = {"SO2": SO2, "O2": O2, "SO3": SO3, "O3": O3}
