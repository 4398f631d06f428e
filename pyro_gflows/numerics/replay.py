"""Calls that store their inputs for the backward pass in place of their graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.reading import Holdings, Reads, samples_its_weights
from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["replayable", "replayed"]

_Outputs = tuple[Tensor, ...]


def replayable(modules: Sequence[nn.Module]) -> bool:
    """Whether a call that uses these modules can be computed again in a backward pass.

    It cannot inside ``torch.func`` and forward mode, whose tensors no longer exist then, nor where a module samples its
    weights (PyroSample), since reading a sampled weight is a sample statement of the forward pass.

    Args:
        modules: The modules that the call uses.

    Example:
        >>> replayable([nn.Linear(2, 2)])
        True
    """
    return not transforming() and not samples_its_weights(modules)


def replayed(
    first: Callable[..., tuple[tuple[Tensor, ...], tuple[Tensor, ...]]],
    again: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    *,
    captured: Callable[[], Sequence[Tensor]] = list,
    modules: Sequence[nn.Module] = (),
) -> tuple[Tensor, ...]:
    """The outputs of ``first(*inputs)`` with the gradient of ``again(*inputs, *kept)``, computed in the backward pass.

    This trades time for memory: between the forward and the backward pass, memory holds only the inputs and the tensors
    in ``kept``. ``first`` runs without a graph, and returns its outputs and the tensors to keep for ``again``. The
    backward pass runs ``again`` with a graph and the same random state, and differentiates it. Gradients reach all
    tensors that the calls read besides their inputs, including tensors that other modules own. In the backward pass the
    modules hold the tensors that they held in the forward pass.

    Not every call can be replayed; check :func:`replayable` first.

    Args:
        first: A function from the inputs to (outputs, kept).
        again: A function from the inputs and the kept tensors to as many outputs with the same gradient. Their values
            may differ from those of ``first``, unless nothing is kept.
        inputs: The tensors to differentiate by, or None in their places.
        captured: A function that gives tensors that both calls read and that may need a gradient, besides the tensors
            whose use is seen.
        modules: The modules that the calls use.

    Raises:
        RuntimeError: In a backward pass, if a second derivative is taken, or if the tensors that the call reads are not
            those of the forward pass.

    Example:
        >>> x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        >>> (y,) = replayed(lambda x: (((w * x).sin(),), ()), lambda x: ((w * x).sin(),), [x])
        >>> [torch.equal(gradient, torch.ones(2).cos()) for gradient in torch.autograd.grad(y.sum(), [x, w])]
        [True, True]
    """
    devices = {tensor.device for tensor in inputs if tensor is not None and tensor.device.type == "cuda"}
    random = torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in devices}
    with torch.no_grad(), Reads() as reads:
        outputs, kept = first(*inputs)
    holdings = Holdings(modules, reads.tensors)
    both = [*captured(), *holdings.parameters, *reads.tensors]
    tensors = list({id(tensor): tensor for tensor in both if tensor.requires_grad}.values())
    replay = _Replay(again, random, tensors, holdings)
    found: _Outputs = _Replayed.apply(replay, outputs, kept, len(inputs), *inputs, *tensors)
    return found


class _Replay:
    """The call ``again``, run in the state of the forward pass."""

    def __init__(
        self,
        again: Callable[..., _Outputs],
        random: tuple[Tensor, dict[torch.device, Tensor]],
        captured: list[Tensor],
        holdings: Holdings,
    ) -> None:
        self.again, self.random, self.captured, self.holdings = again, random, captured, holdings
        self.versions = [(tensor, tensor._version) for tensor in [*captured, *holdings.parameters]]

    def __call__(self, inputs: Sequence[Tensor | None], kept: Sequence[Tensor]) -> _Outputs:
        if any(tensor._version != version for tensor, version in self.versions):
            raise _changed()
        outputs = self._run(inputs, kept)
        known = {id(tensor) for tensor in [*inputs, *self.captured]}
        ends = {tensor.grad_fn for tensor in self.captured if tensor.grad_fn is not None}
        if any(id(leaf) not in known for leaf in _leaves(outputs, ends)):
            # such a leaf was made by the call itself, or is another tensor than was read; a second run says which
            with Reads() as reads:
                outputs = self._run(inputs, kept)
            if any(id(leaf) not in known and not reads.has_made(leaf) for leaf in _leaves(outputs, ends)):
                raise _changed()
        return outputs

    def _run(self, inputs: Sequence[Tensor | None], kept: Sequence[Tensor]) -> _Outputs:
        cpu, cuda = self.random
        with self.holdings.put_back(), torch.enable_grad(), torch.random.fork_rng(devices=list(cuda)):
            torch.set_rng_state(cpu)
            for device, state in cuda.items():
                torch.cuda.set_rng_state(state, device)
            return self.again(*inputs, *kept)


def _changed() -> RuntimeError:
    return RuntimeError(
        "the weights, or other tensors that the call reads, are no longer those of the forward pass, so it cannot be "
        "computed again; take the gradient before they change, or leave out Recompute or ConstantMemory "
        "there, which stores the graph"
    )


def _leaves(outputs: _Outputs, ends: set[Any]) -> Iterator[Tensor]:
    """The leaves that the graph of the outputs reaches, except those beyond ``ends``."""
    nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    yield from (output for output in outputs if output.requires_grad and output.grad_fn is None)
    seen = set(ends)
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "torch::autograd::AccumulateGrad":
            yield node.variable
        nodes += [following for following, _ in node.next_functions]


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, replay: _Replay, outputs: _Outputs, kept: _Outputs, count: int, *tensors: Tensor | None
    ) -> _Outputs:
        ctx.replay, ctx.count = replay, count
        ctx.save_for_backward(*tensors[:count], *kept)
        return tuple(output.detach() for output in outputs)  # one may be an input, or a buffer

    @staticmethod
    @full_precision  # a backward pass inside autocast would compute in half precision
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            # once_differentiable would not raise for a constant incoming gradient: the second derivative would
            # silently miss the contribution of this call
            raise RuntimeError(
                "expected a first derivative, got create_graph=True: a call that is computed again in the backward "
                "pass has no second derivative; to store the graph, leave out Recompute or ConstantMemory there"
            )
        saved, replay = ctx.saved_tensors, ctx.replay
        wanted = ctx.needs_input_grad[4:]  # of the tensors
        # all inputs, also those whose gradient is not needed, so that the call makes no leaf in their place
        inputs = [
            None if tensor is None else tensor.detach().requires_grad_(tensor.is_floating_point())
            for tensor in saved[: ctx.count]
        ]
        outputs = replay(inputs, saved[ctx.count :])
        sources = [*inputs, *replay.captured]
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
