"""Old forms of calls: a split as first argument, a flag that is a function now, values of another kind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from pyro_gflows.deprecation.warning import warn_of
from pyro_gflows.deprecation.wrapping import wrapped

__all__ = ["converted_arguments", "flag_is_a_function", "split_first"]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T", bound=type)


def split_first(kind: type[Any]) -> Callable[[_T], _T]:
    """Decorate a layer that took a split as its first argument, and now takes ``(action, *, split=...)``.

    Args:
        kind: The type of splits, which have an attribute ``action``.

    Example:
        >>> import warnings
        >>> from pyro_gflows import VectorAction
        >>> class Halves:
        ...     action = VectorAction.trivial("C1", copies=2)
        >>> @split_first(Halves)
        ... class Layer:
        ...     def __init__(self, action, *, split=None):
        ...         self.action, self.split = action, split
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # Layer(split, ...) is Layer(action, ..., split=split) now; ...
        ...     Layer(Halves()).action
        VectorAction(C1 on R^2: 2 x trivial)
    """

    def around(initialize: Callable[..., Any]) -> Callable[..., Any]:
        name = initialize.__qualname__.removesuffix(".__init__")

        def call(self: Any, *args: Any, **kwargs: Any) -> None:
            first: Any
            first, *rest = args or (kwargs.get("action", kwargs.get("split")),)
            if isinstance(first, kind) and (args or "action" not in kwargs or kwargs["action"] is first):
                warn_of(f"{name}(split, ...)", now=f"{name}(action, ..., split=split)", what="form")
                kwargs = {**kwargs, "action": first.action, "split": first}
                args = (kwargs.pop("action"), *rest)
            initialize(self, *args, **kwargs)

        return call

    return functools.partial(wrapped, around=around)


def flag_is_a_function(**functions: Callable[..., Any]) -> Callable[[_F], _F]:
    """Decorate a function so that it still accepts flags for which there are functions of their own now.

    Args:
        functions: The name of each flag, and the function.

    Example:
        >>> import warnings
        >>> def negative(x):
        ...     return -x
        >>> @flag_is_a_function(minus=negative)
        ... def same(x):
        ...     return x
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # same(..., minus=True) is negative(...) now; ...
        ...     same(2, minus=True)
        -2
    """

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            chosen: Callable[..., Any] = function
            for flag in functions.keys() & kwargs.keys():
                value, other = kwargs.pop(flag), functions[flag]
                name = other.__name__ if value else function.__name__
                warn_of(f"{function.__name__}(..., {flag}={value})", now=f"{name}(...)", what="form")
                chosen = other if value else chosen
            return chosen(*args, **kwargs)

        return call

    return functools.partial(wrapped, around=around)


def converted_arguments(*names: str, convert: Callable[[Any, str], Any]) -> Callable[[_F], _F]:
    """Decorate a function or class so that it still accepts some keyword arguments in an old form.

    On a class it goes above ``@registered``, which remembers the arguments in their new form.

    Args:
        names: The names of the arguments.
        convert: A function that makes the new form from a value and the name of the argument in warnings; None is never
            converted.

    Example:
        >>> @converted_arguments("angle", convert=lambda value, name: float(value))
        ... def double(*, angle):
        ...     return 2 * angle
        >>> double(angle="1.5")
        3.0
    """

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        owner = function.__qualname__.removesuffix(".__init__")

        def call(*args: Any, **kwargs: Any) -> Any:
            for name in names:
                if kwargs.get(name) is not None:
                    kwargs[name] = convert(kwargs[name], f"{owner}({name}=...)")
            return function(*args, **kwargs)

        return call

    return functools.partial(wrapped, around=around)
