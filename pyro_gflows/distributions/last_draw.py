"""LastDraw: the memory of a distribution's last draw, for the score that follows a draw."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors
from torch.nn import functional

from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.tied_tensor import TiedTensor
from pyro_gflows.numerics.tracing import is_tracing
from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["LastDraw"]


class LastDraw:
    """The last draw of a distribution, its source and its log-det, remembered until they are used once.

    An SVI guide draws a sample and then scores it, which should not invert the transform. The remembered log-det is
    right only if nothing on which it depends has changed since the draw. Version counters and identities of tensors do
    not show every change, because writes through ``.data`` and through a NumPy view leave no trace. Therefore the draw,
    its source, and all parameters and buffers (among them the context of a conditioned view) are copied when the draw
    is made and compared when it is scored. On a GPU this comparison is the only time at which the host waits. The
    constant bases of layers (:class:`~pyro_gflows.nn.FixedBasis`) and the tables of shared weights, which may be larger
    than all weights, are compared by identity and version. The draw is held by a weak reference, and the memory ends
    with it.

    Threads that share a distribution share its memory. All that is remembered is one object, and each question reads
    it once, so that another thread can replace the whole memory but never a part of it.

    Example:
        >>> memory, layer = LastDraw(), nn.Linear(2, 2)
        >>> source, draw, ladj = torch.zeros(2), torch.ones(2), torch.zeros(())
        >>> memory.keep(layer, source, draw, ladj)
        >>> memory.take(layer, draw) == (source, ladj), memory.take(layer, draw)
        (True, None)
    """

    def __init__(self) -> None:
        self._memory: _Memory | None = None

    def drop(self) -> None:
        """Forget the last draw."""
        self._memory = None

    def keep(self, module: nn.Module, source: Tensor, draw: Tensor, ladj: Tensor) -> None:
        """Remember that a module made a draw from a source.

        Args:
            module: The module, whose weights and buffers determine the draw.
            source: The tensor from which the draw was made.
            draw: The draw.
            ladj: The log-det of the map from source to draw.
        """
        if transforming():  # vmap and forward mode hide values, so that nothing could be compared
            self.drop()
            return
        self._memory = _Memory(weakref.ref(draw, self._forget), source, ladj, _State(module, draw, source))

    def take(self, module: nn.Module, draw: Tensor) -> tuple[Tensor, Tensor] | None:
        """The source of a draw and its log-det, handed out once, and only if nothing has changed since.

        Args:
            module: The module that made the draw.
            draw: The same tensor object that was remembered; for any other tensor the result is None.
        """
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
    """One draw, its source and log-det, and the state at that time of all that the log-det depends on."""

    draw: weakref.ref[Tensor]
    source: Tensor
    ladj: Tensor
    then: _State

    def is_valid(self, module: nn.Module, draw: Tensor) -> bool:
        return not transforming() and self.then.is_still(_State(module, draw, self.source))


class _State:
    """A draw, its source, and the weights of a module, at one moment."""

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
        """Whether the later state ``now`` is the same."""
        if now._modes != self._modes or len(now._tensors) != len(self._tensors):
            return False
        if not all(map(operator.is_, now._tensors, self._tensors)) or now._versions != self._versions:
            return False
        if now._graphs != self._graphs:
            return False
        if now._graded and not self._graded and any(now._graphs[0]):
            return False  # the draw was made under no_grad, so its score would have no gradient
        return len(now._values) == len(self._values) and all(map(torch.equal, now._values, self._values))


def _graphs(tensors: list[Tensor]) -> tuple[list[bool], list[Any], list[torch.Size]]:
    """Attributes that show in-place changes without new values (``detach_``, ``requires_grad_``, a product with 1)."""
    return (
        [tensor.requires_grad for tensor in tensors],
        [tensor.grad_fn for tensor in tensors],
        [tensor.shape for tensor in tensors],
    )


def _flat(tensors: list[Tensor]) -> list[Tensor]:
    """Copies of all tensors as one vector of 64-bit integers on each device, so that NaN equals NaN."""
    if is_tracing():  # a trace cannot record views of bits
        return [tensor.clone() for tensor in tensors]
    kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    devices: dict[torch.device, list[Tensor]] = {}
    for (device, _), same in kinds.items():
        # of a single tensor _flatten_dense_tensors makes a view
        flat = _flatten_dense_tensors(same) if len(same) > 1 else same[0].flatten().clone()
        devices.setdefault(device, []).append(flat.view(torch.uint8))
    return [_whole(parts[0] if len(parts) == 1 else torch.cat(parts)) for parts in devices.values()]


def _whole(flat: Tensor) -> Tensor:
    """Bytes as 64-bit integers, which are compared several times as fast."""
    missing = -flat.numel() % 8
    return (functional.pad(flat, (0, missing)) if missing else flat).view(torch.int64)


def _reads(module: nn.Module) -> tuple[list[Tensor], list[Tensor], list[object]]:
    """The parameters and buffers of a module and its submodules, its constants, and the mode of each module."""
    # not module.parameters(), which makes names and searches for duplicates at a higher cost than a small layer has;
    # submodules are listed level by level, by functions of the interpreter that are faster than a loop
    modules, level = [module], [module]
    while level:
        level = [each for each in _members(_MODULES, level) if each is not None]
        modules += level
    weights: list[Tensor | None] = list(_members(_PARAMETERS, modules))
    constants: list[Tensor] = []
    for each, buffers in zip(modules, map(_BUFFERS, modules), strict=True):
        if buffers:
            (constants if isinstance(each, _TABLES) else weights).extend(buffers.values())
    # weights that Pyro draws anew at every access (PyroSample) always differ: a fresh object equals no other
    modes = [object() if state.get("_pyro_samples") else state["training"] for state in map(vars, modules)]
    return [tensor for tensor in weights if tensor is not None], constants, modes


_MODULES, _PARAMETERS, _BUFFERS = map(operator.attrgetter, ("_modules", "_parameters", "_buffers"))
_TABLES = (FixedBasis, TiedTensor)


def _members(kind: Callable[[nn.Module], dict[str, Any]], modules: Iterable[nn.Module]) -> Iterable[Any]:
    """The submodules, parameters or buffers of all modules."""
    return chain.from_iterable(map(dict.values, map(kind, modules)))
