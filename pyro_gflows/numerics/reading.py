"""Which tensors a call reads: the tensors of its modules, and other tensors that it uses."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Holdings", "Reads", "modules_in", "samples_its_weights"]


class Reads(TorchFunctionMode):
    """A context that records every existing tensor with a gradient that is used inside, in the order of use.

    Such tensors are the weights of a module, weights that another network has computed, sampled weights, and tensors
    that a closure holds. The context does not see a tensor that is used only where torch does not report it (inside
    compiled code).

    Attributes:
        tensors: The recorded tensors.

    Example:
        >>> w, x = torch.ones(2, requires_grad=True), torch.ones(2)
        >>> with torch.no_grad(), Reads() as reads:
        ...     _ = (x * w).sin()
        >>> [tensor is w for tensor in reads.tensors]
        [True]
    """

    def __init__(self) -> None:
        super().__init__()
        self._made = WeakTensorKeyDictionary()
        self._found: dict[int, Tensor] = {}
        with torch.enable_grad():
            node: Any = torch.zeros((), requires_grad=True).view(()).grad_fn
        self._start: int = node._sequence_nr()

    @property
    def tensors(self) -> list[Tensor]:
        return list(self._found.values())

    def has_made(self, leaf: Tensor) -> bool:
        """Whether a leaf tensor with a gradient was made inside the context."""
        return leaf in self._made

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) == "__get__":  # an attribute such as the shape
            return func(*args, **kwargs)
        for tensor in _tensors([*args, *kwargs.values()]):
            if tensor.requires_grad and id(tensor) not in self._found and self._was_there(tensor):
                self._found[id(tensor)] = tensor
        out = func(*args, **kwargs)
        for tensor in _tensors([out]):
            if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self._found:
                self._made[tensor] = True
        return out

    def _was_there(self, tensor: Tensor) -> bool:
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # it was made by torch.func inside the call
            return False
        if tensor.grad_fn is not None:  # nodes of the graph are numbered as they are made
            return bool(tensor.grad_fn._sequence_nr() < self._start)
        return tensor not in self._made


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(value)
        elif isinstance(value, dict):
            found += _tensors(list(value.values()))
    return found


def modules_in(call: object) -> list[nn.Module]:
    """The modules that a callable holds: itself, its object, its attributes, captures of a closure or a partial.

    Args:
        call: Any callable.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> [each is layer for each in modules_in(functools.partial(layer.forward))]
        [True]
    """
    found: dict[int, object] = {}
    waiting = [call]
    while waiting:
        each = waiting.pop()
        if id(each) in found or isinstance(each, type) or not callable(each):
            continue
        found[id(each)] = each
        if not isinstance(each, nn.Module):
            waiting += _held_by(each)
    return [each for each in found.values() if isinstance(each, nn.Module)]


def _held_by(call: Any) -> list[object]:
    if isinstance(call, functools.partial):
        return [call.func, *call.args, *call.keywords.values()]
    held = [getattr(call, "__self__", None), *getattr(call, "__dict__", {}).values()]
    for cell in getattr(call, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # a cell may be empty
            held.append(cell.cell_contents)
    return held


def samples_its_weights(modules: Sequence[nn.Module]) -> bool:
    """Whether a PyroSample is among the attributes of the modules.

    Reading such an attribute is a sample statement, which may happen once only.

    Args:
        modules: The modules, whose submodules count as well.
    """
    return any(getattr(each, "_pyro_samples", None) for module in modules for each in module.modules())


class Holdings:
    """The tensors that modules hold now, which can be restored while other tensors are in their places.

    ``functional_call`` replaces weights for the time of a call, and a network that computes weights overwrites them in
    the next call.

    Args:
        modules: The modules whose parameters and buffers are meant.
        read: Other tensors that are restored where they are plain attributes of the modules.
    """

    def __init__(self, modules: Sequence[nn.Module], read: Sequence[Tensor]) -> None:
        wanted = {id(tensor) for tensor in read}
        self._places: list[tuple[dict[str, Any], str, Tensor]] = []
        for each in {inner: None for module in modules for inner in module.modules()}:
            registered: tuple[dict[str, Any], ...] = (each._parameters, each._buffers)
            for place in registered:
                self._places += [(place, name, t) for name, t in place.items() if t is not None]
            held = each.__dict__.items()
            self._places += [(each.__dict__, name, t) for name, t in held if isinstance(t, Tensor) and id(t) in wanted]
        self.parameters = [parameter for module in modules for parameter in module.parameters()]

    @contextlib.contextmanager
    def put_back(self) -> Iterator[None]:
        """A context in which every tensor is in its former place."""
        replaced = [(place, name, place.get(name), t) for place, name, t in self._places if place.get(name) is not t]
        try:
            for place, name, _, tensor in replaced:
                place[name] = tensor
            yield
        finally:
            for place, name, now, _ in replaced:
                place[name] = now
