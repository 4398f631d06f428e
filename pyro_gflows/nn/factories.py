"""Factories: functions and classes that make a module from actions, by which layers are given their parts."""

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
    """A factory that returns one existing module.

    It serves to put an existing module into a layer. A saved flow also describes the parts of its layers by it, since
    the factory that made them is code, which a file does not contain.

    Args:
        module: The module; each layer needs one of its own.

    Raises:
        TypeError: If the argument is not a module.
        ValueError: When called, if the module is for other actions.

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
        """The module, if it is for these actions."""
        # transformers know for which action they are; most modules do not
        require: Any = getattr(self.module, "require", None)
        if require is not None:
            require(*actions)
        return self.module


@registered
class MadeInTurn:
    """A factory that returns existing modules, one after the other, for layers with several parts.

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
        """The next module, if it is for these actions; the last module is followed by the first."""
        make = self.factories[self._calls % len(self.factories)]
        self._calls += 1
        return make(*actions)


class Keywords:
    """Keywords for the part that a layer makes by default: the meaning of the old form ``network={...}``.

    Args:
        keywords: The keywords by name.
    """

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self.keywords = dict(keywords)

    def __call__(self, *actions: LinearAction) -> nn.Module:
        raise TypeError(f"keywords {self.keywords} alone make no module; a layer adds them to its own")


def from_keywords(
    how: Callable[..., Any] | None, default: Callable[..., Any], **defaults: Any
) -> Callable[..., nn.Module]:
    """The factory ``how``; if it is None or in the old form, ``default`` with keywords.

    Args:
        how: The factory, or keywords in the old form, or None.
        default: The default factory.
        defaults: Keywords of the default factory, which those in ``how`` replace.
    """
    if how is None or isinstance(how, Keywords):
        return functools.partial(default, **{**defaults, **(how.keywords if how is not None else {})})
    return how


def network_from(
    how: Conditioner | None, action_in: LinearAction, action_out: LinearAction, **defaults: Any
) -> nn.Module:
    """The network that a factory makes, or the default network.

    Args:
        how: The factory, or None.
        action_in: How the group acts on the input.
        action_out: How the group acts on the output.
        defaults: Keywords of :func:`~pyro_gflows.nn.conditioner`, which makes the default network.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.regular("C4")
        >>> len(network_from(None, action, action, width=2, depth=3).layers)
        4
    """
    return from_keywords(_as_factory(how, "network_from(how=...)"), conditioner, **defaults)(action_in, action_out)


def takes_factories(*names: str) -> Callable[[Any], Any]:
    """Decorate a layer, or a function that makes layers, some of whose arguments are factories.

    For one minor version such an argument may still be a module or a dictionary of keywords, with a FutureWarning.

    Args:
        names: The names of these keyword arguments.

    Raises:
        TypeError: When called, if such an argument is not a factory.

    Example:
        >>> @takes_factories("network")
        ... def hidden_layers(*, network=None):
        ...     action = VectorAction.plane("D4")
        ...     return len(network(action, action).layers) - 1
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.nn import EquivariantMLP
        >>> hidden_layers(network=EquivariantMLP)
        2
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
