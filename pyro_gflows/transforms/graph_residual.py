"""Residual layers on particles whose branch passes messages along their differences."""

from __future__ import annotations

import functools

from pyro_gflows.actions import ParticleAction
from pyro_gflows.nn.graph_contraction import GraphContraction
from pyro_gflows.numerics import LogDet, Solver
from pyro_gflows.transforms.in_coordinates import InCoordinates
from pyro_gflows.transforms.one_way import Fast
from pyro_gflows.transforms.residual import g_residual

__all__ = ["g_graph_residual"]


def g_graph_residual(
    action: ParticleAction,
    *,
    width: int = 8,
    depth: int = 2,
    bound: float = 0.98,
    log_det: LogDet | None = None,
    solver: Solver | None = None,
    fast: Fast = "score",
) -> InCoordinates:
    r"""A residual layer on particles with many-body forces that are no gradients.

    The layer is :math:`y = x + f(x)` with a :class:`~pyro_gflows.nn.GraphContraction` f, in the orthonormal coordinates
    of the configurations. A layer of pair potentials has a symmetric Jacobian and knows pairs only; this one has
    neither limit. The price is the bound of its Lipschitz constant, which :class:`GPairPotential`, a gradient map,
    does not need.

    Args:
        action: How the group acts on configurations.
        width: The number of vectors that a particle holds in the branch.
        depth: The number of rounds of messages.
        bound: The bound of the Lipschitz constant of f, below 1.
        log_det: The estimator of the log-det, by default as for :func:`g_residual`: exact up to 32 coordinates.
        solver: How to invert, by default as for :func:`g_residual`.
        fast: "score" (density estimation) or "sample" (fits to an energy).

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: The bound is outside (0, 1), or a size is below 1.

    Example:
        >>> import torch
        >>> layer = g_graph_residual(ParticleAction(4, 2))
        >>> layer(torch.zeros(5, 4, 2)).shape
        torch.Size([5, 4, 2])
    """
    if not isinstance(action, ParticleAction):
        raise TypeError(f"expected a ParticleAction such as ParticleAction(4, 2), got {type(action).__name__}")
    branch = functools.partial(GraphContraction, particles=action, width=width, depth=depth, bound=bound)
    layer = g_residual(action.coordinates, branch=branch, log_det=log_det, solver=solver, fast=fast)
    return InCoordinates(layer, action)
