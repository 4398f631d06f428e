"""ExponentialTransform: the common part of linear layers that are exponentials."""

from __future__ import annotations

from torch import Tensor

from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["ExponentialTransform"]


class ExponentialTransform(EquivariantTransform):
    r"""The base class of layers :math:`y = e^W x` for a linear map W, such as :class:`GLinear`.

    The inverse is :math:`e^{-W}`, so that a subclass writes one method for both directions.
    """

    def _apply_exponential(self, x: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        """The image of x under the map (sign 1) or under its inverse (sign -1), and the log-det of that direction."""
        raise NotImplementedError(f"{type(self).__name__} has to write _apply_exponential(x, sign)")

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_exponential(x, 1)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._apply_exponential(y, -1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, exact log-det"
