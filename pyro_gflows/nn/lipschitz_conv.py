"""LipschitzConv: an equivariant convolution that cannot stretch distances by more than a bound."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import ImageAction
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.numerics import conv_norm_bound
from pyro_gflows.registry import registered

__all__ = ["LipschitzConv"]


@registered
class LipschitzConv(EquivariantConv):
    r"""An equivariant convolution with Lipschitz constant at most ``bound``, whatever its free weights are.

    The kernel is :math:`\min(1, b / N(w))\,w`, where w is the free equivariant kernel, b the bound and N(w) an upper bound
    of the norm of the convolution: the largest singular value of its symbol over all frequencies of the enlarged grid
    (under periodic padding, of the grid itself, where that is the norm). N is computed anew from the weights at each
    call, so no step of an optimizer can break the bound.

    Args:
        action_in: how the group moves the input.
        action_out: how it moves the output, on the same grid.
        kernel_size: odd.
        bias: whether to add one.
        bound: the largest Lipschitz constant, in the Euclidean norm.

    Shape:
        input ``(..., C_in, H, W)``, output ``(..., C_out, H, W)``.

    Raises:
        ValueError: a bound that is not positive and finite; else as :class:`EquivariantConv`.

    Example:
        >>> action = ImageAction("D4", 2, size=8, fields="regular")
        >>> bool(LipschitzConv(action, action, bound=0.9).lipschitz_bound() <= 0.9)
        True
    """

    def __init__(
        self,
        action_in: ImageAction,
        action_out: ImageAction,
        *,
        kernel_size: int = 3,
        bias: bool = True,
        bound: float = 0.97,
    ) -> None:
        if not 0.0 < bound < float("inf"):
            raise ValueError(f"expected a positive finite bound, got {bound}")
        super().__init__(action_in, action_out, kernel_size=kernel_size, bias=bias)
        self.bound = bound

    def weight(self) -> Tensor:
        """The kernel, scaled."""
        free = super().weight()
        # a little below the bound, so that rounding does not lift the scaled kernel above it
        bound = self.bound * (1.0 - 32.0 * torch.finfo(free.dtype).eps)
        return free * (bound / self._norm(free).clamp(min=bound))

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant of this layer with its present weights, a 0-dim tensor."""
        return self._norm(self.weight())

    def _norm(self, kernel: Tensor) -> Tensor:
        size = (self.action_in.height, self.action_in.width)
        padding = "circular" if self.action_in.padding == "circular" else "zero"
        return conv_norm_bound(kernel, size, padding=padding)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, Lipschitz constant <= {self.bound}"
