"""Learnable: a flow, or a distribution with a module, as training sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["Learnable", "learnable"]


@dataclass(frozen=True)
class Learnable:
    """A module that holds the weights, and the distribution that reads them.

    Attributes:
        module: The module that an optimizer trains.
        owner: The flow (whose ``dist`` is the distribution) or the distribution itself.

    Example:
        >>> from pyro_gflows import OrbitMixture, VectorAction
        >>> mixture = OrbitMixture(VectorAction.plane("D4"))
        >>> Learnable(mixture.module, mixture).distribution is mixture
        True
    """

    module: nn.Module
    owner: Any

    @property
    def distribution(self) -> Distribution:
        """The density for the present weights."""
        return self.owner.dist if hasattr(self.owner, "dist") else self.owner

    @property
    def reference(self) -> Tensor:
        """One of the weights, which tells dtype and device."""
        return next(self.module.parameters())


def learnable(flow: Any) -> Learnable:
    """The module and the distribution of a flow, or of a distribution such as ``Symmetrized(flow.dist, action)``.

    Args:
        flow: A module with ``dist`` (an EquivariantFlow), or a distribution with ``module``.

    Raises:
        TypeError: ``flow`` is neither of them.
        ValueError: There are no weights to fit, the draws are not reparametrized, or it is a batch of distributions.

    Example:
        >>> from pyro_gflows import OrbitMixture, VectorAction
        >>> learnable(OrbitMixture(VectorAction.plane("D4"))).distribution.event_shape
        torch.Size([2])
    """
    if isinstance(flow, nn.Module) and isinstance(getattr(flow, "dist", None), Distribution):
        found = Learnable(flow, flow)
    elif isinstance(flow, Distribution) and isinstance(module := getattr(flow, "module", None), nn.Module):
        found = Learnable(module, flow)
    else:
        raise TypeError(
            f"expected an EquivariantFlow, or a distribution with a module such as Symmetrized(flow.dist, action), "
            f"got {type(flow).__name__}{'; pass guide.flow' if isinstance(flow, AutoGuide) else ''}"
        )
    if not any(parameter.requires_grad for parameter in found.module.parameters()):
        raise ValueError(f"expected something with weights to fit, got none in {flow}")
    distribution = found.distribution
    if not distribution.has_rsample:
        raise ValueError(f"expected a density with reparametrized draws, but {distribution} has no rsample")
    if distribution.batch_shape != torch.Size():
        raise ValueError(f"expected one density, got a batch of shape {tuple(distribution.batch_shape)}")
    return found
