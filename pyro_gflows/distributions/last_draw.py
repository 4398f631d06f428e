"""The only memory: what a distribution drew last, for the score that follows a draw."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["LastDraw"]


class LastDraw:
    """Remembers what a distribution drew last, from what, and with which log-det, until it is used once.

    Sampling and then scoring the same tensor, as every SVI guide does, must not invert the transform. But nothing that
    torch keeps (version counters, identities) betrays every optimizer step or every write to a tensor: writes through
    ``.data`` and through a NumPy view leave no trace. So everything that the log-det depends on (the draw, what it was
    made from, parameters and buffers, among them the context of a conditioned view) is compared with one copy of all
    of it, taken when the draw was made; on a GPU that comparison is the only time at which the host waits. The draw is
    held weakly: when it is gone, so is the memory of it.

    Threads that share a distribution share its memory. What is remembered is therefore one object, read once by every
    question: another thread may replace it meanwhile, but never a part of it.
    """

    def __init__(self) -> None:
        self._memory: _Memory | None = None

    def drop(self) -> None:
        """Forget everything."""
        self._memory = None

    def keep(self, module: nn.Module, source: Tensor, draw: Tensor, ladj: Tensor) -> None:
        """Remember that ``module`` made ``draw`` from ``source``, with the log-det ``ladj``."""
        if transforming():  # vmap and forward mode hide values, so that nothing could be compared
            self.drop()
            return
        weights, modes = _reads(module)
        tensors = [source, *weights]
        graded = torch.is_grad_enabled()
        with torch.no_grad():
            values = _flat([draw, *tensors])
        graphs: list[object] = [_graph(tensor) for tensor in (draw, *tensors)]
        self._memory = _Memory(weakref.ref(draw, self._forget), tensors, values, graphs, ladj, modes, graded)

    def take(self, module: nn.Module, draw: Tensor) -> tuple[Tensor, Tensor] | None:
        """What this very draw was made from, and its log-det, if nothing has changed since; they are given out once."""
        memory = self._memory
        if memory is None or memory.draw() is not draw:
            return None
        self._memory = None
        return (memory.tensors[0], memory.ladj) if memory.is_valid(module, draw) else None

    def __getstate__(self) -> dict[str, Any]:
        return {"_memory": None}  # copies and pickles start without a memory

    def _forget(self, gone: object) -> None:
        memory = self._memory
        if memory is not None and memory.draw is gone:
            self._memory = None


@dataclass(frozen=True)
class _Memory:
    """One draw, as it was when it was made, and all that its log-det depends on."""

    draw: weakref.ref[Tensor]
    tensors: list[Tensor]  # what it was made from, and the weights
    values: list[Tensor]
    graphs: list[object]
    ladj: Tensor
    modes: list[object]
    with_gradient: bool

    def is_valid(self, module: nn.Module, draw: Tensor) -> bool:
        weights, modes = _reads(module)
        source = self.tensors[0]
        now = [draw, source, *weights]
        if modes != self.modes or len(now) != len(self.graphs):
            return False
        if any(old is not new for old, new in zip(self.tensors, now[1:], strict=True)):
            return False
        if torch.is_grad_enabled() and not self.with_gradient and any(tensor.requires_grad for tensor in now):
            return False  # made under no_grad: it would be scored without a gradient
        if any(_graph(tensor) != graph for tensor, graph in zip(now, self.graphs, strict=True)):
            return False
        if transforming():
            return False
        with torch.no_grad():
            values = _flat(now)
        return len(values) == len(self.values) and all(map(torch.equal, values, self.values))


def _flat(tensors: list[Tensor]) -> list[Tensor]:
    """One vector of the bytes of all the tensors on each device, in which NaN is the same as NaN."""
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor.reshape(-1))
    devices: dict[torch.device, list[Tensor]] = {}
    for (device, _), same in kinds.items():
        devices.setdefault(device, []).append(torch.cat(same).view(torch.uint8))
    return [parts[0] if len(parts) == 1 else torch.cat(parts) for parts in devices.values()]


def _graph(tensor: Tensor) -> tuple[bool, Any, torch.Size]:
    """What in-place changes of gradient or shape change (``detach_``, ``requires_grad_``, times 1 with a gradient)."""
    return tensor.requires_grad, tensor.grad_fn, tensor.shape


def _reads(module: nn.Module) -> tuple[list[Tensor], list[object]]:
    """The parameters and buffers of a module and its children, and the mode of each of them."""
    # not module.parameters(): it makes names and looks for duplicates, which costs more than small layers themselves
    own = [*module._parameters.values(), *module._buffers.values()]
    tensors = [tensor for tensor in own if tensor is not None]
    # weights that Pyro draws anew at every access (PyroSample) are never the same: a fresh object equals no other
    modes: list[object] = [object() if getattr(module, "_pyro_samples", None) else module.training]
    for child in module.children():
        more, their_modes = _reads(child)
        tensors += more
        modes += their_modes
    return tensors, modes
