"""Finds the mode of a density from which a guide starts, and the width of the density there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.targets import on_full_plates

__all__ = ["Mode", "find_mode", "search_mode"]

_DENSE_UP_TO = 128  # coordinates: a Hessian takes as many backward passes
_DIFFERENCES_UP_TO = 700  # beyond them a Hessian takes two gradients for each coordinate, of many points at once
_AT_ONCE = 64
_WIDEST = 10.0  # the standard deviation in directions in which the density is flat
_NARROWED = (1.0, 0.5, 0.25, 0.1)


class Mode(NamedTuple):
    """A mode of a density, and a normal distribution that fits the density there.

    Attributes:
        location: The mode, shape ``(n,)``.
        factor: A lower triangular factor F of the covariance of the normal, shape ``(n, n)``.
        narrowing: The standard deviations of the normal, in those of Laplace's approximation.
    """

    location: Tensor
    factor: Tensor
    narrowing: float = 1.0


@full_precision
def find_mode(
    log_density: Callable[[Tensor], Tensor],
    starts: Tensor,
    *,
    steps: int = 300,
    lr: float = 0.1,
    candidates: int = 6,
    draws: int = 256,
) -> tuple[Tensor, Tensor]:
    r"""Finds the best mode of a density from several starts, and a normal distribution that fits the density there.

    A guide that starts at a mode with the right width trains faster and does not collapse onto a poor mode. Adam first
    climbs from all starts at once. From each of the highest end points a few damped Newton steps follow, and the
    curvature there determines the width of a normal distribution (Laplace's approximation). Among these normals and
    narrower versions of them, the one with the greatest evidence lower bound is returned. Comparing the bound, rather
    than the height, prevents a high but thin peak from being chosen. Beyond 128 coordinates the curvature is found by
    differences of gradients. Beyond 700, or where a model with more than 128 runs once for each point, the normals are
    isotropic.

    Args:
        log_density: A function from points, shape ``(rows, n)``, to log-densities up to a constant, shape ``(rows,)``;
            -inf stands for density 0. If it is the log-joint of a model with minibatches
            (:meth:`AutoGFlow.log_density`), the ascents use minibatches and all comparisons use all data.
        starts: The points at which the ascents start, shape ``(rows, n)``, such as draws from a prior.
        steps: The number of steps of Adam.
        lr: The initial learning rate of Adam, which decays to 0.
        candidates: The number of end points that are compared.
        draws: The number of draws for each bound.

    Returns:
        The mode, shape ``(n,)``, and a lower triangular factor F of the normal's covariance :math:`F F^T`, shape
        ``(n, n)``.

    Raises:
        ValueError: The log-density is not finite at any point that was tried.

    Example:
        >>> center = torch.tensor([1.0, -2.0])
        >>> location, factor = find_mode(lambda z: -2 * (z - center).square().sum(-1), torch.randn(8, 2))
        >>> location.round(decimals=2), factor.round(decimals=2)
        (tensor([ 1., -2.]), tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]]))
    """
    mode = search_mode(log_density, starts, steps=steps, lr=lr, candidates=candidates, draws=draws)
    return mode.location, mode.factor


@full_precision
def search_mode(
    log_density: Callable[[Tensor], Tensor],
    starts: Tensor,
    *,
    steps: int = 300,
    lr: float = 0.1,
    candidates: int = 6,
    draws: int = 256,
) -> Mode:
    """The search of :func:`find_mode`, with what it narrowed Laplace's approximation by."""
    full = on_full_plates(log_density)
    ends, heights, last = _ascend(log_density, starts, steps, lr)
    if full is not log_density:
        with torch.no_grad():
            exact = full(ends)
            if not torch.allclose(exact, heights, rtol=1e-4):
                # the points with the highest values on minibatches may be poor; the last points are near a mode
                ends, exact = torch.cat([last, ends]), torch.cat([full(last), exact])
            heights = exact
    if not heights.isfinite().any():
        raise ValueError(
            "the log-density is finite at none of the points that were tried; pass other starts, or in a guide "
            "init_loc_fn= with values at which the posterior has mass"
        )
    noise = torch.randn(draws, ends.shape[-1], dtype=ends.dtype, device=ends.device)
    limit = _DENSE_UP_TO if getattr(log_density, "is_one_by_one", False) else _DIFFERENCES_UP_TO
    best: tuple[float, Mode] | None = None
    for end in ends[_distinct(heights, candidates)]:
        location, factor = _laplace(full, end) if len(end) <= limit else (end, torch.eye(len(end)).to(end))
        for narrowed in _NARROWED:
            with torch.no_grad():
                values = full(location + narrowed * noise @ factor.T)
            bound = _bound(values, noise) + float((narrowed * factor.diagonal()).log().sum())
            if best is None or bound > best[0]:
                best = bound, Mode(location, narrowed * factor, narrowed)
    assert best is not None
    return best[1]


