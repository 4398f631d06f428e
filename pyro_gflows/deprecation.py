"""Old names that go on working for one minor version, with a FutureWarning that says the new one."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ["moved_names", "renamed_arguments"]

_F = TypeVar("_F", bound=Callable[..., Any])


def moved_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module some of whose names are elsewhere now.

    Args:
        module: the module's ``__name__``.
        homes: old name -> where it is now, as "package.module:name"; without ":name" it is called as before.

    Example:
        >>> __getattr__ = moved_names("old", {"root": "math:sqrt"})
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     __getattr__("root")(4.0), str(caught[0].message)
        (2.0, 'old.root is math.sqrt now; the old name goes with the next minor version')
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
    """A decorator of a function or method some of whose keyword arguments have new names: ``old="new"``.

    Raises:
        TypeError: (when called) an argument comes under both its names.

    Example:
        >>> @renamed_arguments(colour="color")
        ... def paint(*, color):
        ...     return color
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     paint(colour="red"), str(caught[0].message)
        ('red', 'paint(colour=...) is paint(color=...) now; the old name goes with the next minor version')
    """

    def decorate(function: _F) -> _F:
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
