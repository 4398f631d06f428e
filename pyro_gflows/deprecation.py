"""Old names that go on working for one minor version, with a FutureWarning that says the new one."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ["moved_names", "renamed_arguments", "renamed_attributes"]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T", bound=type)


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
        warnings.warn(
            f"{module}.{name} is {home}.{new or name} now; the old name goes with the next minor version",
            FutureWarning,
            stacklevel=2,
        )
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
                warnings.warn(
                    f"{name}({old}=...) is {name}({new}=...) now; the old name goes with the next minor version",
                    FutureWarning,
                    stacklevel=2,
                )
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
    warnings.warn(
        f"{name}.{old} is {name}.{new} now; the old name goes with the next minor version", FutureWarning, stacklevel=2
    )
    return getattr(owner, new)
