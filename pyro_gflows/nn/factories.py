"""Factories: functions and classes that make a module from actions, which is how layers are told of their parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from torch import nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.deprecation import converted_arguments, warn_of
from pyro_gflows.nn.conditioners import Conditioner, conditioner
from pyro_gflows.serialization.registry import registered

__all__ = ["Keywords", "Made", "MadeInTurn", "from_keywords", "network_from", "takes_factories"]

_M = TypeVar("_M", bound=nn.Module)


@registered
class Made(Generic[_M]):
    """The factory that gives one module, which was made before.

    A saved flow describes by it the parts that its layers made: the factory that made them is code, which no file
    holds. It also serves where a module that exists is to be put into a layer.

    Args:
        module: The module; each layer needs one of its own.

    Raises:
        ValueError: (when called) the module is made for other actions.

    Example:
        >>> from pyro_gflows import GCoupling, VectorAction
        >>> from pyro_gflows.nn import EquivariantMLP
        >>> action = VectorAction.plane("D4", copies=2)
        >>> plane = VectorAction.plane("D4")
        >>> network = EquivariantMLP(plane, plane.trivial_fields(1).direct_sum(plane))
        >>> GCoupling(action, network=Made(network)).network is network
        True
    """

    def __init__(self, module: _M) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"expected a module, got {type(module).__name__}")
        self.module = module

    def __call__(self, *actions: LinearAction) -> _M:
        """The module, if it is made for these actions."""
        # a transformer knows the action that it is made for; most modules do not
        require: Any = getattr(self.module, "require", None)
        if require is not None:
            require(*actions)
        return self.module


@registered
class MadeInTurn:
    """The factory that gives modules that were made before, one after the other: for layers of several parts.

    Args:
        modules: The modules, in the order of the parts.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.transforms import IrrepScale
        >>> plane, space = VectorAction.plane("O(2)"), VectorAction.trivial("O(2)")
        >>> factory = MadeInTurn([IrrepScale(plane), IrrepScale(space)])
        >>> factory(plane).action == plane, factory(space).action == space
        (True, True)
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.factories = [Made(module) for module in modules]
        self._calls = 0

    def __call__(self, *actions: LinearAction) -> nn.Module:
        """The next module, if it is made for these actions; after the last one the first again."""
        make = self.factories[self._calls % len(self.factories)]
        self._calls += 1
        return make(*actions)


class Keywords:
    """More keywords of the part that a layer makes by itself: the form that ``network={...}`` had before.

    Args:
        keywords: Names and values.
    """

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self.keywords = dict(keywords)

    def __call__(self, *actions: LinearAction) -> nn.Module:
        raise TypeError(f"a layer adds these keywords to its own, {self.keywords}; they make nothing alone")


def from_keywords(
    how: Callable[..., Any] | None, default: Callable[..., Any], **defaults: Any
) -> Callable[..., nn.Module]:
    """The factory itself; without one, ``default`` with these keywords (and those that were given in the old form)."""
    if how is None or isinstance(how, Keywords):
        return functools.partial(default, **{**defaults, **(how.keywords if how is not None else {})})
    return how


def network_from(
    how: Conditioner | None, action_in: LinearAction, action_out: LinearAction, **defaults: Any
) -> nn.Module:
    """The network that a factory makes, as it starts; without one, the default network with these keywords.

    Args:
        how: The factory, or None.
        action_in: How the group acts on the input.
        action_out: How it acts on the output.
        defaults: Keywords of :func:`~pyro_gflows.nn.conditioner`.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.regular("C4")
        >>> len(network_from(None, action, action, width=2, depth=3).layers)
        4
    """
    return from_keywords(_as_factory(how, "network_from(how=...)"), conditioner, **defaults)(action_in, action_out)


def takes_factories(*names: str) -> Callable[[Any], Any]:
    """A decorator of a layer, or of a function that makes layers: these arguments are factories.

    A module, and a dictionary of keywords, are accepted as they were before, with a FutureWarning.

    Args:
        names: The keyword arguments.
    """
    return converted_arguments(*names, convert=_as_factory)


def _as_factory(value: Any, where: str) -> Any:
    if isinstance(value, nn.Module):
        factory = f"{where.replace('...', 'factory')}, a function or class that makes the module from its actions,"
        warn_of(where.replace("...", "module"), now=factory, what="form")
        return Made(value)
    if isinstance(value, Mapping):
        partial = "functools.partial(the function or class with these keywords, ...)"
        warn_of(where.replace("...", "{...}"), now=where.replace("...", partial), what="form")
        return Keywords(value)
    if value is not None and not callable(value):
        raise TypeError(
            f"expected {where} to be a factory, a function or class that makes a module from its actions, got "
            f"{type(value).__name__}"
        )
    return value
