"""Moser's flow: an equivariant bijection of a torus that carries one invariant density to another."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.numerics import DampedNewtonSolver, implicit_root, log_abs_det, pullback
from pyro_gflows.numerics.jacobian import Product
from pyro_gflows.numerics.runge_kutta_steps import runge_kutta, runge_kutta_with_jacobian
from pyro_gflows.numerics.transforms_active import transforming
from pyro_gflows.numerics.trigonometric import solve_poisson, trigonometric_derivatives
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Torus
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.moser_checks import (
    FINE,
    LogDensity,
    grid_values,
    period_of_shifts,
    require_density,
    require_equal_masses,
)
from pyro_gflows.transforms.moser_clock import Clock
from pyro_gflows.transforms.moser_report import MoserReport, measure

__all__ = ["GMoser", "moser"]

_GRID = {1: 256, 2: 128, 3: 32}
_STEPS = {1: 256, 2: 32, 3: 32}


@registered
class GMoser(EquivariantTransform):
    r"""The equivariant bijection T of a torus that carries the density p to the density q, by Moser's construction.

    Any two positive smooth densities that are invariant under a group are joined by an equivariant bijection. That is
    why an equivariant flow can represent every invariant density, and this layer is such a bijection, with nothing to
    train. :func:`moser` makes it. Points travel with the velocity v from t = 0 to t = 1:

    .. math:: \Delta\phi = p - q, \qquad v_t(x) = \frac{\nabla\phi(x)}{(1 - t)\,p(x) + t\,q(x)}, \qquad
        \log|\det J_T(x)| = \log p(x) - \log q(T(x)) + O(h^4)

    The density of the points is :math:`(1 - t)\,p + t\,q` at every time, since its rate of change q - p is minus the
    divergence of :math:`\nabla\phi`. The map is equivariant because the solution :math:`\phi` of Poisson's equation is
    invariant. It is computed on a periodic grid by the Fourier transform, and its gradient by the trigonometric
    polynomial at the points themselves. The functions p and q are evaluated at the points as well, so that nothing is
    interpolated.

    Time is divided into Runge-Kutta steps of order 4 and of sizes proportional to h, which are shorter at times near
    those where the velocity of some point has a singularity. The log-det is that of the discrete steps and
    not that of the exact flow, and the inverse inverts the discrete steps by Newton's method, so that both directions
    agree with each other. The steps form a bijection if h is small enough. :meth:`report` measures how exactly T
    carries p to q.

    Args:
        action: How a group acts on d = 1, 2 or 3 angles.
        p: The logarithm of the density of x, a function from angles of shape ``(n, d)`` to values of shape ``(n,)``.
        q: The logarithm of the density of T(x), a function like p.
        grid: The number N of grid points along each axis for Poisson's equation; by default 256, 128 or 32 for d = 1, 2
            or 3. The error decays faster than any power of N for smooth densities.
        steps: The number of Runge-Kutta steps, by default 256 for one angle and 32 for more. The error decays with the
            fourth power.

    Raises:
        TypeError: p or q is no function, or returns another dtype than that of the angles.
        ValueError: The events are not 1, 2 or 3 angles; p or q vanishes, or is not periodic or not invariant; the two
            masses differ; or translations of the group do not map the grid to itself.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649, Theorem 2; Moser, On the volume elements on a
        manifold, 1965.

    Example:
        >>> from pyro_gflows.actions import TorusAction, VectorAction
        >>> uniform = lambda x: -math.log(2 * math.pi) + 0 * x[..., 0]
        >>> wave = lambda x: (1 + 0.5 * x[..., 0].cos()).log() - math.log(2 * math.pi)
        >>> layer = GMoser(TorusAction.point_group(VectorAction.signs(1)), uniform, wave)
        >>> x = torch.tensor([[1.0]], dtype=torch.float64)
        >>> y, ladj = layer.call_and_ladj(x)
        >>> round((y + 0.5 * y.sin()).item(), 6), round((uniform(x) - wave(y) - ladj).abs().item(), 6)
        (1.0, 0.0)
    """

    spaces = (Torus,)

    def __init__(
        self, action: Action, p: LogDensity, q: LogDensity, *, grid: int | None = None, steps: int | None = None
    ) -> None:
        super().__init__(action)
        dimension = action.numel
        if action.event_dim != 1 or dimension not in _GRID:
            raise ValueError(f"expected events of 1, 2 or 3 angles, got the shape {tuple(action.event_shape)}")
        if grid is not None and grid < 3:
            raise ValueError(f"expected a grid of at least 3 points along each axis, got {grid}")
        if steps is not None and steps < 1:
            raise ValueError(f"expected at least one step, got {steps}")
        least = period_of_shifts(action)
        self.grid = -(-_GRID[dimension] // least) * least if grid is None else grid
        self.steps = _STEPS[dimension] if steps is None else steps
        if self.grid % least:
            raise ValueError(
                f"expected a grid that the translations of {action} map to itself, which takes a multiple of {least} "
                f"points along each axis, got {grid}"
            )
        for name, density in (("p", p), ("q", q)):
            require_density(density, name, action, self.grid)
        require_equal_masses(p, q, dimension, self.grid)
        self.p, self.q = p, q
        self.clock = Clock.between(*(grid_values(density, FINE[dimension], dimension) for density in (p, q)))
        difference = grid_values(p, self.grid, dimension) - grid_values(q, self.grid, dimension)
        self.potential = FixedBasis(torch.view_as_real(solve_poisson(difference)))

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, jacobian = self._flow_with_jacobian(x.reshape(-1, x.shape[-1]))
        y = self.action_out.space.project(y)
        return y.reshape(x.shape), log_abs_det(jacobian).reshape(x.shape[:-1])

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        points = y.reshape(-1, y.shape[-1])
        shift, infinite = _Shift(self), math.inf
        solver = DampedNewtonSolver(tolerance=torch.finfo(y.dtype).eps ** 0.64, max_iterations=50)  # 1e-10 in float64
        with torch.no_grad():
            start = runge_kutta(self._travel, points, steps=self.steps, start=1.0, end=0.0)
            root, _ = solver(shift, points, 1, lipschitz=infinite, start=start)
        x = implicit_root(shift, points, root, 1, lipschitz=infinite)
        ladj = -log_abs_det(self._flow_with_jacobian(x)[1])
        return self.action_in.space.project(x).reshape(y.shape), ladj.reshape(y.shape[:-1])

    def velocity(self, t: float, x: Tensor) -> Tensor:
        """The velocity v of points at a time.

        Args:
            t: The time, between 0 and 1.
            x: Points, of shape ``(n, d)``.

        Returns:
            The velocities, of the shape of x.
        """
        gradient = trigonometric_derivatives(self._coefficients(x), x, 1)[1]
        density = (1 - t) * self.p(x).exp() + t * self.q(x).exp()
        return gradient / density.unsqueeze(-1)

    def report(self, *, points: int | None = None) -> MoserReport:
        """Measure how exactly T carries p to q, and how the error depends on the grid and on the steps.

        Args:
            points: The number of points along each axis at which densities are compared; by default at most 1,024
                points, 64 x 64 or 12 x 12 x 12.
        """
        return measure(self, points=points)

    def with_accuracy(self, *, grid: int | None = None, steps: int | None = None) -> GMoser:
        """Moser's flow between the same densities on another grid or with other steps.

        Args:
            grid: The number of grid points along each axis; by default that of this flow.
            steps: The number of steps; by default that of this flow.
        """
        made = GMoser(
            self.action_in,
            self.p,
            self.q,
            grid=self.grid if grid is None else grid,
            steps=self.steps if steps is None else steps,
        )
        return made.to(self.potential.value.device)

    def extra_repr(self) -> str:
        sides = " x ".join([str(self.grid)] * self.action_in.numel)
        return f"{super().extra_repr()}, grid {sides}, {self.steps} steps of order 4"

    def _coefficients(self, x: Tensor) -> Tensor:
        return torch.view_as_complex(self.potential(x).contiguous())

    def _travel(self, s: float, x: Tensor) -> Tensor:
        """The velocity with respect to the parameter s of the clock."""
        return self.clock.speed(s) * self.velocity(self.clock.time(s), x)

    def _travel_with_jacobian(self, s: float, x: Tensor) -> tuple[Tensor, Tensor]:
        t, speed = self.clock.time(s), self.clock.speed(s)
        _, gradient, hessian = trigonometric_derivatives(self._coefficients(x), x, 2)
        p, p_slope = _value_and_gradient(self.p, x)
        q, q_slope = _value_and_gradient(self.q, x)
        p, q = (1 - t) * p.exp().unsqueeze(-1), t * q.exp().unsqueeze(-1)
        density = p + q
        velocity = speed * gradient / density
        slope = (p * p_slope + q * q_slope) / density
        return velocity, speed * hessian / density.unsqueeze(-1) - velocity.unsqueeze(-1) * slope.unsqueeze(-2)

    def _flow(self, x: Tensor) -> Tensor:
        """T(x) before angles are wrapped."""
        return runge_kutta(self._travel, x, steps=self.steps)

    def _flow_with_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return runge_kutta_with_jacobian(self._travel_with_jacobian, x, steps=self.steps)


class _Shift:
    """The branch T(x) - x, with which a solver inverts T; angles are not wrapped."""

    def __init__(self, transform: GMoser) -> None:
        self.transform = transform

    def __call__(self, x: Tensor) -> Tensor:
        return self.transform._flow(x) - x

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, jacobian = self.transform._flow_with_jacobian(x)
        return y - x, jacobian - torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        return pullback(self, x)


def _value_and_gradient(log_density: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    """The values and gradients of a log-density, differentiable with respect to x if gradients are recorded."""
    if transforming() or (torch.is_grad_enabled() and x.requires_grad):
        value, product = pullback(log_density, x)
        return value, product(torch.ones_like(value), create_graph=True)
    with torch.inference_mode(False), torch.enable_grad():
        value, product = pullback(log_density, x.clone())
        return value.detach(), product(torch.ones_like(value), create_graph=False).detach()


def moser(p: LogDensity, q: LogDensity, action: Action, **options: Any) -> GMoser:
    """The equivariant bijection of a torus that carries the invariant density p to the invariant density q.

    It shows how an invariant density comes from another one by a map that commutes with the group, and it serves as an
    exact reference for trained flows on up to 3 angles. See :class:`GMoser` for the construction and for the errors
    that are raised.

    Args:
        p: The logarithm of the first density, a function from angles of shape ``(n, d)`` to values of shape ``(n,)``.
        q: The logarithm of the second density, a function like p, of the same mass.
        action: How a group acts on d = 1, 2 or 3 angles; both densities are invariant.
        **options: ``grid`` and ``steps``, as for :class:`GMoser`.

    Example:
        >>> from pyro_gflows.actions import TorusAction
        >>> uniform = lambda x: -2 * math.log(2 * math.pi) + 0 * x[..., 0]
        >>> bumps = lambda x: (1 + 0.5 * x.cos().prod(-1)).log() - 2 * math.log(2 * math.pi)
        >>> layer = moser(uniform, bumps, TorusAction.point_group("D4"), grid=32)
        >>> layer.report(points=16).density_error < 1e-6
        True
    """
    return GMoser(action, p, q, **options)
