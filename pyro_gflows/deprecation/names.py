"""Old names of what is in a module, and of arguments, attributes and methods."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pyro_gflows.deprecation.warning import warn_of
from pyro_gflows.deprecation.wrapping import wrapped

__all__ = ["moved_names", "renamed_arguments", "renamed_attributes", "renamed_methods"]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T", bound=type)


def moved_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module for names that are now elsewhere.

    Args:
        module: The ``__name__`` of the module.
        homes: Old name -> new place, as "package.module:name"; without ":name" the name is unchanged.

    Example:
        >>> import warnings
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
    """Decorate a function or class so that it still accepts the old names of keyword arguments, given as ``old="new"``.

    On a class it goes above ``@registered``, which remembers the arguments under their new names.

    Args:
        names: Old name -> new name.

    Raises:
        TypeError: When called, if an argument is given under both names.

    Example:
        >>> import warnings
        >>> @renamed_arguments(count="n")
        ... def double(*, n):
        ...     return 2 * n
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # double(count=...) is double(n=...) now; ...
        ...     double(count=3)
        6
    """

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__qualname__.removesuffix(".__init__")

        def call(*args: Any, **kwargs: Any) -> Any:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"{name} got both {new!r} and {old!r}, its old name; give {new!r} alone")
                warn_of(f"{name}({old}=...)", now=f"{name}({new}=...)")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return functools.partial(wrapped, around=around)


def renamed_attributes(**names: str) -> Callable[[_T], _T]:
    """Decorate a class so that it still has the old names of attributes or methods, given as ``old="new"``.

    Args:
        names: Old name -> new name.

    Example:
        >>> import warnings
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
            get, put = (functools.partial(function, old=old, new=new) for function in (_renamed, _put_renamed))
            setattr(cls, old, property(get, put, doc=""))
        return cls

    return decorate


def _renamed(owner: Any, *, old: str, new: str) -> Any:
    name = type(owner).__name__
    warn_of(f"{name}.{old}", now=f"{name}.{new}")
    return getattr(owner, new)


def _put_renamed(owner: Any, value: Any, *, old: str, new: str) -> None:
    name = type(owner).__name__
    warn_of(f"{name}.{old}", now=f"{name}.{new}")
    setattr(owner, new, value)


def renamed_methods(**names: str) -> Callable[[_T], _T]:
    """Decorate a base class whose subclasses write methods that had other names before, given as ``old="new"``.

    A method that a subclass still writes under its old name is used as the new one. Calls by the old name work too,
    also those by ``super()``.

    Args:
        names: Old name -> new name; the base class has methods with the new names.

    Example:
        >>> import warnings
        >>> @renamed_methods(mass="weight")
        ... class Stone:
        ...     def weight(self):
        ...         return 1
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # Pebble.mass is Pebble.weight now; ...
        ...     class Pebble(Stone):
        ...         def mass(self):
        ...             return 2
        >>> Pebble().weight()
        2
    """

    def decorate(cls: _T) -> _T:
        owner: Any = cls
        own = owner.__dict__.get("__init_subclass__")

        def hook(subclass: type[Any], /, **kwargs: Any) -> None:
            if own is not None:
                own.__func__(subclass, **kwargs)
            else:
                super(owner, subclass).__init_subclass__(**kwargs)
            _serve_old_methods(subclass, names)

        owner.__init_subclass__ = classmethod(hook)
        _serve_old_methods(cls, names)
        return cls

    return decorate


def _serve_old_methods(cls: type, names: Mapping[str, str]) -> None:
    for old, new in names.items():
        # a class with the new name gets the old one here, so the first with either of them says which is younger
        first = next(vars(base) for base in cls.__mro__ if new in vars(base) or old in vars(base))
        if new not in first:
            warn_of(f"{cls.__name__}.{old}", now=f"{cls.__name__}.{new}")
            setattr(cls, new, first[old])
        elif new in vars(cls) and old not in vars(cls):
            setattr(cls, old, _by_old_name(vars(cls)[new], old=f"{cls.__name__}.{old}", new=f"{cls.__name__}.{new}"))


def _by_old_name(method: Callable[..., Any], *, old: str, new: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        warn_of(old, now=new)
        return method(self, *args, **kwargs)

    return call
