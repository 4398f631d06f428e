"""Continuous flows of particles on torchdiffeq, equivariant and with exact divergences: what finite layers replace."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import ParticleAction
from pyro_gflows.numerics.contrasts import from_contrasts
from pyro_gflows.spaces import MeanFree
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["ContinuousTransform", "GraphField", "RadialField", "exact_divergence"]

_TINY = 1e-12  # added to squared distances, so that distances have a slope at 0


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """The differences x_i - x_j, shape ``(..., n, n, d)``, and their squared lengths."""
    differences = x.unsqueeze(-2) - x.unsqueeze(-3)
    return differences, differences.square().sum(-1)


class RadialField(nn.Module):
    r"""A velocity that is a sum over pairs, along their differences, with its divergence in closed form.

    .. math:: v_i(x, t) = a(t) x_i + \sum_j \phi(r_{ij}, t) (x_i - x_j), \qquad
        \operatorname{div} v = (n - 1) d\, a(t) + \sum_{i \ne j} [d\, \phi(r_{ij}, t) + r_{ij}\, \phi'(r_{ij}, t)]

    phi is a sum of Gaussians of the distance whose coefficients are sums of Gaussians of the time, as in
    arXiv:2006.02425.

    Args:
        n: The number of particles.
        d: The dimension of space.
        reach: The largest center of the Gaussians of the distance.
        centers: How many there are.
        times: The number of Gaussians of the time.
    """

    def __init__(self, n: int, d: int, *, reach: float, centers: int = 24, times: int = 10) -> None:
        super().__init__()
        self.n, self.d = n, d
        self.weights = nn.Parameter(torch.zeros(centers + 1, times))  # the last row is that of a(t)
        self.register_buffer("centers", torch.linspace(0.0, reach, centers))
        self.register_buffer("times", torch.linspace(0.0, 1.0, times))
        self.width, self.time_width = reach / (centers - 1), 1.0 / (times - 1)
        first, second = torch.triu_indices(n, n, 1)
        self.register_buffer("first", first)
        self.register_buffer("second", second)

    def velocity_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both at one time and events of shape ``(rows, n, d)``."""
        at = torch.softmax(-(((t - self.times) / self.time_width) ** 2), -1)
        coefficients, linear = (self.weights @ at).split([len(self.centers), 1])
        difference = x[:, self.first] - x[:, self.second]
        distance = (difference.square().sum(-1) + _TINY).sqrt()
        away = (distance.unsqueeze(-1) - self.centers) / self.width
        bumps = torch.exp(-0.5 * away.square())
        value = bumps @ coefficients
        slope = (bumps * away) @ coefficients / -self.width
        along = value.unsqueeze(-1) * difference
        velocity = linear * x
        velocity = velocity.index_add(1, self.first, along).index_add(1, self.second, -along)
        pairs = 2 * (self.d * value + distance * slope).sum(-1)
        return velocity, pairs + (self.n - 1) * self.d * linear

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.velocity_and_divergence(t, x)[0]


class GraphField(nn.Module):
    r"""A velocity by a graph network of differences and distances (an E(n)-equivariant one, arXiv:2102.09844).

    Every layer sends messages :math:`m_{ij} = \phi(h_i, h_j, r_{ij}^2)`, adds :math:`\sum_j (x_i - x_j) \psi(m_{ij})
    / (n (1 + r_{ij}))` to positions and :math:`\chi(h_i, \sum_j m_{ij})` to features, which start from the time. The
    velocity is the change of the positions, with its mean subtracted. The divergence is exact, by a derivative along
    each of the (n - 1) d directions.

    Args:
        n: The number of particles.
        d: The dimension of space.
        width: Hidden features.
        layers: The number of layers.
    """

    def __init__(self, n: int, d: int, *, width: int, layers: int = 3) -> None:
        super().__init__()
        self.n, self.d = n, d
        self.start = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))

        def network(inputs: int, outputs: int, *, gain: float | None = None) -> nn.Sequential:
            last = nn.Linear(width, outputs)
            if gain is not None:
                nn.init.xavier_uniform_(last.weight, gain=gain)
                nn.init.zeros_(last.bias)
            return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), last)

        self.messages = nn.ModuleList(network(2 * width + 1, width) for _ in range(layers))
        self.positions = nn.ModuleList(network(width, 1, gain=1e-2) for _ in range(layers))
        self.features = nn.ModuleList(network(2 * width, width) for _ in range(layers))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity at one time, or at one for each event, shape ``(rows,)``."""
        n, now = self.n, x
        features = self.start(t.reshape(-1, 1)).unsqueeze(1).expand(len(x), n, -1)
        others = 1 - torch.eye(n, dtype=x.dtype, device=x.device).unsqueeze(-1)
        for message, position, feature in zip(self.messages, self.positions, self.features, strict=True):
            difference, square = _differences(now)
            pairs = [features.unsqueeze(2).expand(-1, n, n, -1), features.unsqueeze(1).expand(-1, n, n, -1)]
            sent = nn.functional.silu(message(torch.cat([*pairs, square.unsqueeze(-1)], -1))) * others
            shrunk = difference / (n * (1 + (square + _TINY).sqrt())).unsqueeze(-1)
            now = now + (shrunk * position(sent)).sum(2)
            features = features + feature(torch.cat([features, sent.sum(2)], -1))
        velocity = now - x
        return velocity - velocity.mean(1, keepdim=True)

    def velocity_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return exact_divergence(self, t, x)


def exact_divergence(field: nn.Module, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity of a field and its divergence on the events with center of mass 0, by a derivative a dimension."""
    count = (x.shape[-2] - 1) * x.shape[-1]
    unit = torch.eye(count, dtype=x.dtype, device=x.device).unflatten(-1, (x.shape[-2] - 1, x.shape[-1]))
    training = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        velocity = field(t, x)
        divergence = x.new_zeros(len(x))
        for direction in from_contrasts(unit, -2):
            along = (velocity * direction).sum()
            (row,) = torch.autograd.grad(along, x, create_graph=training, retain_graph=True)
            divergence = divergence + (row * direction).sum((-2, -1))
    return (velocity, divergence) if training else (velocity.detach(), divergence.detach())


