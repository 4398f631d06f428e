"""Wrapper: what a transform has in common with the one that it wraps."""

from __future__ import annotations

from torch.distributions import constraints

from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["Wrapper"]


class Wrapper(EquivariantTransform):
    """A transform with the domain and the image of ``transform``, which it computes in a way of its own."""

    transform: EquivariantTransform

    @property
    def domain(self) -> constraints.Constraint:
        return self.transform.domain

    @property
    def codomain(self) -> constraints.Constraint:
        return self.transform.codomain

    @property
    def reaches_all(self) -> bool:
        return self.transform.reaches_all
