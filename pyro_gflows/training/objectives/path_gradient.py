"""The reverse Kullback-Leibler divergence, with gradients that vanish draw by draw where the fit is exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution

from pyro_gflows.targets import LogDensity
from pyro_gflows.transforms import EquivariantTransform
from pyro_gflows.transforms.one_way import OneWayTransform

__all__ = ["draws_and_scores", "reverse_kl_loss"]

_DENSE_UP_TO = 64  # numbers in an event, each of which costs one vector-Jacobian product


def reverse_kl_loss(
    distribution: Distribution, log_density: LogDensity, draws: int, *, inverse_temperature: float = 1.0
) -> Tensor:
    r"""A loss with the value of :math:`E_q[\log q(x) - \beta \log p(x)]` over fresh draws, and its path gradient.

    .. math:: E_z\Big[\Big(\frac{\partial T_\theta(z)}{\partial\theta}\Big)^T
        \nabla_x\big(\log q(x) - \beta \log p(x)\big)\Big|_{x = T_\theta(z)}\Big]

    It differs from the full gradient by the mean of :math:`\partial_\theta \log q_\theta(x)` at fixed x, which is 0.
    What is left vanishes at every single draw where q = p, so that there is no noise at the optimum. Mixtures
    (Symmetrized, OrbitMixture) are scored by their full density.

    Args:
        distribution: q, with reparametrized draws.
        log_density: maps events, shape ``(n, *event_shape)``, to log p up to a constant, shape ``(n,)``.
        draws: how many.
        inverse_temperature: :math:`\beta`.

    Source: Sticking the landing, arXiv:1703.09194; path-gradient estimators for normalizing flows, arXiv:2207.08219.

    Example:
        >>> import pyro.distributions as dist
        >>> scale = torch.tensor([1.0], requires_grad=True)
        >>> q, p = dist.Normal(0.0, scale).to_event(1), dist.Normal(0.0, torch.ones(1)).to_event(1)
        >>> reverse_kl_loss(q, p.log_prob, 100).backward()
        >>> scale.grad.abs().item() < 1e-6
        True
    """
    x, log_q, score = draws_and_scores(distribution, draws)
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        log_p = log_density(leaf)
    (force,) = torch.autograd.grad(log_p.sum(), leaf)
    direction = score - inverse_temperature * force
    value = (log_q - inverse_temperature * log_p.detach()).mean()
    surrogate = (direction * x).sum() / draws
    return value + (surrogate - surrogate.detach())


def draws_and_scores(distribution: Distribution, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws x with gradients with respect to the parameters, and without any: log q(x), and its gradient in x.

    Args:
        distribution: q, with reparametrized draws and no batch shape.
        draws: how many.
    """
    if isinstance(distribution, TransformedDistribution) and _is_costly_to_invert(distribution):
        return _through_the_base(distribution, draws)
    x = distribution.rsample(torch.Size([draws]))
    leaf = x.detach().requires_grad_()  # a new tensor, so that no transform remembers where it came from
    log_q = distribution.log_prob(leaf)
    (score,) = torch.autograd.grad(log_q.sum(), leaf)
    return x, log_q.detach(), score


def _is_costly_to_invert(distribution: TransformedDistribution) -> bool:
    """Whether a Jacobian is cheaper than the inverse: small events, and layers that only sample in one pass."""
    transforms: list[Any] = distribution.transforms
    if distribution.event_shape.numel() > _DENSE_UP_TO:
        return False
    if not all(isinstance(transform, EquivariantTransform) for transform in transforms):
        return False
    layers = [layer for transform in transforms for layer in transform.modules() if isinstance(layer, OneWayTransform)]
    return bool(layers) and all(layer.fast == "sample" for layer in layers)


def _through_the_base(distribution: TransformedDistribution, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`draws_and_scores` by the chain rule: the gradient of log q in x is J^-T that of log p(z) - log|det J|
    in z, where J = dx/dz; nothing is inverted but the matrix J.
    """
    z = distribution.base_dist.rsample(torch.Size([draws]))
    z = z.view_as(z)  # another tensor, of which a base that is a flow itself does not know where it came from
    if not z.requires_grad:
        z.requires_grad_()
    x, ladj = z, z.new_zeros(draws)
    for transform in distribution.transforms:
        x, part = transform.call_and_ladj(x)  # type: ignore[attr-defined]
        ladj = ladj + part
    log_q = distribution.base_dist.log_prob(z) - ladj
    (score_z,) = torch.autograd.grad(log_q.sum(), z, retain_graph=True)
    columns = x.flatten(1).unbind(1)
    rows = [torch.autograd.grad(column.sum(), z, retain_graph=True)[0].flatten(1) for column in columns]
    jacobian = torch.stack(rows, 1)
    # solve_ex marks a singular matrix in its own row, where solve would raise for the whole batch
    score, _ = torch.linalg.solve_ex(jacobian.mT, score_z.flatten(1).unsqueeze(-1))
    return x, log_q.detach(), score.reshape(x.shape)
