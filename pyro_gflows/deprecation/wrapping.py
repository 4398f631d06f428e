"""Functions around functions and constructors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["wrapped"]

_F = TypeVar("_F", bound=Callable[..., Any])


def wrapped(target: _F, *, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> _F:
    """The function, or the class with the constructor, that ``around`` makes of the present one."""
    if isinstance(target, type):
        owner: Any = target
        owner.__init__ = functools.wraps(owner.__init__)(around(owner.__init__))
        return target
    return cast(_F, functools.wraps(target)(around(target)))
