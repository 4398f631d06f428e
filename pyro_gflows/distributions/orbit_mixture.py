"""OrbitMixture: a mixture of one learnable normal distribution and its images under a group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import VectorAction
from pyro_gflows.actions.requirements import require_vector
from pyro_gflows.distributions.normal import InvariantNormal
from pyro_gflows.distributions.symmetrized import Symmetrized
from pyro_gflows.serialization.registry import registered

__all__ = ["OrbitMixture"]


@registered
class OrbitMixture(Symmetrized):
    r"""The mixture, with equal weights, of one normal distribution and all its images under a finite group.

    This is a base for posteriors with one mode for each image of a point, as label switching makes them. The base has
    all modes from the start, so the flow need not split one mode into |G| modes. The density is

    .. math:: p(x) = \frac{1}{|G|} \sum_g N(x;\ \rho(g)\mu,\ \rho(g)\,\Sigma\,\rho(g)^T)

    The learnable mean and covariance of the normal distribution need not be invariant. The mean starts at a random
    point, since at 0 all images would coincide and stay together. A score costs |G| evaluations of a normal density.

    Args:
        action: How the finite group acts on vectors.
        covariance: The form of :math:`\Sigma`: "full" is any covariance, "isotypic" a multiple of the identity, and
            "isotropic" the identity.
        spread: The standard deviation of the initial mean, in each coordinate.
        validate_args: Whether arguments and values are checked, as for every torch distribution.

    Raises:
        TypeError: ``action`` is not a VectorAction.
        ValueError: The group is infinite, or the covariance is unknown.

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
        require_vector(action)
        normal = InvariantNormal(VectorAction.trivial("C1", copies=action.numel), covariance=covariance, mean=True)
        assert normal.module.mean is not None
        torch.nn.init.normal_(normal.module.mean.coordinates, std=spread)
        super().__init__(normal, action, validate_args=validate_args)
        self.covariance = covariance

    @torch.no_grad()
    def start_at(self, location: Tensor, factor: Tensor) -> None:
        r"""Set the mean and the covariance of the normal distribution.

        Args:
            location: The new mean, shape ``(numel,)``.
            factor: A matrix F, shape ``(numel, numel)``; the covariance becomes :math:`F F^T`, or the nearest one of
                the form that ``covariance`` allows.
        """
        module: Any = self.module[0]
        module.mean.coordinates.copy_(module.mean.basis(location) @ location)
        module.factor.match_(factor @ factor.T)

    def __repr__(self) -> str:
        return f"OrbitMixture({self.action}, covariance={self.covariance!r})"
