"""Density: an exact density with a sampler and its entropy, so that the gap of a flow to it is known exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pyro_gflows.spaces import Euclidean, Space

__all__ = ["Density", "device_of"]


class Density(ABC):
    """A density on the plane, on a torus or of particles, with an exact log-density and an exact sampler.

    A call of the density draws samples, so that :func:`pyro_gflows.training.fit` takes it as its data and sees new
    points at every step.

    Attributes:
        name: The name of the density on the command line.
        symmetry: The name of the largest planar group, with a reflection in the first axis, under which the density is
            invariant; for particles, of the group of their permutations, rotations and reflections.
        space: Where the points lie; the plane, unless a subclass says otherwise.
        floor: The entropy in nats, which is the lowest mean NLL that any model can reach; None if it is not known.
        log_z: The log of the integral of exp(log_density): 0 unless a subclass is known by an energy; None if it is
            not known.
        test_points: How many samples stand for the density where a model is measured.
        data_sd: On the plane, the root mean square of the coordinates, each of which has the mean zero.

    Example:
        >>> class Normal(Density):
        ...     name, symmetry, floor, data_sd = "normal", "O(2)", 2.8379, 1.0
        ...     def log_prob(self, x):
        ...         return -x.square().sum(-1) / 2 - 1.8379
        ...     def sample(self, n, generator=None):
        ...         return torch.randn(n, 2, generator=generator)
        >>> Normal()
        Normal(symmetry='O(2)', floor=2.8379)
    """

    name: str
    symmetry: str
    floor: float | None
    log_z: float | None = 0.0
    test_points: int = 200_000
    data_sd: float
    space: Space = Euclidean((2,))
    event_shape = torch.Size((2,))

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density in nats, shape (...), of points of shape (..., 2)."""

    def log_density(self, x: Tensor) -> Tensor:
        """Return the log-density up to the constant ``log_z``, which is what a fit to an energy is given."""
        return self.log_prob(x)

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw points, shape (n, 2), in the default dtype and on the device of the generator."""

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw points as :meth:`sample` does."""
        return self.sample(n, generator)

    def __repr__(self) -> str:
        floor = "unknown" if self.floor is None else f"{self.floor:.4f}"
        return f"{type(self).__name__}(symmetry={self.symmetry!r}, floor={floor})"


def device_of(generator: torch.Generator | None) -> torch.device:
    """Return the device of a generator, the CPU for torch's global one."""
    return torch.device("cpu") if generator is None else generator.device
