"""A simulated second device for a machine without a GPU: the device ``meta``, whose tensors have values here.

By itself torch lets matmul, einsum, conv2d and others take one tensor on ``meta`` and one on the CPU. Moreover, a
tensor on ``meta`` has no values, so that an algorithm that reads one (the stopping rule of a solver) cannot run. Here a
tensor on ``meta`` is a label around a tensor on the CPU, on which every operation is computed. So all algorithms run
with their own rules, their results can be compared with those on the CPU, and an operation raises for mixed devices as
it does with CUDA.
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
# the operations behind `.to`, `copy_` and assignments to a part of a tensor
_COPIES = {_aten.copy_, _aten._to_copy}
# CUDA takes the indices of these from the CPU too, but not those of gather, index_select, index_add, embedding, scatter
_INDEXING = {_aten.index, _aten._unsafe_index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
# these return a value to the program, or a tensor whose shape depends on values
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
_FROM_VALUES = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)


class DevicesMixed(AssertionError):
    """An operation got tensors of two devices."""


class Labeled(Tensor):
    """A tensor on the second device, by its label; ``on_cpu`` is the tensor on the CPU with its values."""

    on_cpu: Tensor
    is_meta = False  # Module.load_state_dict would say that copying to it does nothing

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> Labeled:
        return Tensor._make_wrapper_subclass(
            cls,
            on_cpu.size(),
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            layout=on_cpu.layout,
            device=SECOND,
        )

    def __init__(self, on_cpu: Tensor) -> None:
        self.on_cpu = on_cpu

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, _tensors_in([args, kwargs]))

    def __repr__(self) -> str:
        return f"Labeled({self.on_cpu!r})"


class SecondDevice(TorchDispatchMode):
    """A context that labels tensors made on the second device or copied to it, and refuses to mix devices.

    Attributes:
        reads: How often each operation returned a value on the second device to the program, for which the program
            would have waited for a GPU.
        sent: The number of tensors of one dimension or more that were copied to the second device from the CPU.
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
    """A context that makes tensors from Python numbers, and lists from tensors, by way of a tensor on the CPU.

    A dispatch mode does not see these conversions of torch.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            x, index, *value = args
            index = tuple(_of_list(part, x) for part in index) if isinstance(index, tuple) else _of_list(index, x)
            return func(x, index, *value)
        if func is Tensor.tolist:
            return args[0].cpu().tolist()
        if func not in _FROM_VALUES:
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
    """Make ``meta`` a device whose tensors have values, and refuse operations that mix it with the CPU."""
    overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    # a label does not fit into the Parameter of a plain tensor
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with SecondDevice() as mode, _ByWayOfTheCpu():
            yield mode
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwriting)


def _computed(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
    """Compute an operation on the CPU, and label its results if they belong to the second device."""
    _refuse_mixing(func, args, tensors)
    device = _device_of_results(func, args, kwargs, tensors)
    elsewhere = {"device": _CPU} if "device" in kwargs else {}
    out = func(*_without_labels(args), **{**_without_labels(kwargs), **elsewhere})
    if torch.Tag.inplace_view in func.tags and isinstance(args[0], Labeled):
        with no_dispatch():  # the label changes its shape as its values have done
            func(*args, **kwargs)
    known = {id(tensor.on_cpu if isinstance(tensor, Labeled) else tensor): tensor for tensor in tensors}

    def labeled(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(labeled, value))
        if not isinstance(value, Tensor) or id(value) in known:  # an operation in place returns its argument
            return known.get(id(value), value)
        # a label cannot show that its values are to be conjugated later
        return Labeled(value.resolve_conj().resolve_neg()) if device == SECOND else value

    return labeled(out)


def _refuse_mixing(func: Any, args: Any, tensors: list[Tensor]) -> None:
    if any(tensor.device == SECOND and not isinstance(tensor, Labeled) for tensor in tensors):
        raise DevicesMixed(
            f"{func} got a tensor that was made on meta before second_device(), so that it has no values"
        )
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
        assert value.shape == value.on_cpu.shape
        return value.on_cpu
    if isinstance(value, dict):
        return {key: _without_labels(each) for key, each in value.items()}
    return type(value)(map(_without_labels, value)) if isinstance(value, list | tuple) else value
