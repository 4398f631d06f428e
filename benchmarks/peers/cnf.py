"""Continuous normalizing flows on torchdiffeq, with the exact trace: a plain field, and an equivariant one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_gflows import VectorAction
from pyro_gflows.nn import EquivariantMLP

__all__ = ["ContinuousFlow", "equivariant_field", "plain_field"]


def plain_field(hidden: int) -> nn.Module:
    """A network from (x, t) to the velocity, with two hidden layers."""
    return nn.Sequential(nn.Linear(3, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2))


def equivariant_field(group: str, hidden: int) -> nn.Module:
    """The same with regular fields of the group in the hidden layers, so that the density is exactly invariant."""
    action = VectorAction.plane(group)
    inputs = action.direct_sum(action.trivial_fields(1))
    return EquivariantMLP(inputs, action, width=hidden // action.group.order, depth=2, activation="lipswish")


class ContinuousFlow(nn.Module):
    """A flow along a velocity field from data (t = 0) to a standard normal (t = 1).

    Args:
        field: From (x, t), three components, to two.
        scale: By which the data are divided first.
        tolerance: Of the solver (dopri5), relative and absolute.
    """

    def __init__(self, field: nn.Module, *, scale: float, tolerance: float = 1e-5) -> None:
        super().__init__()
        self.field, self.scale, self.tolerance = field, scale, tolerance
        self.evaluations = 0

    def _dynamics(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            x = state[0] if state[0].requires_grad else state[0].requires_grad_()
            velocity = self.field(torch.cat([x, t.expand(len(x), 1)], 1))
            rows = [
                torch.autograd.grad(velocity[:, i].sum(), x, create_graph=training, retain_graph=True)[0][:, i]
                for i in range(2)
            ]
        divergence = rows[0] + rows[1]
        return (velocity, divergence) if training else (velocity.detach(), divergence.detach())

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density, of shape (n,)."""
        from torchdiffeq import odeint

        start = (x / self.scale, torch.zeros(len(x), device=x.device, dtype=x.dtype))
        times = torch.tensor([0.0, 1.0], device=x.device, dtype=x.dtype)
        z, ladj = odeint(self._dynamics, start, times, rtol=self.tolerance, atol=self.tolerance, method="dopri5")
        normal = -0.5 * z[-1].square().sum(1) - math.log(2 * math.pi)
        return normal + ladj[-1] - 2 * math.log(self.scale)
