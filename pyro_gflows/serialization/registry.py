"""Objects that can be described as JSON and rebuilt from it, without unpickling anything.

A class takes part by the decorator ``@registered``. Its instances then remember the arguments with which they were
built, :func:`describe` converts them into plain JSON data, and :func:`build` makes an equal object (with new weights)
from that data.

Some arguments have values that only the instance knows: a default may be computed, or change with the weights that are
loaded. A class with such arguments is a :class:`ComputesArguments`. If a class gains an argument whose default would
change the meaning of older descriptions, it names the argument in the class attribute ``described_before``, with a
function that makes the value for descriptions without the argument. An object with that value is described without it.

The ``__new__`` of a registered class may make objects of a private subclass, chosen by the arguments (a variant). The
class attribute ``described_as`` of the variant is the registered class, under whose name the objects are described.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

__all__ = ["ComputesArguments", "build", "describe", "registered", "registered_classes", "same_description"]

_CLASSES: dict[str, type] = {}
_ARGUMENTS = "_registry_arguments"
_T = TypeVar("_T", bound=type)


@runtime_checkable
class ComputesArguments(Protocol):
    """The type of a class that knows the present values of some of its arguments, which :func:`describe` then writes.

    The weights of an object may mean something only together with such values. :func:`describe` writes them in place of
    the given arguments, so that nothing is computed anew when the description is read.

    Example:
        >>> @registered
        ... class Window:
        ...     def __init__(self, *, size=None):
        ...         self.size = 8 if size is None else size
        ...     def computed_arguments(self):
        ...         return {"size": self.size}
        >>> isinstance(Window(), ComputesArguments), describe(Window())
        (True, {'class': 'Window', 'arguments': {'size': 8}})
    """

    def computed_arguments(self) -> dict[str, Any]:
        """The names of those arguments, with their values."""
        ...


def registered(cls: _T) -> _T:
    """Decorate a class so that :func:`describe` can write its objects as JSON and :func:`build` can rebuild them.

    A layer of your own needs this for flows that contain it to be saved. The constructor then remembers its arguments.

    Args:
        cls: The class.

    Raises:
        ValueError: If another class of the same name is registered.

    Example:
        >>> @registered
        ... class Shift:
        ...     def __init__(self, by):
        ...         self.by = by
        >>> build(describe(Shift(2.0))).by
        2.0
    """
    known = _CLASSES.get(cls.__name__)
    if known is not None and known.__qualname__ + known.__module__ != cls.__qualname__ + cls.__module__:
        raise ValueError(f"a class named {cls.__name__!r} is registered already ({known}); choose another name")
    owner: Any = cls
    initialize = owner.__init__
    signature = inspect.signature(initialize)

    @functools.wraps(initialize)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        if _public_class(type(self)) is cls:
            bound = signature.bind(self, *args, **kwargs)
            # arguments that the instance computes are left out, since a function among them could not be pickled
            computed = _computed(self, signature)
            flat = _flatten(signature, bound)
            # written to __dict__, so that arguments that are modules are not registered as children a second time
            self.__dict__[_ARGUMENTS] = {name: value for name, value in flat.items() if name not in computed}

    owner.__init__ = wrapper
    _CLASSES[cls.__name__] = cls
    return cls


def _public_class(cls: type) -> type:
    """The class under whose name objects of a class are described."""
    public: type = cls.__dict__.get("described_as", cls)
    return public


def _computed(value: Any, signature: inspect.Signature) -> dict[str, Any]:
    """The computed arguments that the constructor takes; that of a subclass may decide about some of them itself."""
    if not isinstance(value, ComputesArguments):
        return {}
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    computed = value.computed_arguments()
    return {name: item for name, item in computed.items() if takes_all or name in signature.parameters}


def _described_before(cls: type) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = getattr(cls, "described_before", {})
    return found


def _flatten(signature: inspect.Signature, bound: inspect.BoundArguments) -> dict[str, Any]:
    arguments = dict(list(bound.arguments.items())[1:])
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    return arguments


def registered_classes() -> dict[str, type]:
    """All classes that :func:`build` can make, by name.

    Example:
        >>> import pyro_gflows
        >>> registered_classes()["GActNorm"] is pyro_gflows.GActNorm
        True
    """
    return dict(_CLASSES)


def describe(value: Any) -> Any:
    """Plain JSON data from which :func:`build` makes an equal object.

    Args:
        value: An object of a registered class, a registered class, a tensor, a plain value, or a list or dict of these.

    Raises:
        TypeError: If an object is of a class that is not registered.

    Example:
        >>> from pyro_gflows.spaces import Euclidean
        >>> describe(Euclidean((3,)))
        {'class': 'Euclidean', 'arguments': {'event_shape': [3]}}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, torch.Tensor):
        return {"tensor": value.detach().cpu().tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: describe(item) for key, item in value.items()}}
    if isinstance(value, type) and _CLASSES.get(value.__name__) is value:
        return {"type": value.__name__}
    cls = _public_class(type(value))
    if _CLASSES.get(cls.__name__) is cls and _ARGUMENTS in value.__dict__:
        given = value.__dict__[_ARGUMENTS]
        owner: Any = cls
        computed = _computed(value, inspect.signature(owner.__init__))
        arguments = {name: describe(item) for name, item in {**given, **computed}.items()}
        for name, make in _described_before(cls).items():
            if arguments.get(name) == describe(make()):
                del arguments[name]
        return {"class": cls.__name__, "arguments": arguments}
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} is not registered, so it cannot be described as JSON; "
        "decorate the class with pyro_gflows.registered, or build the flow in code and save its weights with "
        "flow.state_dict() and flow.load_state_dict(...)"
    )