class ContinuousTransform(EquivariantTransform):
    r"""The flow of an equivariant velocity field over the times 0 (base) to 1 (data), then a constant scale.

    .. math:: \dot x = v(x, t), \qquad \log|\det| = \int_0^1 \operatorname{div} v\,dt + (n - 1) d \log s

    Solved by dopri5, from 0 to 1 to draw and from 1 to 0 to score; gradients are those of the steps of the solver.

    Args:
        field: A RadialField or a GraphField.
        action: How the group acts on the particles.
        scale: The scale s.
        tolerance: Of the solver, relative and absolute, in evaluation mode.
        training_tolerance: In training mode.

    Attributes:
        evaluations: How often the field was evaluated so far.
    """

    spaces = (MeanFree,)

    def __init__(
        self,
        field: Any,
        action: ParticleAction,
        *,
        scale: float,
        tolerance: float = 1e-5,
        training_tolerance: float = 1e-4,
    ) -> None:
        super().__init__(action)
        self.field, self.scale = field, scale
        self.tolerance, self.training_tolerance = tolerance, training_tolerance
        self.evaluations = 0
        self._log_scale = action.space.dimension * math.log(scale)

    def _dynamics(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        found: tuple[Tensor, Tensor] = self.field.velocity_and_divergence(t, state[0])
        return found

    def _solve(self, x: Tensor, start: float, end: float) -> tuple[Tensor, Tensor]:
        from torchdiffeq import odeint

        rows = x.reshape(-1, *x.shape[-2:])
        tolerance = self.training_tolerance if self.training else self.tolerance
        times = torch.tensor([start, end], dtype=x.dtype, device=x.device)
        y, ladj = odeint(
            self._dynamics,
            (rows, rows.new_zeros(len(rows))),
            times,
            rtol=tolerance,
            atol=tolerance,
            method="dopri5",
        )
        return y[-1].reshape(x.shape), ladj[-1].reshape(x.shape[:-2])

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, ladj = self._solve(x, 0.0, 1.0)
        return self.scale * y, ladj + self._log_scale

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, ladj = self._solve(y / self.scale, 1.0, 0.0)
        return x, ladj - self._log_scale
