"""Old names and forms that continue to work for one minor version, with a FutureWarning that states the new one."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

__all__ = [
    "converted_arguments",
    "flag_is_a_function",
    "moved_names",
    "renamed_arguments",
    "renamed_attributes",
    "renamed_methods",
    "split_first",
    "warn_of",
]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T", bound=type)

_PACKAGE = __name__.partition(".")[0]


def warn_of(old: str, *, now: str, what: str = "name") -> None:
    """Warn that an old name or form has a new one, at the line of code outside the package that uses it.

    Args:
        old: The old code.
        now: The new code.
        what: The kind of what is old, "name" or "form".

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_of("root(x)", now="sqrt(x)", what="form")
        >>> str(caught[0].message)
        'root(x) is sqrt(x) now; the old form goes with the next minor version'
    """
    frame, level = sys._getframe(1), 2
    while _passes_on(frame.f_globals.get("__name__", "")) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    text = f"{old} is {now} now; the old {what} goes with the next minor version"
    warnings.warn(text, FutureWarning, stacklevel=level)


def _passes_on(module: str) -> bool:
    """Whether a call from a module passes on what was written elsewhere: one of this package, or torch's Module."""
    return f"{module}.".startswith((f"{_PACKAGE}.", "torch.nn.modules.module."))


def moved_names(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module for names that are now elsewhere.

    Args:
        module: The ``__name__`` of the module.
        homes: Old name -> new place, as "package.module:name"; without ":name" the name is unchanged.

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
    """Decorate a function or class so that it still accepts the old names of keyword arguments, given as ``old="new"``.

    On a class it goes above ``@registered``, which remembers the arguments under their new names.

    Args:
        names: Old name -> new name.

    Raises:
        TypeError: When called, if an argument is given under both names.

    Example:
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

    return functools.partial(_wrapped, around=around)


def _wrapped(target: _F, *, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> _F:
    """The function, or the class with the constructor, that ``around`` makes of the present one."""
    if isinstance(target, type):
        owner: Any = target
        owner.__init__ = functools.wraps(owner.__init__)(around(owner.__init__))
        return target
    return cast(_F, functools.wraps(target)(around(target)))


def renamed_attributes(**names: str) -> Callable[[_T], _T]:
    """Decorate a class so that it still has the old names of attributes or methods, given as ``old="new"``.

    Args:
        names: Old name -> new name.

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


def split_first(kind: type[Any]) -> Callable[[_T], _T]:
    """Decorate a layer that took a split as its first argument, and now takes ``(action, *, split=...)``.

    Args:
        kind: The type of splits, which have an attribute ``action``.

    Example:
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

    return functools.partial(_wrapped, around=around)


def flag_is_a_function(**functions: Callable[..., Any]) -> Callable[[_F], _F]:
    """Decorate a function so that it still accepts flags for which there are functions of their own now.

    Args:
        functions: The name of each flag, and the function.

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

    return functools.partial(_wrapped, around=around)


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

    return functools.partial(_wrapped, around=around)
