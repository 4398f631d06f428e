"""Old names and forms that go on working for one minor version, with a FutureWarning that says the new one."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = [
    "converted_arguments",
    "flag_is_a_function",
    "moved_names",
    "renamed_arguments",
    "renamed_attributes",
    "split_first",
    "warn_of",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T", bound=type)

_WRAPPERS = {__name__, "pyro_gflows.nn.factories", "pyro_gflows.serialization.registry"}


def warn_of(old: str, *, now: str, what: str = "name") -> None:
    """Warn the caller of the package's wrappers that ``old`` is ``now`` something else.

    Args:
        old: How it was written.
        now: What to write in its place.
        what: What is old: a name, or a form.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_globals.get("__name__") in _WRAPPERS and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    text = f"{old} is {now} now; the old {what} goes with the next minor version"
    warnings.warn(text, FutureWarning, stacklevel=level)


def moved_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module some of whose names are elsewhere now.

    Args:
        module: the module's ``__name__``.
        homes: old name -> where it is now, as "package.module:name"; without ":name" it is called as before.

    Example:
        >>> __getattr__ = moved_names("old", {"root": "math:sqrt"})
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # old.root is math.sqrt now; ...
        ...     __getattr__("root")(4.0)
        2.0
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = homes[name].partition(":")
        warn_of(f"{module}.{name}", now=f"{home}.{new or name}")
        return getattr(importlib.import_module(home), new or name)

    return get


def renamed_arguments(**names: str) -> Callable[[_F], _F]:
    """A decorator of a function or class some of whose keyword arguments have new names: ``old="new"``.

    Of a class it goes above ``@registered``, which remembers the arguments under their new names.

    Raises:
        TypeError: (when called) an argument comes under both its names.

    Example:
        >>> @renamed_arguments(count="n")
        ... def double(*, n):
        ...     return 2 * n
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # double(count=...) is double(n=...) now; ...
        ...     double(count=3)
        6
    """

    def decorate(function: _F) -> _F:
        if isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            return function
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"{name} got both {new!r} and {old!r}, its old name; give {new!r} alone")
                warn_of(f"{name}({old}=...)", now=f"{name}({new}=...)")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def renamed_attributes(**names: str) -> Callable[[_T], _T]:
    """A decorator of a class some of whose attributes or methods have new names: ``old="new"``.

    Example:
        >>> @renamed_attributes(mass="weight")
        ... class Stone:
        ...     weight = 2
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # Stone.mass is Stone.weight now; ...
        ...     Stone().mass
        2
    """

    def decorate(cls: _T) -> _T:
        for old, new in names.items():
            setattr(cls, old, property(functools.partial(_renamed, old=old, new=new), doc=""))
        return cls

    return decorate


def _renamed(owner: Any, *, old: str, new: str) -> Any:
    name = type(owner).__name__
    warn_of(f"{name}.{old}", now=f"{name}.{new}")
    return getattr(owner, new)


def split_first(kind: type) -> Callable[[_T], _T]:
    """A decorator of a layer that was given a split first, and takes ``(action, *, split=...)`` now.

    Args:
        kind: The type of splits; they know their ``action``.
    """

    def decorate(cls: _T) -> _T:
        initialize = cls.__init__  # type: ignore[misc]

        @functools.wraps(initialize)
        def call(self: Any, *args: Any, **kwargs: Any) -> None:
            first, *rest = args or (kwargs.get("action", kwargs.get("split")),)
            if isinstance(first, kind) and (args or "action" not in kwargs or kwargs["action"] is first):
                name = cls.__name__
                warn_of(f"{name}(split, ...)", now=f"{name}(action, ..., split=split)", what="form")
                kwargs = {**kwargs, "action": first.action, "split": first}  # type: ignore[attr-defined]
                args = (kwargs.pop("action"), *rest)
            initialize(self, *args, **kwargs)

        cls.__init__ = call  # type: ignore[misc]
        return cls

    return decorate


def flag_is_a_function(**functions: Callable[..., Any]) -> Callable[[_F], _F]:
    """A decorator of a function that had flags under which it does what another function does now.

    Args:
        functions: The names of the flags, and the functions.

    Example:
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

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            chosen: Callable[..., Any] = function
            for flag in functions.keys() & kwargs.keys():
                value, other = kwargs.pop(flag), functions[flag]
                name = other.__name__ if value else function.__name__
                warn_of(f"{function.__name__}(..., {flag}={value})", now=f"{name}(...)", what="form")
                chosen = other if value else chosen
            return chosen(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def converted_arguments(*names: str, convert: Callable[[Any, str], Any]) -> Callable[[_F], _F]:
    """A decorator of a function or class some of whose keyword arguments were given in another form before.

    Of a class it goes above ``@registered``, which remembers the arguments in their new form.

    Args:
        names: The arguments.
        convert: Makes today's form, from a value and the argument as it is called in warnings; None is left alone.

    Example:
        >>> @converted_arguments("angle", convert=lambda value, name: float(value))
        ... def double(*, angle):
        ...     return 2 * angle
        >>> double(angle="1.5")
        3.0
    """

    def decorate(function: _F) -> _F:
        if isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            return function
        owner = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for name in names:
                if kwargs.get(name) is not None:
                    kwargs[name] = convert(kwargs[name], f"{owner}({name}=...)")
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
