"""PeriodicNetwork: a branch on angles with a certified Lipschitz constant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, TorusAction
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.nn.harmonics import Harmonics, shortest_frequencies
from pyro_gflows.nn.kernel import LipschitzLayer, kernels_once
from pyro_gflows.nn.lipschitz_chain import LipschitzChain
from pyro_gflows.nn.lipschitz_linear import LipschitzLinear
from pyro_gflows.nn.module_lists import each
from pyro_gflows.serialization.registry import registered

__all__ = ["PeriodicNetwork"]


class _WithoutShift(LipschitzChain):
    """A chain whose last layer has no bias: a constant translation is absorbed by the harmonics of the next layer."""

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        return LipschitzLinear(action_in, action_out, bound=self._layer_bound, bias=action_out is not self.action_out)


@registered
class PeriodicNetwork(Contraction):
    r"""A periodic branch f on angles whose Lipschitz constant is below ``bound`` for all weights.

    It is the branch of a residual layer x + f(x) mod 2 pi. Angles are read through :math:`\cos(k \cdot x)/|k|` and
    :math:`\sin(k \cdot x)/|k|` for some integer vectors k (:class:`Harmonics`), scaled by one constant so that
    these features are 1-Lipschitz in the angles. An equivariant network with linear layers of certified norm maps them
    to displacements of the angles, so :math:`f(M x + a) = M f(x)`: f is invariant under the translations of the group.
    With ``depth=0``, f is any trigonometric polynomial with these k, of a slope within the bound.

    Args:
        action: How the group acts on the angles.
        frequencies: The integer vectors k; by default the shortest ones that all translations fix, at least two for
            each angle.
        width: The number of hidden fields.
        depth: The number of hidden layers.
        bound: The largest Lipschitz constant, in (0, 1), per radian.
        activation: The name of the activation, as for :class:`LipschitzNetwork`.

    Raises:
        TypeError: ``action`` is not a TorusAction.
        ValueError: The bound is outside (0, 1), or a frequency is not suitable (:class:`Harmonics`).

    Example:
        >>> branch = PeriodicNetwork(TorusAction.point_group("D4"), bound=0.9)
        >>> x = torch.randn(5, 2)
        >>> torch.allclose(branch(x + 2 * torch.pi), branch(x), atol=1e-4), bool(branch.lipschitz_bound() <= 0.9 + 1e-6)
        (True, True)
    """

    action: TorusAction

    def __init__(
        self,
        action: TorusAction,
        *,
        frequencies: Sequence[Sequence[int]] | Tensor | None = None,
        width: int = 8,
        depth: int = 1,
        bound: float = 0.98,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(action, TorusAction):
            raise TypeError(f"expected a TorusAction, such as TorusAction.trivial(2), got {type(action).__name__}")
        chosen = shortest_frequencies(action, 2 * action.numel) if frequencies is None else frequencies
        self.features = Harmonics(action, chosen)
        self.action, self.bound = action, bound
        self.network = _WithoutShift(
            self.features.action_out, action.linear_part, width=width, depth=depth, bound=bound, activation=activation
        )
        rows = torch.tensor(self.features.frequencies, dtype=torch.float64)
        lengths = rows.norm(dim=1)
        units = rows / lengths[:, None]
        scale = 1 / (lengths * math.sqrt(float(torch.linalg.eigvalsh(units.T @ units)[-1])))
        self.scale = FixedBasis(scale.repeat_interleave(2))

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.network(self.features(x) * self.scale(x))
        return value

    def lipschitz_bound(self) -> Tensor:
        return self.network.lipschitz_bound()

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x) and its Jacobian; a closed form for at most one hidden layer with a pointwise activation."""
        activation = self.network._pointwise()
        if activation is None and len(self.network.activations):
            return super().call_and_jacobian(x)
        scale = self.scale(x)
        features, jacobian = self.features.call_and_jacobian(x)
        features, jacobian = features * scale, jacobian * scale[:, None]
        with kernels_once(self):
            if activation is None:
                (layer,) = each(self.network.layers, LipschitzLayer)
                return layer(features), layer.kernel() @ jacobian
            value, inner, slope, outer = self.network._factors(features, activation)
        return value, outer @ (slope[..., None] * (inner @ jacobian))

    def extra_repr(self) -> str:
        return f"bound {self.bound:g}, {self.action}"
