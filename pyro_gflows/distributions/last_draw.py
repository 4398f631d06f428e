"""The only memory: what a distribution drew last, for the score that follows a draw."""

from __future__ import annotations

import operator
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors
from torch.nn import functional

from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.numerics.tracing import is_tracing
from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["LastDraw"]


class LastDraw:
    """Remembers what a distribution drew last, from what, and with which log-det, until it is used once.

    Sampling and then scoring the same tensor, as every SVI guide does, must not invert the transform. But nothing that
    torch keeps (version counters, identities) betrays every optimizer step or every write to a tensor: writes through
    ``.data`` and through a NumPy view leave no trace. So everything that the log-det depends on (the draw, what it was
    made from, parameters and buffers, among them the context of a conditioned view) is compared with one copy of all
    of it, taken when the draw was made; on a GPU that comparison is the only time at which the host waits. The constant
    bases of layers (:class:`~pyro_gflows.nn.FixedBasis`), which may be larger than all weights, are compared by
    identity and version. The draw is held weakly: when it is gone, so is the memory of it.

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
        self._memory = _Memory(weakref.ref(draw, self._forget), source, ladj, _State(module, draw, source))

    def take(self, module: nn.Module, draw: Tensor) -> tuple[Tensor, Tensor] | None:
        """What this very draw was made from, and its log-det, if nothing has changed since; they are given out once."""
        memory = self._memory
        if memory is None or memory.draw() is not draw:
            return None
        self._memory = None
        return (memory.source, memory.ladj) if memory.is_valid(module, draw) else None

    def __getstate__(self) -> dict[str, Any]:
        return {"_memory": None}  # copies and pickles start without a memory

    def _forget(self, gone: object) -> None:
        memory = self._memory
        if memory is not None and memory.draw is gone:
            self._memory = None


class _Memory(NamedTuple):
    """One draw, what it was made from, and all that its log-det depends on, as it was then."""

    draw: weakref.ref[Tensor]
    source: Tensor
    ladj: Tensor
    then: _State

    def is_valid(self, module: nn.Module, draw: Tensor) -> bool:
        return not transforming() and self.then.is_still(_State(module, draw, self.source))


class _State:
    """A draw, what it was made from, and the weights of a module, at one moment."""

    __slots__ = ("_graded", "_graphs", "_modes", "_tensors", "_values", "_versions")

    def __init__(self, module: nn.Module, draw: Tensor, source: Tensor) -> None:
        weights, constants, self._modes = _reads(module)
        changing = [draw, source, *weights]
        with torch.no_grad():
            self._values = _flat(changing)
        self._graded = torch.is_grad_enabled()
        self._graphs = _graphs(changing)
        self._tensors = [source, *weights, *constants]
        self._versions = [0 if tensor.is_inference() else tensor._version for tensor in constants]

    def is_still(self, now: _State) -> bool:
        """Whether nothing has changed since."""
        if now._modes != self._modes or len(now._tensors) != len(self._tensors):
            return False
        if not all(map(operator.is_, now._tensors, self._tensors)) or now._versions != self._versions:
            return False
        if now._graphs != self._graphs:
            return False
        if now._graded and not self._graded and any(now._graphs[0]):
            return False  # made under no_grad: it would be scored without a gradient
        return len(now._values) == len(self._values) and all(map(torch.equal, now._values, self._values))


def _graphs(tensors: list[Tensor]) -> tuple[list[bool], list[Any], list[torch.Size]]:
    """What in-place changes of gradient or shape change (``detach_``, ``requires_grad_``, times 1 with a gradient)."""
    return (
        [tensor.requires_grad for tensor in tensors],
        [tensor.grad_fn for tensor in tensors],
        [tensor.shape for tensor in tensors],
    )


def _flat(tensors: list[Tensor]) -> list[Tensor]:
    """Copies of all the tensors as one vector of 64 bits on each device, in which NaN is the same as NaN."""
    if is_tracing():  # which knows no views of bits
        return [tensor.clone() for tensor in tensors]
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    devices: dict[torch.device, list[Tensor]] = {}
    for (device, _), same in kinds.items():
        # of one tensor alone it would be a view
        flat = _flatten_dense_tensors(same) if len(same) > 1 else same[0].flatten().clone()
        devices.setdefault(device, []).append(flat.view(torch.uint8))
    return [_whole(parts[0] if len(parts) == 1 else torch.cat(parts)) for parts in devices.values()]


def _whole(flat: Tensor) -> Tensor:
    """Bytes as numbers of 64 bits, which are compared several times as fast."""
    missing = -flat.numel() % 8
    return (functional.pad(flat, (0, missing)) if missing else flat).view(torch.int64)


def _reads(module: nn.Module) -> tuple[list[Tensor], list[Tensor], list[object]]:
    """The parameters and buffers of a module and all in it, its constants, and the mode of each module."""
    # not module.parameters(): it makes names and looks for duplicates, which costs more than small layers themselves;
    # most modules hold nothing, and to ask for it takes less time than to go through it
    weights: list[Tensor | None] = []
    constants: list[Tensor] = []
    modes: list[object] = []
    waiting: list[nn.Module | None] = [module]
    while waiting:
        each = waiting.pop()
        if each is None:
            continue
        state = each.__dict__
        if isinstance(each, FixedBasis):
            constants.append(state["_buffers"]["value"])
            continue
        if parameters := state["_parameters"]:
            weights += parameters.values()
        if buffers := state["_buffers"]:
            weights += buffers.values()
        # weights that Pyro draws anew at every access (PyroSample) are never the same: a fresh object equals no other
        modes.append(object() if state.get("_pyro_samples") else state["training"])
        if children := state["_modules"]:
            waiting += children.values()
    return [tensor for tensor in weights if tensor is not None], constants, modes
