"""Computing in full precision whatever torch's settings allow, and refusing tensors of half precision."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

from pyro_gflows.numerics.constants import made_once
from pyro_gflows.numerics.float32_products import full_products

__all__ = [
    "at_least_single",
    "autocast_off",
    "casting",
    "full_precision",
    "guarded",
    "guarded_method",
    "is_low",
    "on_methods",
    "refuse_low",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LOW = (torch.bfloat16, torch.float16)


def _enabled_by_device() -> dict[str, Callable[[], bool]]:
    """For each kind of device with autocast in this version of torch, a function that says whether autocast is on."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 4):
        return {"cpu": torch.is_autocast_cpu_enabled, "cuda": torch.is_autocast_enabled}
    # torch 2.4 has no autocast for mps, and raises if asked
    devices = [
        device for device in ("cpu", "cuda", "mps", "xpu") if torch.amp.autocast_mode.is_autocast_available(device)
    ]
    return {device: functools.partial(torch.is_autocast_enabled, device) for device in devices}


_ENABLED = _enabled_by_device()


def is_low(value: Any) -> bool:
    """Whether a value is a tensor of dtype bfloat16 or float16.

    Args:
        value: Any value.

    Example:
        >>> is_low(torch.ones(2).half()), is_low(torch.ones(2)), is_low("half")
        (True, False, False)
    """
    return isinstance(value, Tensor) and value.dtype in _LOW


def refuse_low(value: Any, what: str) -> None:
    """Raise TypeError for a tensor of half precision.

    Args:
        value: Any value.
        what: What the value is, for the message.

    Raises:
        TypeError: If the value is a tensor of dtype bfloat16 or float16.

    Example:
        >>> refuse_low(torch.ones(2), "events")
    """
    if is_low(value):
        raise TypeError(
            f"expected {what} of float32 or float64, got {value.dtype}, whose three digits are too few for a log-det "
            "or an exact symmetry; convert with .float(), or leave the flow in float32 and put torch.autocast around "
            "your own networks (flows compute in float32 inside it)"
        )


@contextlib.contextmanager
def autocast_off() -> Iterator[None]:
    """A context in which no operation is cast to a lower precision, inside any ``torch.autocast`` of the caller.

    Example:
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu", torch.bfloat16), autocast_off():
        ...     print((x @ x).dtype)
        torch.float32
    """
    with contextlib.ExitStack() as stack:
        for device in casting():
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def full_precision(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function so that inside ``torch.autocast`` it computes without autocast, in at least float32.

    Arguments of half precision are results of autocast there. They are converted back to float32 or, for a method of a
    module, to the dtype of the weights of the module. Inside and outside autocast, the products of float32 matrices and
    convolutions have all their digits (:class:`full_products`).

    Args:
        function: The function or method.

    Example:
        >>> square = full_precision(lambda x: x @ x)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     print(square(torch.ones(2, 2)).dtype, square(torch.ones(2, 2).bfloat16()).dtype)
        torch.float32 torch.float32
    """

    @functools.wraps(function)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not casting():
            if _GUARD.inside:
                return function(*args, **kwargs)
            with full_products():
                return function(*args, **kwargs)
        dtype = _weights_dtype(args[0]) if args else torch.float32
        raised: Any = [_raised(argument, dtype) for argument in args]
        named: Any = {name: _raised(argument, dtype) for name, argument in kwargs.items()}
        with autocast_off(), full_products():
            return function(*raised, **named)

    return inner


def at_least_single(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a function so that it computes in at least float32 everywhere.

    Inside autocast it is :func:`full_precision`. Outside, arguments of half precision are converted to float32, and the
    results are converted back.

    Args:
        function: A function of tensors.

    Example:
        >>> norm = at_least_single(torch.linalg.matrix_norm)
        >>> norm(torch.ones(2, 2).half()).dtype
        torch.float16
    """

    @functools.wraps(function)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        low = next((argument.dtype for argument in args if isinstance(argument, Tensor) and is_low(argument)), None)
        if low is None:
            return function(*args, **kwargs)
        raised: Any = [_raised(argument, torch.float32) for argument in args]
        result: Any = function(*raised, **kwargs)
        lowered: Any = tuple(part.to(low) for part in result) if isinstance(result, tuple) else result.to(low)
        return lowered  # type: ignore[no-any-return]

    return full_precision(inner)


_Check = Callable[..., None]


class _Guard(threading.local):
    """Whether this thread is inside a guarded method, so that its arguments have been checked already."""

    inside = False


_GUARD = _Guard()


class _Guarded:
    """A method that computes in full precision and checks its arguments when it is called from outside.

    Called from another guarded method it is the plain function, which costs neither time nor a frame of the stack.
    """

    def __init__(self, function: Callable[..., Any], check: _Check | None) -> None:
        self._function, self._check = function, check
        self.__isabstractmethod__ = getattr(function, "__isabstractmethod__", False)

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            return self._function
        if torch.compiler.is_compiling():
            # torch.compile cannot trace a types.MethodType
            return functools.partial(self._checked if casting() else self._function, owner)
        return types.MethodType(self._function if _GUARD.inside and not casting() else self._checked, owner)

    @made_once
    def _checked(self) -> Callable[..., Any]:
        function, check = self._function, self._check

        @functools.wraps(function)
        def inner(owner: Any, *args: Any, **kwargs: Any) -> Any:
            if check is not None:
                check(owner, *args, *kwargs.values())
            with guarded():
                return function(owner, *args, **kwargs)

        return full_precision(inner)


class guarded:
    """A context in which guarded methods trust their caller: the precision is full, the arguments are checked."""

    __slots__ = ("_before", "_products")

    def __enter__(self) -> None:
        self._before, self._products = _GUARD.inside, None if _GUARD.inside else full_products()
        if self._products is not None:
            self._products.__enter__()
        _GUARD.inside = True

    def __exit__(self, *raised: object) -> None:
        _GUARD.inside = self._before
        if self._products is not None:
            self._products.__exit__(*raised)


def guarded_method(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorate a method so that it computes in full precision when it is called from outside of such methods.

    This is the form of :func:`on_methods` for a single method.

    Args:
        method: The method.

    Example:
        >>> class Square:
        ...     @guarded_method
        ...     def __call__(self, x):
        ...         return x @ x
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     Square()(torch.ones(2, 2)).dtype
        torch.float32
    """
    return cast(Callable[_P, _R], _Guarded(method, None))


def on_methods(
    cls: type,
    names: tuple[str, ...],
    wrap: Callable[[Any], Any] | None = None,
    *,
    check: _Check | None = None,
) -> None:
    """Make the named methods that a class defines itself compute in full precision (:func:`full_precision`).

    It is called in ``__init_subclass__`` of a base class.

    Args:
        cls: The class.
        names: The names of the methods.
        wrap: A decorator that is applied to each method first.
        check: A function that raises for arguments that are not allowed; it is called when the method is called from
            outside of such methods.
    """
    for name in names:
        method = cls.__dict__.get(name)
        if inspect.isfunction(method):
            setattr(cls, name, _Guarded(method if wrap is None else wrap(method), check))


def casting() -> list[str]:
    """The kinds of devices on which autocast is on.

    Example:
        >>> casting()
        []
    """
    return [device for device, is_on in _ENABLED.items() if is_on()]


def _raised(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if is_low(value) else value


def _weights_dtype(owner: Any) -> torch.dtype:
    """The dtype of the weights of a module if it is a full precision, else float32."""
    for parameter in owner.parameters() if isinstance(owner, nn.Module) else ():
        if parameter.is_floating_point() and not is_low(parameter):
            return parameter.dtype
    return torch.float32
