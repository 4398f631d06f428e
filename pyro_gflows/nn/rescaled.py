"""Rescaled: an activation that learns the scale at which it bends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.nn.activations import Pointwise, SortedPairs
from pyro_gflows.serialization.registry import registered

__all__ = ["Rescaled"]

_REACH = 3.0  # scales stay within e^-3 and e^3, where no rounding is blown up


@registered
class Rescaled(Pointwise):
    r"""A pointwise activation :math:`x \mapsto h\,\varphi(x / h)` with a learnable scale h.

    It has the Lipschitz constant of the activation :math:`\varphi`.
    In a branch :math:`K_2\,h\,\varphi(h^{-1} K_1 x)` the scales of the channels decide how the Lipschitz bound is split
    between the linear maps before and after the activation, while the product of the two norms stays the same.

    Args:
        activation: An activation that maps each coordinate by itself, with ``value_and_slope``.
        each_field: Whether each field has its own scale, so that the bound is split channel by channel; otherwise there
            is one scale for the layer.

    Raises:
        ValueError: If the activation mixes coordinates.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.nn.activations import Splines
        >>> Rescaled(Splines(VectorAction.regular("C4")))(torch.zeros(5, 4)).shape
        torch.Size([5, 4])
    """

    row: Tensor

    def __init__(self, activation: nn.Module, *, each_field: bool = True) -> None:
        if not isinstance(activation, Pointwise) or isinstance(activation, SortedPairs):
            raise ValueError(
                f"expected an activation that maps each coordinate by itself, got {type(activation).__name__}"
            )
        super().__init__(activation.action)
        self.activation, self.fan_out, self.lipschitz = activation, activation.fan_out, activation.lipschitz
        self.raw_log_scale = nn.Parameter(torch.zeros(len(self.action.fields) if each_field else 1))
        row = self.field_of_entries()
        self.register_buffer("row", row if each_field else torch.zeros_like(row), persistent=False)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale = (_REACH * torch.tanh(self.raw_log_scale / _REACH)).exp()[self.row]
        value, slope = self.activation.value_and_slope(x / scale)
        return torch.cat([scale] * self.fan_out) * value, slope

    def forward(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]
