"""Gradient maps: x + grad V(x) for an invariant potential V whose Hessian stays above -1."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.nn import Potential, kernels_once
from pyro_gflows.numerics import DampedNewtonSolver, Solver, implicit_root, positive_log_det
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean, Space, Torus
from pyro_gflows.transforms.one_way import Fast, OneWayTransform

__all__ = ["GGradient"]


@registered
class GGradient(OneWayTransform):
    r"""The gradient map x + grad V(x) of an invariant potential V, which may expand without limit.

    On a torus the value is taken modulo 2 pi. There it serves groups under which no split of the angles is invariant,
    such as D4 on two angles, with a :class:`~pyro_gflows.nn.TorusPotential`.

    .. math:: y = x + \nabla V(x), \qquad \log|\det J| = \log\det(I + \nabla^2 V(x))

    The map is bijective because the Hessian of V stays above -1: it is the gradient of the strictly convex function
    :math:`|x|^2/2 + V(x)`. On a torus it commutes with translations by 2 pi. It is equivariant because V is invariant
    under a group that acts by isometries. The Jacobian is symmetric and positive definite. Newton's method with
    shortened steps finds the inverse; its gradients come from the implicit function theorem.

    Args:
        action: How the group acts on events.
        potential: V, a :class:`~pyro_gflows.nn.Potential`.
        solver: How to invert; by default :class:`~pyro_gflows.numerics.DampedNewtonSolver`.
        fast: Which direction evaluates the gradient once: "score" (density estimation) or "sample" (guides).

    Raises:
        TypeError: The potential is no Potential, or the solver is no Solver.
        ValueError: The potential is made for another action, or its Hessian is not bounded from below by a number
            above -1.

    Example:
        >>> from pyro_gflows.actions import TorusAction
        >>> from pyro_gflows.nn import TorusPotential
        >>> action = TorusAction.point_group("D4")
        >>> layer = GGradient(action, TorusPotential(action))
        >>> x = torch.rand(5, 2)
        >>> bool((layer.inv(layer(x)) - x).abs().max() < 1e-4)
        True
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Euclidean, Torus)

    def __init__(
        self, action: Action, potential: Potential, *, solver: Solver | None = None, fast: Fast = "score"
    ) -> None:
        super().__init__(action, fast=fast)
        if not isinstance(potential, Potential):
            raise TypeError(f"expected a Potential such as nn.TorusPotential, got {type(potential).__name__}")
        if solver is not None and not isinstance(solver, Solver):
            raise TypeError(f"expected solver to be a Solver of pyro_gflows.numerics, got {type(solver).__name__}")
        if potential.action != action:
            raise ValueError(f"expected a potential for {action}, got one for {potential.action}")
        bound = float(potential.curvature_bound().detach())
        if not bound < 1:
            raise ValueError(f"expected a potential with a curvature bound below 1, got {bound:g}; scale it down")
        self.potential = potential
        self.solver = DampedNewtonSolver() if solver is None else solver

    def one_pass(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        value, hessian = self.potential.call_and_jacobian(x)
        return self.action_in.space.project(x + value), _log_det(hessian)

    def many_passes(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        event_dim, unbounded = self.action_in.event_dim, math.inf
        with torch.no_grad(), kernels_once(self.potential):
            root, _ = self.solver(self.potential, y, event_dim, lipschitz=unbounded)
        x = implicit_root(self.potential, y, root, event_dim, lipschitz=unbounded)
        _, hessian = self.potential.call_and_jacobian(x)
        return self.action_in.space.project(x), -_log_det(hessian)


def _log_det(hessian: Tensor) -> Tensor:
    """The log-det of I + H, which is positive definite."""
    size = hessian.shape[-1]
    return positive_log_det(hessian + torch.eye(size, dtype=hessian.dtype, device=hessian.device))
