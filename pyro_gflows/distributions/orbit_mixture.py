"""OrbitMixture: one learnable normal at every image of one point."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions.normal import InvariantNormal
from pyro_gflows.distributions.symmetrized import Symmetrized
from pyro_gflows.serialization.registry import registered

__all__ = ["OrbitMixture"]


@registered
class OrbitMixture(Symmetrized):
    r"""The mixture of the images of one normal under a finite group, with equal weights.

    .. math:: p(x) = \frac{1}{|G|} \sum_g N(x;\ \rho(g)\mu,\ \rho(g)\,\Sigma\,\rho(g)^T)

    A base for posteriors with one mode for each image of a point, as label switching makes them: the modes are there
    from the start, so the flow need not tear one of them into |G|. Mean and covariance are learnable and know no
    symmetry; the mean starts at random, since at 0 all images would coincide and stay together. Scores cost |G|
    evaluations of a normal.

    Args:
        action: how the (finite) group moves vectors.
        covariance: "full", any covariance; "isotypic", a multiple of the identity; "isotropic", the identity.
        spread: standard deviation of the mean's start, in each coordinate.
        validate_args: as for every torch distribution.

    Raises:
        TypeError: ``action`` is not a VectorAction.
        ValueError: the group is infinite, or an unknown covariance.

    Example:
        >>> base = OrbitMixture(VectorAction.rows("S3"))
        >>> base.rsample((5,)).shape, len(base.action.elements())
        (torch.Size([5, 3]), 6)
    """

    def __init__(
        self,
        action: VectorAction,
        *,
        covariance: str = "full",
        spread: float = 1.0,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(action, VectorAction):
            raise TypeError(f"expected a VectorAction such as VectorAction.rows('S3'), got {type(action).__name__}")
        normal = InvariantNormal(VectorAction.trivial("C1", copies=action.numel), covariance=covariance, mean=True)
        assert normal.module.mean is not None
        torch.nn.init.normal_(normal.module.mean.coordinates, std=spread)
        super().__init__(normal, action, validate_args=validate_args)
        self.covariance = covariance

    @torch.no_grad()
    def start_at(self, location: Tensor, factor: Tensor) -> None:
        r"""Place the normal at a location, with a covariance :math:`F F^T` so far as it can have it."""
        module: Any = self.module[0]
        module.mean.coordinates.copy_(module.mean.basis(location) @ location)
        module.factor.match_(factor @ factor.T)

    def __repr__(self) -> str:
        return f"OrbitMixture({self.action}, covariance={self.covariance!r})"
