"""Recompute: a layer that stores only its input for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.numerics import replayable, replayed
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform, Wrapper

__all__ = ["Recompute"]

_Call = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


@registered
class Recompute(Wrapper):
    r"""The same map as T with less memory: only the input of T is stored for the backward pass.

    The backward pass computes T a second time, from the same random numbers, and differentiates this computation. The
    memory of a stack of layers then grows by one event a layer instead of by all activations, and a training step costs
    one more forward pass. Map, log-det, bijectivity and equivariance are those of T. All tensors that T reads receive
    their gradients, also those of other modules. Inside ``torch.func`` and in forward mode, and where T samples its
    weights (PyroSample), T is called directly.

    Args:
        transform: T, any EquivariantTransform.

    Raises:
        RuntimeError: (in a backward pass) a second derivative is taken, or the tensors that T reads are no longer
            those of the forward pass.

    Source: Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> layer = g_residual(VectorAction.plane("D8"))
        >>> x = torch.randn(5, 2)
        >>> torch.equal(Recompute(layer)(x), layer(x))
        True
    """

    def __init__(self, transform: EquivariantTransform) -> None:
        super().__init__(transform.action_in, transform.action_out)
        self.transform = transform

    @property
    def context_action(self) -> Action | None:
        return self.transform.context_action

    def reaches(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.reaches(y, context)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._sparingly(self.transform.call_and_ladj, x, context)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._sparingly(self.transform.inv_call_and_ladj, y, context)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.initialize(x, context)

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.initialize_inverse(y, context)

    def _sparingly(self, call: _Call, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled() or not replayable([self.transform]):
            return call(x, context)
        y, ladj = replayed(
            lambda x, context: (call(x, context), ()),
            call,
            [x, context],
            modules=[self.transform],
        )
        return y, ladj
