"""The only cache: the last value a transform produced, for the score that follows a draw."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LastDraw"]


class LastDraw:
    """Remembers what a transform last produced, from what, and with which log-det, until it is used once.

    Sampling and then scoring the same tensor, as every SVI guide does, must not invert the transform. But nothing that
    torch keeps (version counters, identities) betrays every optimizer step or every write to a tensor: writes through
    ``.data`` and through a NumPy view leave no trace. So everything that the log-det depends on (the product, what it
    was made from, parameters and buffers, among them the context of a conditioned view) is compared by value with a
    copy taken when the value was made. The product is held weakly: when it is gone, so is the memory of it.

    Threads that share a transform share its memory. What is remembered is therefore one object, read once by every
    question: another thread may replace it meanwhile, but never a part of it.
    """

    def __init__(self) -> None:
        self._memory: _Memory | None = None

    def drop(self) -> None:
        """Forget everything."""
        self._memory = None

    def keep(self, module: nn.Module, source: Tensor, product: Tensor, ladj: Tensor) -> None:
        """Remember that ``module`` made ``product`` from ``source``; ``ladj`` is the forward log-det there."""
        tensors, modes = _reads(module)
        graded = torch.is_grad_enabled()
        with torch.no_grad():  # cheaper than to detach each copy
            seen = _Seen(product, self._forget), _Seen(source), [_Seen(tensor) for tensor in tensors]
        self._memory = _Memory(*seen, source, ladj, modes, graded)

    def source_of(self, module: nn.Module, product: Tensor) -> Tensor | None:
        """What this very tensor was made from, if it was made last and nothing has changed since."""
        memory = self._memory
        if memory is None or memory.product.tensor() is not product or not memory.is_valid(module, product):
            return None
        return memory.made_from

    def take(self, module: nn.Module, first: Tensor, second: Tensor) -> Tensor | None:
        """The log-det of this very pair (source and product, in any order), if still valid; it is given out once."""
        memory, self._memory = self._memory, None
        if memory is None:
            return None
        product, source = memory.product.tensor(), memory.made_from
        if product is None or not ((first is source and second is product) or (first is product and second is source)):
            return None
        return memory.ladj if memory.is_valid(module, product) else None

    def _forget(self, gone: object) -> None:
        memory = self._memory
        if memory is not None and memory.product.tensor is gone:
            self._memory = None


@dataclass(frozen=True)
class _Memory:
    """One value, as it was when it was made, and all that its log-det depends on."""

    product: _Seen
    source: _Seen
    weights: list[_Seen]
    made_from: Tensor
    ladj: Tensor
    modes: list[object]
    with_gradient: bool

    def is_valid(self, module: nn.Module, product: Tensor) -> bool:
        tensors, modes = _reads(module)
        if modes != self.modes or len(tensors) != len(self.weights):
            return False
        now = [product, self.made_from, *tensors]
        if torch.is_grad_enabled() and not self.with_gradient and any(tensor.requires_grad for tensor in now):
            return False  # made under no_grad: it would be scored without a gradient
        then = [self.product, self.source, *self.weights]
        try:
            return all(old.is_still(tensor) for old, tensor in zip(then, now, strict=True))
        except RuntimeError:  # under vmap values cannot be compared, so nothing is reused
            return False


class _Seen:
    """A tensor as it was at one moment: which one, its values, and where its gradient flowed to."""

    __slots__ = ("_graph", "_values", "tensor")

    def __init__(self, tensor: Tensor, when_gone: Callable[[Any], None] | None = None) -> None:
        self.tensor = weakref.ref(tensor, when_gone)
        self._values = tensor.clone()
        self._graph = _graph(tensor)

    def is_still(self, tensor: Tensor) -> bool:
        """Whether this is that very tensor, unchanged; NaN is the same as NaN."""
        if self.tensor() is not tensor or self._values.shape != tensor.shape or self._graph != _graph(tensor):
            return False
        return torch.equal(self._values, tensor) or torch.allclose(self._values, tensor, rtol=0, atol=0, equal_nan=True)


def _graph(tensor: Tensor) -> tuple[bool, Any]:
    """What in-place changes of the gradient alone change (``detach_``, ``requires_grad_``, times 1 with a gradient)."""
    return tensor.requires_grad, tensor.grad_fn


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
