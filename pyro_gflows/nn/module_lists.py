"""Reading an nn.ModuleList whose entries are all of one known type."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

__all__ = ["each"]

_T = TypeVar("_T")


def each(modules: nn.ModuleList, kind: type[_T]) -> list[_T]:
    """The modules of a list whose entries are all of one type, with that type.

    ``nn.ModuleList`` itself knows only that its entries are modules.

    Args:
        modules: The list.
        kind: The type of all its entries.

    Raises:
        TypeError: If an entry is of another type.

    Example:
        >>> [layer.out_features for layer in each(nn.ModuleList([nn.Linear(2, 3)]), nn.Linear)]
        [3]
    """
    found: list[_T] = [module for module in modules if isinstance(module, kind)]
    if len(found) < len(modules):
        others = sorted({type(module).__name__ for module in modules if not isinstance(module, kind)})
        raise TypeError(f"expected modules of type {kind.__name__}, got {', '.join(others)}")
    return found
