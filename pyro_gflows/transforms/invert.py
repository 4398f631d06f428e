"""Invert: the inverse of a transform, as a transform that owns it."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.actions import GroupAction
from pyro_gflows.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["Invert"]


@registered
class Invert(EquivariantTransform):
    r"""The inverse bijection, :math:`y \mapsto T^{-1}(y)`, as a Module that owns the transform it inverts.

    Its log-det is :math:`-\log|\det J_T(T^{-1}(y))|`; it is equivariant because T is.

    Args:
        transform: the transform T to invert.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> layer = g_residual(VectorAction.plane("D8"))
        >>> layer.inv.inv is layer
        True
    """

    def __init__(self, transform: EquivariantTransform) -> None:
        super().__init__(transform.action_out, transform.action_in)
        self.transform = transform

    @property
    def inv(self) -> EquivariantTransform:
        return self.transform

    @property
    def context_action(self) -> GroupAction | None:
        return self.transform.context_action

    @property
    def domain(self) -> constraints.Constraint:
        return self.transform.codomain

    @property
    def codomain(self) -> constraints.Constraint:
        return self.transform.domain

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.inv_call_and_ladj(x)

    def inv_call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform.call_and_ladj(y)

    def call_given(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform.inv_call_given(x, context)

    def inv_call_given(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.transform.call_given(y, context)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.initialize_inverse(x, context)

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.initialize(y, context)

    # one memory for both directions: t(x) then t.inv(y) finds what was drawn
    def _call(self, x: Tensor) -> Tensor:
        return self.transform._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.transform._call(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.transform.log_abs_det_jacobian(y, x)
