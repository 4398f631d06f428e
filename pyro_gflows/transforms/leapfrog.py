r"""GLeapfrog: steps of Hamilton's equations for particles and momenta, with a learnable energy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import ParticleAction
from pyro_gflows.nn import PairPotential
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["GLeapfrog"]


@registered
class GLeapfrog(EquivariantTransform):
    r"""A volume-preserving layer on particles x with momenta v: leapfrog steps with a learnable invariant energy.

    It is the layer of Hamiltonian flows, with a closed form in both directions, whatever the forces are. The momenta
    are padding, which :func:`~pyro_gflows.augment` integrates out. An event holds the coordinates of x, then
    those of v, so that the layer stands in one flow with other layers on ``action_in``, such as :class:`GActNorm`,
    :func:`g_radial` and :func:`g_coupling`, which change volumes.

    .. math:: v \leftarrow v - \tfrac h2 (x + \nabla U(x)), \qquad x \leftarrow x + h\,(v + \nabla K(v)), \qquad
        v \leftarrow v - \tfrac h2 (x + \nabla U(x)), \qquad \log|\det J| = 0

    Here U and K are :class:`~pyro_gflows.nn.PairPotential`, and the step size h is a parameter. Each line shifts one
    half of the event by a function of the other half, so it is undone by the opposite shift, and its Jacobian is
    triangular with a diagonal of ones. The shifts are equivariant because U and K are invariant. At the start U and K
    are 0, and a step is one of a harmonic oscillator, which exchanges x and v little by little.

    Args:
        action: How the group acts on the particles, and in the same way on their momenta.
        steps: The number of steps, which share the energy.
        step_size: h at the start.
        knots: The number of knots of each radial function of U and K.
        limit: The distance beyond which their slopes are constant.

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: There is one particle only, or an argument is out of its range.

    Source: Hamiltonian Generative Networks, arXiv:1909.13789.

    Example:
        >>> from pyro_gflows import ParticleAction
        >>> layer = GLeapfrog(ParticleAction(4, 2))
        >>> y, ladj = layer.call_and_ladj(torch.randn(5, 12))
        >>> y.shape, ladj.tolist()
        (torch.Size([5, 12]), [0.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        action: ParticleAction,
        *,
        steps: int = 1,
        step_size: float = 0.5,
        knots: int = 32,
        limit: float = 8.0,
    ) -> None:
        potential, kinetic = (PairPotential(action, knots=knots, limit=limit) for _ in range(2))
        if steps < 1 or not step_size > 0:
            raise ValueError(f"expected steps >= 1 and step_size > 0, got {steps} and {step_size}")
        super().__init__(action.coordinates.direct_sum(action.coordinates))
        self.action, self.steps = action, steps
        self.potential, self.kinetic = potential, kinetic
        self.step_size = nn.Parameter(torch.tensor(float(step_size)))

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(x, self.step_size)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(y, -self.step_size)  # a leapfrog step backward in time undoes one forward

    def _integrated(self, event: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        self.action_in.check_event(event)
        x, v = (self.action.from_coordinates(half) for half in event.tensor_split(2, -1))
        v = v - 0.5 * h * (x + self.potential(x))
        for step in range(self.steps):
            x = x + h * (v + self.kinetic(v))
            v = v - (h if step < self.steps - 1 else 0.5 * h) * (x + self.potential(x))
        halves = [self.action.to_coordinates(each) for each in (x, v)]
        return torch.cat(halves, -1), event.new_zeros(event.shape[:-1])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.steps} leapfrog steps on {self.action}, log-det 0"
