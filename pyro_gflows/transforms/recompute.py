"""Recompute: a layer that stores its input alone for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import GroupAction
from pyro_gflows.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["Recompute"]

_Call = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


@registered
class Recompute(EquivariantTransform):
    r"""The same map as T, with less memory: nothing of T is stored for the backward pass but its input.

    The backward pass computes T once more, from the same random numbers, and differentiates that: memory for a stack of
    layers grows by one event a layer in place of all activations, and a training step costs one more forward pass.
    Map, log-det, bijectivity and equivariance are those of T.

    Args:
        transform: T, any EquivariantTransform.

    Raises:
        RuntimeError: (in a backward pass) a second derivative is taken, or the weights are not those of the forward
            pass (``functional_call``).

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
    def context_action(self) -> GroupAction | None:
        return self.transform.context_action

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.call_given(x, None)

    def inv_call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.inv_call_given(y, None)

    def call_given(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._sparingly(self.transform.call_given, x, context)

    def inv_call_given(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._sparingly(self.transform.inv_call_given, y, context)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.initialize(x, context)

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.transform.initialize_inverse(y, context)

    def _sparingly(self, call: _Call, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            return call(x, context)
        out: tuple[Tensor, Tensor] = _Recomputed.apply(call, self.transform, x, context, *_weights(self.transform))
        return out


class _Recomputed(torch.autograd.Function):
    """Forward without a graph; backward runs the call again, with one."""

    @staticmethod
    def forward(
        ctx: Any, call: _Call, module: nn.Module, x: Tensor, context: Tensor | None, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.call, ctx.module, ctx.random = call, module, _random_state(x)
        ctx.save_for_backward(x, context, *weights)
        with torch.no_grad():
            return call(x, context)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, context, *weights = ctx.saved_tensors
        if any(now is not then for now, then in zip(_weights(ctx.module), weights, strict=False)):
            raise RuntimeError(
                "the weights are no longer those of the forward pass, so it cannot be computed again; take the "
                "gradient inside functional_call, or leave Recompute out there"
            )
        wanted = ctx.needs_input_grad[1:]  # all but the module
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.enable_grad(), torch.random.fork_rng(devices=devices):
            _set_random_state(ctx.random, x)
            x = x.detach().requires_grad_(wanted[1])
            context = None if context is None else context.detach().requires_grad_(wanted[2])
            outputs = ctx.call(x, context)
        inputs = [x, context, *weights]
        chosen = [place for place, tensor in enumerate(inputs) if tensor is not None and wanted[place + 1]]
        pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            [inputs[place] for place in chosen],
            [gradient for _, gradient in pairs],
            allow_unused=True,
        )
        by_place = dict(zip(chosen, found, strict=True))
        return (None, None, *[by_place.get(place) for place in range(len(inputs))])


def _weights(module: nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _random_state(x: Tensor) -> tuple[Tensor, Tensor | None]:
    cuda = torch.cuda.get_rng_state(x.device) if x.device.type == "cuda" else None
    return torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Tensor, Tensor | None], x: Tensor) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], x.device)