def same_description(first: Any, second: Any) -> bool:
    """Whether two descriptions are of equal objects; floats that differ by rounding only count as equal.

    Two machines may round differently.

    Args:
        first: A description.
        second: A description.

    Example:
        >>> same_description({"bound": [0.1 + 0.2]}, {"bound": [0.3]})
        True
    """
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same_description(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_description, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return first == second or abs(first - second) <= 1e-11 * max(1.0, abs(first))
    return bool(first == second)


def build(description: Any) -> Any:
    """The object of a description that :func:`describe` gave, with new weights.

    Args:
        description: JSON data.

    Raises:
        ValueError: If the description names an unknown class, or is not one that :func:`describe` wrote.

    Example:
        >>> from pyro_gflows.spaces import Euclidean
        >>> build(describe(Euclidean((3,))))
        Euclidean(3)
    """
    if isinstance(description, list):
        return [build(item) for item in description]
    if not isinstance(description, dict):
        return description
    if "tensor" in description:
        dtype = getattr(torch, str(description.get("dtype")), None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"damaged description: expected the dtype of a tensor, got {description.get('dtype')!r}")
        return torch.tensor(description["tensor"], dtype=dtype)
    if "dict" in description:
        return _build_each(description["dict"])
    name = description.get("class", description.get("type"))
    if not isinstance(name, str):
        raise ValueError(f"damaged description: expected the name of a class, got {name!r}")
    if name not in _CLASSES:
        raise ValueError(
            f"{name!r} is not registered; import the module that defines it first, or build the flow in code and load "
            "its weights with flow.load_state_dict(...)"
        )
    if "type" in description:
        return _CLASSES[name]
    given = _build_each(description.get("arguments"))
    before = {key: make() for key, make in _described_before(_CLASSES[name]).items() if key not in given}
    return _CLASSES[name](**given, **before)


def _build_each(items: Any) -> dict[str, Any]:
    if not isinstance(items, dict):
        raise ValueError(f"damaged description: expected names and values, got {items!r}")
    return {name: build(item) for name, item in items.items()}
