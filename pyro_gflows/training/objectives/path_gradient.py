"""The reverse Kullback-Leibler divergence with path gradients, which vanish for every draw if the fit is exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution

from pyro_gflows.spaces import Space
from pyro_gflows.targets import LogDensity
from pyro_gflows.transforms import EquivariantTransform
from pyro_gflows.transforms.one_way import OneWayTransform

__all__ = ["draws_and_scores", "reverse_kl_loss"]

_DENSE_UP_TO = 64  # coordinates of an event, each of which costs one vector-Jacobian product


def reverse_kl_loss(
    distribution: Distribution, log_density: LogDensity, draws: int, *, inverse_temperature: float = 1.0
) -> Tensor:
    r"""Returns the reverse divergence of a density from an unnormalized target, with a low-noise gradient.

    The value is the mean of :math:`\log q(x) - \beta \log p(x)` over fresh draws x of q. It is the loss for fitting a
    density q to a target p that can be evaluated but not sampled. Its gradient in the parameters :math:`\theta` is the
    path gradient, which only follows the dependence of the draws :math:`x = T_\theta(z)` on the parameters:

    .. math:: E_z\Big[\Big(\frac{\partial T_\theta(z)}{\partial\theta}\Big)^T
        \nabla_x\big(\log q(x) - \beta \log p(x)\big)\Big|_{x = T_\theta(z)}\Big]

    The full gradient has one more term, :math:`\partial_\theta \log q_\theta(x)` at fixed x, whose mean is 0. Without
    it the gradient is 0 for every single draw if q = p, so there is no noise at the optimum. Mixtures (Symmetrized,
    OrbitMixture) are scored by their full density.

    Args:
        distribution: The density q, with reparametrized draws.
        log_density: A function from events, shape ``(n, *event_shape)``, to log p up to a constant, shape ``(n,)``.
        draws: The number of draws.
        inverse_temperature: The factor :math:`\beta`.

    Returns:
        The loss in nats per event, a scalar tensor.

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
    """Draws x with gradients in the parameters, together with log q(x) and its gradient in x as constants.

    Args:
        distribution: The density q, with reparametrized draws and no batch shape.
        draws: The number of draws.

    Returns:
        The draws, log q of the draws, and the gradient of log q in x.
    """
    if isinstance(distribution, TransformedDistribution) and _is_slow_to_invert(distribution):
        return _through_the_base(distribution, draws)
    x = distribution.rsample(torch.Size([draws]))
    leaf = x.detach().requires_grad_()  # a new tensor, so that no cached inverse is used
    log_q = distribution.log_prob(leaf)
    (score,) = torch.autograd.grad(log_q.sum(), leaf)
    return x, log_q.detach(), score


def _is_slow_to_invert(distribution: TransformedDistribution) -> bool:
    """Whether a Jacobian is faster than the inverse: small events, and layers that only sample in one pass."""
    transforms: list[Any] = distribution.transforms
    if distribution.event_shape.numel() > _DENSE_UP_TO:
        return False
    if not all(isinstance(transform, EquivariantTransform) for transform in transforms):
        return False
    layers = [layer for transform in transforms for layer in transform.modules() if isinstance(layer, OneWayTransform)]
    return bool(layers) and all(layer.fast == "sample" for layer in layers)


def _through_the_base(distribution: TransformedDistribution, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same as :func:`draws_and_scores`, by the chain rule instead of the inverse of the layers.

    With J = dx/dz, the gradient of log q in x is J^-T times the gradient of log p(z) - log|det J| in z. Where events
    have more coordinates than dimensions, as particles with center of mass 0 do, both are in tangent bases.
    """
    z = distribution.base_dist.rsample(torch.Size([draws]))
    z = z.view_as(z)  # a new tensor, so that a base that is a flow itself does not use the score that it remembers
    if not z.requires_grad:
        z.requires_grad_()
    x, ladj = z, z.new_zeros(draws)
    for transform in distribution.transforms:
        x, part = transform.call_and_ladj(x)  # type: ignore[attr-defined]
        ladj = ladj + part
    log_q = distribution.base_dist.log_prob(z) - ladj
    (score_z,) = torch.autograd.grad(log_q.sum(), z, retain_graph=True)
    layers: list[Any] = distribution.transforms
    before, after = _tangents(layers[0].action_in.space, z), _tangents(layers[-1].action_out.space, x)
    columns = _along(after, x).unbind(1)
    rows = [_along(before, torch.autograd.grad(column.sum(), z, retain_graph=True)[0]) for column in columns]
    jacobian = torch.stack(rows, 1)
    # solve_ex marks a singular matrix in its own row, while solve would raise for the whole batch
    score, _ = torch.linalg.solve_ex(jacobian.mT, _along(before, score_z).unsqueeze(-1))
    score = score if after is None else after.mT @ score
    return x, log_q.detach(), score.reshape(x.shape)


def _tangents(space: Space, x: Tensor) -> Tensor | None:
    """The tangent bases at events; None where every coordinate is a direction of its own."""
    if space.dimension == space.event_shape.numel():
        return None
    return space.tangent_basis(x.detach())


def _along(basis: Tensor | None, vectors: Tensor) -> Tensor:
    """The components of vectors, flattened, along a basis."""
    flat = vectors.flatten(1)
    return flat if basis is None else (basis @ flat.unsqueeze(-1)).squeeze(-1)
