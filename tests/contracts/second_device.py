"""A second device on a machine that has none: it is called ``meta``, its numbers are real, and mixing devices raises.

By itself torch lets matmul, einsum, conv2d and others take one tensor on ``meta`` and one on the CPU. And a tensor on
``meta`` has no numbers, so that an algorithm that reads one (the stopping rule of a solver) could not run. Here a
tensor on ``meta`` is a label around a tensor on the CPU, on which every operation is computed. So all algorithms run
with their own rules, their results can be compared with those of the CPU, and an operation accepts the devices that
CUDA accepts.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["SECOND", "DevicesMixed", "SecondDevice", "second_device"]

SECOND = torch.device("meta")
_CPU = torch.device("cpu")

_aten = torch.ops.aten
# what `.to`, `copy_` and assignments to a part of a tensor do
_COPIES = {_aten.copy_, _aten._to_copy}
# CUDA takes their indices from the CPU too; it does not for gather, index_select, index_add, embedding, scatter
_INDEXING = {_aten.index, _aten._unsafe_index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
# what tells the program a value, or makes a shape that depends on values
_READING = {
    _aten._linalg_check_errors,
    _aten._local_scalar_dense,
    _aten._unique2,
    _aten.bincount,
    _aten.equal,
    _aten.masked_select,
    _aten.nonzero,
    _aten.unique_dim,
}
_FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)


class DevicesMixed(AssertionError):
    """An operation got tensors of two devices."""


class Labeled(Tensor):
    """A tensor that says that it is on the second device; ``numbers`` is the one on the CPU."""

    numbers: Tensor
    is_meta = False  # Module.load_state_dict would say that copying to it does nothing

    @staticmethod
    def __new__(cls, numbers: Tensor) -> Labeled:
        return Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=SECOND,
        )

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, _tensors_in([args, kwargs]))

    def __repr__(self) -> str:
        return f"Labeled({self.numbers!r})"


class SecondDevice(TorchDispatchMode):
    """Inside, what is made on the second device or copied to it is labeled, and an operation that mixes devices raises.

    Attributes:
        reads: how often each operation told the program a value that is on the second device. A GPU would have been
            waited for.
        sent: how many tensors of one dimension or more were copied to it from the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.sent = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors_in([args, kwargs])
        if func.overloadpacket in _COPIES:
            start, end = _ends_of_copy(func, args, kwargs)
            if start == SECOND != end:
                self.reads[str(func)] += 1
            elif start != SECOND == end and max(tensor.ndim for tensor in tensors):
                self.sent += 1
        elif any(isinstance(tensor, Labeled) for tensor in tensors) and _reads_values(func, args, kwargs):
            self.reads[str(func)] += 1
        return _computed(func, args, kwargs, tensors)


def _ends_of_copy(func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[torch.device, torch.device]:
    if func.overloadpacket is _aten.copy_:
        return args[1].device, args[0].device
    return args[0].device, torch.device(kwargs.get("device") or args[0].device)


def _reads_values(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    packet = func.overloadpacket
    if packet in _INDEXING:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if packet is _aten.repeat_interleave:
        return kwargs.get("output_size") is None
    return packet in _READING


class _ByWayOfTheCpu(TorchFunctionMode):
    """torch makes tensors from Python numbers, and lists from tensors, where no dispatch mode sees it: here by way of a
    tensor on the CPU."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            x, index, *value = args
            index = tuple(_of_list(part, x) for part in index) if isinstance(index, tuple) else _of_list(index, x)
            return func(x, index, *value)
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        if func not in _FROM_NUMBERS:
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        if func is Tensor.new_tensor:
            device, args, func = device or args[0].device, args[1:], torch.tensor
        made = func(*args, **kwargs)
        return made if device is None else made.to(device)


def _of_list(index: Any, x: Tensor) -> Any:
    return torch.tensor(index).to(x.device) if isinstance(index, list) else index


@contextlib.contextmanager
def second_device() -> Iterator[SecondDevice]:
    """Inside, ``meta`` is a device whose tensors have numbers and must not meet those of the CPU."""
    overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    # a label does not fit into the Parameter of a plain tensor
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with SecondDevice() as mode, _ByWayOfTheCpu():
            yield mode
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwriting)


def _computed(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    """The operation on the numbers of its arguments, with a label on what it makes."""
    _refuse_mixing(func, args, tensors)
    device = _device_of_results(func, args, kwargs, tensors)
    elsewhere = {"device": _CPU} if "device" in kwargs else {}
    out = func(*_without_labels(args), **{**_without_labels(kwargs), **elsewhere})
    if torch.Tag.inplace_view in func.tags and isinstance(args[0], Labeled):
        with no_dispatch():  # the label changes its shape as its numbers have done
            func(*args, **kwargs)
    known = {id(tensor.numbers if isinstance(tensor, Labeled) else tensor): tensor for tensor in tensors}

    def labeled(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(labeled, value))
        if not isinstance(value, Tensor) or id(value) in known:  # what was changed in place is the argument itself
            return known.get(id(value), value)
        # a label cannot show that its numbers are to be conjugated later
        return Labeled(value.resolve_conj().resolve_neg()) if device == SECOND else value

    return labeled(out)


def _refuse_mixing(func: Any, args: Any, tensors: list[Tensor]) -> None:
    if any(tensor.device == SECOND and not isinstance(tensor, Labeled) for tensor in tensors):
        raise DevicesMixed(f"{func} got a tensor that was made on the second device unseen, so that it has no numbers")
    if func.overloadpacket in _COPIES:
        return
    if func.overloadpacket in _INDEXING:
        indices = {id(index) for index in args[1] if index is not None and index.device == _CPU}
        tensors = [tensor for tensor in tensors if id(tensor) not in indices]
    # a single number on the CPU goes with everything
    if len({tensor.device for tensor in tensors if tensor.ndim or tensor.device == SECOND}) > 1:
        shown = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors)
        raise DevicesMixed(f"{func} got tensors of two devices: {shown}")


def _device_of_results(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> torch.device:
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    if func.overloadpacket in _INDEXING or func.overloadpacket in _COPIES:
        return args[0].device
    return SECOND if any(isinstance(tensor, Labeled) for tensor in tensors) else _CPU


def _tensors_in(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    return [found for value in values if isinstance(value, _NESTS) for found in _tensors_in(value)] if values else []


_NESTS = (Tensor, list, tuple, dict)


def _without_labels(value: Any) -> Any:
    if isinstance(value, Labeled):
        assert value.shape == value.numbers.shape
        return value.numbers
    if isinstance(value, dict):
        return {key: _without_labels(each) for key, each in value.items()}
    return type(value)(map(_without_labels, value)) if isinstance(value, list | tuple) else value
