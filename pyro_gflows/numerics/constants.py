"""Values that are made once and kept."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["as_constants", "kept_in", "made_once", "rows_at"]

_T = TypeVar("_T")


class made_once(functools.cached_property[_T]):
    """A decorator of a method without arguments: an attribute that is computed at its first use and kept.

    It is ``functools.cached_property`` without the lock that the latter has before Python 3.12, which
    ``torch.compile`` cannot trace.

    Example:
        >>> class Circle:
        ...     @made_once
        ...     def area(self):
        ...         return 3.0
        >>> circle = Circle()
        >>> circle.area, vars(circle)
        (3.0, {'area': 3.0})
    """

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> _T: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Self | _T:
        if instance is None:
            return self
        value: _T = self.func(instance)
        # past any __setattr__ of the class; the next look-up finds it in __dict__ and does not come here
        object.__setattr__(instance, str(self.attrname), value)
        return value


@contextlib.contextmanager
def as_constants() -> Iterator[None]:
    """A context in which tensors are made outside of all autograd modes, so that a cache may keep them.

    A tensor that is made inside a transform of ``torch.func`` is an error outside of it, and a tensor that is made in
    inference mode cannot be used where gradients are recorded. Code inside this context must not read tensors of the
    surrounding call.

    Example:
        >>> kept = {}
        >>> def double(x):
        ...     with as_constants():
        ...         kept.setdefault("two", torch.tensor(2.0))
        ...     return kept["two"] * x
        >>> torch.func.vmap(torch.func.grad(double))(torch.ones(3)), double(torch.ones(2))
        (tensor([2., 2., 2.]), tensor([2., 2.]))
    """
    if torch.compiler.is_compiling():  # which has no such modes, and cannot trace their contexts
        yield
        return
    with torch._C._DisableFuncTorch(), torch.inference_mode(False), torch.no_grad():
        yield


def kept_in(tables: dict[Any, Any], key: Hashable, make: Callable[[], _T]) -> _T:
    """The constant of a key, which is made at its first use and kept in a dictionary.

    While ``torch.compile`` records, a missing constant is made as a part of the recorded code and not kept.

    Args:
        tables: The dictionary.
        key: The key, which names all that the constant depends on, such as the device.
        make: A function that makes the constant, from nothing of the surrounding call but device and dtype.

    Example:
        >>> tables = {}
        >>> kept_in(tables, "two", lambda: torch.tensor(2.0)) is kept_in(tables, "two", lambda: torch.tensor(3.0))
        True
    """
    if key in tables:
        found: _T = tables[key]
        return found
    if torch.compiler.is_compiling():
        return make()
    with as_constants():
        tables[key] = made = make()
    return made


def rows_at(table: Tensor, index: Tensor) -> Tensor:
    """The rows ``table[index]``, also under ``vmap`` with an index that is a single integer in each mapped row.

    Args:
        table: A tensor whose first dimension is indexed.
        index: Integers of any shape.

    Example:
        >>> torch.func.vmap(lambda index: rows_at(torch.eye(2), index))(torch.tensor([1, 0])).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    return table.index_select(0, index.reshape(-1)).reshape(index.shape + table.shape[1:])
