"""Calls that store their inputs for the backward pass in place of their graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.precision import full_precision

__all__ = ["replayed"]

_Outputs = tuple[Tensor, ...]


def replayed(
    first: Callable[..., tuple[_Outputs, _Outputs]],
    again: Callable[..., _Outputs],
    inputs: Sequence[Tensor | None],
    *,
    captured: Callable[[], Sequence[Tensor]],
) -> _Outputs:
    """The outputs of ``first(*inputs)`` with the gradient of ``again(*inputs, *kept)``, whose graph is made when asked.

    ``first`` runs without a graph and returns its outputs, and tensors to keep for ``again``. The backward pass runs
    ``again`` from the same random numbers, with a graph, and differentiates it. Between the two, memory holds the
    inputs and what is kept, and nothing else.

    Arguments:
        first: inputs -> (outputs, kept).
        again: inputs and kept -> as many outputs, of the same gradient; their values may differ.
        inputs: tensors to differentiate by, or None in their place.
        captured: the other tensors that both calls read and that may want a gradient, such as weights.

    Raises:
        RuntimeError: (in a backward pass) a second derivative is taken, or the captured tensors are not those of the
            forward pass.

    >>> x = torch.ones(2, requires_grad=True)
    >>> (y,) = replayed(lambda x: ((x.sin(),), ()), lambda x: (x.sin(),), [x], captured=list)
    >>> torch.equal(torch.autograd.grad(y.sum(), x)[0], x.cos())
    True
    """
    wanted = [tensor for tensor in captured() if tensor.requires_grad]
    outputs: _Outputs = _Replayed.apply(first, again, captured, len(inputs), *inputs, *wanted)
    return outputs


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        first: Callable[..., tuple[_Outputs, _Outputs]],
        again: Callable[..., _Outputs],
        captured: Callable[[], Sequence[Tensor]],
        count: int,
        *tensors: Tensor | None,
    ) -> _Outputs:
        ctx.again, ctx.captured, ctx.count = again, captured, count
        ctx.devices = {tensor.device for tensor in tensors if tensor is not None and tensor.device.type == "cuda"}
        ctx.random = torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in ctx.devices}
        with torch.no_grad():
            outputs, kept = first(*tensors[:count])
        ctx.save_for_backward(*tensors[:count], *kept)
        ctx.weights = [(tensor, tensor._version) for tensor in tensors[count:] if tensor is not None]
        return outputs

    @staticmethod
    @full_precision  # a backward pass inside autocast computes in it too
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # not left to once_differentiable, which lets a constant incoming gradient pass: the second derivative
            # would silently miss what comes from here
            raise RuntimeError(
                "expected a first derivative, received create_graph=True: what is computed again in the backward pass "
                "has no second one; store the graph: leave out Recompute or ConstantMemory there"
            )
        saved = ctx.saved_tensors
        captured = [tensor for tensor in ctx.captured() if tensor.requires_grad]
        both = zip(captured, ctx.weights, strict=False)
        if any(now is not then or now._version != version for now, (then, version) in both):
            raise RuntimeError(
                "the weights are no longer those of the forward pass, so it cannot be computed again; take the "
                "gradient before they change and inside functional_call, or store the graph: leave out Recompute or "
                "ConstantMemory there"
            )
        wanted = ctx.needs_input_grad[4:]  # of the tensors
        inputs = [
            None if tensor is None else tensor.detach().requires_grad_(wants)
            for tensor, wants in zip(saved[: ctx.count], wanted, strict=False)
        ]
        with torch.enable_grad(), torch.random.fork_rng(devices=ctx.devices):
            torch.set_rng_state(ctx.random[0])
            for device, state in ctx.random[1].items():
                torch.cuda.set_rng_state(state, device)
            outputs = ctx.again(*inputs, *saved[ctx.count :])
        sources = [*inputs, *captured]
        chosen = [place for place, tensor in enumerate(sources) if tensor is not None and wanted[place]]
        pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        if not pairs:  # the outputs depend on nothing here
            return (None,) * (4 + len(wanted))
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            [sources[place] for place in chosen],
            [gradient for _, gradient in pairs],
            allow_unused=True,
        )
        by_place = dict(zip(chosen, found, strict=True))
        return (None, None, None, None, *[by_place.get(place) for place in range(len(wanted))])