def _bound(values: Tensor, noise: Tensor) -> float:
    r"""The evidence lower bound of a normal, from log p at its draws, without the log-determinant and constants.

    If p is 0 at some of the draws, the bound would be -inf. Instead the normal is restricted to the other draws: the
    result is the mean of log p - log q over them, plus the log of their share.
    """
    inside = values > -torch.inf
    if not bool(inside.any()):
        return -math.inf
    share = float(inside.double().mean())
    energies = values[inside] + 0.5 * noise[inside].square().sum(-1)
    return float((energies - 0.5 * noise.square().sum(-1).mean()).mean()) + math.log(share)


def _distinct(heights: Tensor, count: int) -> Tensor:
    """The indices of the end points to compare: the highest first, and one for each height."""
    order = heights.argsort(descending=True)
    ranked = heights[order]
    new = torch.cat([ranked.new_ones(1, dtype=torch.bool), ranked[:-1] - ranked[1:] > 1e-3])
    return order[new & ranked.isfinite()][:count]


def _ascend(
    log_density: Callable[[Tensor], Tensor], starts: Tensor, steps: int, lr: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The highest point of the ascent from each start, its log-density, and the last point of the ascent."""
    with torch.enable_grad():
        z = starts.detach().clone().requires_grad_()
        top, heights = z.detach().clone(), torch.full_like(z[:, 0], -torch.inf).detach()
        optimizer = torch.optim.Adam([z], lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        for _ in range(steps):
            values = log_density(z)
            higher = values.detach() > heights
            top = torch.where(higher[:, None], z.detach(), top)
            heights = torch.where(higher, values.detach(), heights)
            (slope,) = torch.autograd.grad(-values.sum(), z)
            z.grad = slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            optimizer.step()
            schedule.step()
    return top, heights, z.detach()


def _laplace(log_density: Callable[[Tensor], Tensor], z: Tensor, *, rounds: int = 5) -> tuple[Tensor, Tensor]:
    """The mode near z, and the triangular factor of the covariance that the curvature there gives."""

    def height(point: Tensor) -> Tensor:
        return log_density(point[None])[0]

    for _ in range(rounds):
        covariance = _covariance(log_density, z)
        slope = torch.autograd.functional.jacobian(height, z).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        gain, trial = 0.0, z
        for damping in (1.0, 0.3, 0.1):
            trial = z + damping * covariance @ slope
            if (gain := float(height(trial) - height(z))) > 0:
                break
        if not gain > 0:
            break
        z = trial
        if gain < 1e-4:
            break
    return z, torch.linalg.cholesky(_covariance(log_density, z))


def _covariance(log_density: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    if len(z) > _DENSE_UP_TO:
        hessian = _by_differences(log_density, z)
    else:
        hessian = torch.autograd.functional.hessian(lambda point: log_density(point[None])[0], z)
    # next to a hard edge derivatives may be NaN; there the density is treated as flat
    curvature, directions = torch.linalg.eigh(hessian.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
    # where the log-density curves upward, the size of the curvature still gives the scale
    variances = 1.0 / curvature.abs().clamp_min(_WIDEST**-2)
    return (directions * variances) @ directions.T


def _by_differences(log_density: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The Hessian, from central differences of the gradients at many points at once."""
    step = torch.finfo(z.dtype).eps ** (1 / 3)
    steps = step * torch.eye(len(z), dtype=z.dtype, device=z.device)
    slopes = []
    for some in torch.cat([steps, -steps]).split(_AT_ONCE):
        with torch.enable_grad():
            points = (z.detach() + some).requires_grad_()
            slopes.append(torch.autograd.grad(log_density(points).sum(), points)[0])
    above, below = torch.cat(slopes).chunk(2)
    hessian = (above - below) / (2 * step)
    return 0.5 * (hessian + hessian.T)
