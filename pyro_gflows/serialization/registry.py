"""Objects that can be described as JSON and rebuilt from it, without unpickling anything.

A class joins with ``@registered``. Its instances then remember the arguments they were built with, :func:`describe`
turns them into plain JSON data, and :func:`build` makes an equal object (with fresh weights) from that data.

Arguments whose values are known to the instance alone (a default may be computed, or change with the weights that are
loaded) are described by :class:`ComputesArguments`. An argument that came later, with a default under which older
descriptions would mean something else, is named in the class attribute ``described_before``: its name -> what makes the
value that a description without it means. An object with that value is described as before.
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
    """A class that says itself what some of its arguments are now, since weights mean something under these only.

    :func:`describe` writes them down in place of those that were given, so that nothing is computed anew where the
    description is read.
    """

    def computed_arguments(self) -> dict[str, Any]:
        """The names of those arguments, and their values."""
        ...


def registered(cls: _T) -> _T:
    """Make the constructor of ``cls`` remember its arguments, so that :func:`describe` can write them down.

    Raises:
        ValueError: another class of the same name is registered already.
    """
    known = _CLASSES.get(cls.__name__)
    if known is not None and known.__qualname__ + known.__module__ != cls.__qualname__ + cls.__module__:
        raise ValueError(f"a class named {cls.__name__!r} is registered already ({known}); choose another name")
    initialize = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(initialize)

    @functools.wraps(initialize)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        if type(self) is cls:
            bound = signature.bind(self, *args, **kwargs)
            # in __dict__ directly: arguments that are modules must not be registered as children a second time
            # without those that the instance computes: one may be a function, which could not be pickled with it
            computed = self.computed_arguments() if isinstance(self, ComputesArguments) else {}
            flat = _flatten(signature, bound)
            self.__dict__[_ARGUMENTS] = {name: value for name, value in flat.items() if name not in computed}

    cls.__init__ = wrapper  # type: ignore[misc]
    _CLASSES[cls.__name__] = cls
    return cls


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
    """All classes that :func:`build` knows, by name."""
    return dict(_CLASSES)


def describe(value: Any) -> Any:
    """Plain JSON data from which :func:`build` makes an equal object.

    Raises:
        TypeError: ``value`` is an instance of a class that is not registered.
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
    if _CLASSES.get(type(value).__name__) is type(value) and _ARGUMENTS in value.__dict__:
        given = value.__dict__[_ARGUMENTS]
        computed = value.computed_arguments() if isinstance(value, ComputesArguments) else {}
        arguments = {name: describe(item) for name, item in {**given, **computed}.items()}
        for name, make in _described_before(type(value)).items():
            if arguments.get(name) == describe(make()):
                del arguments[name]
        return {"class": type(value).__name__, "arguments": arguments}
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} is not registered, so it cannot be described as JSON; "
        "decorate the class with pyro_gflows.registered, or build the flow in code and keep its weights with "
        "flow.state_dict() and flow.load_state_dict(...)"
    )


def same_description(first: Any, second: Any) -> bool:
    """Whether two descriptions are of equal objects: numbers that two machines round differently count as equal.

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
    """The object that :func:`describe` described, with fresh weights.

    Raises:
        ValueError: the description names an unknown class, or is not one that :func:`describe` wrote.
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
    if name not in _CLASSES:
        raise ValueError(
            f"expected one of the registered classes {sorted(_CLASSES)}, got {name!r}; import the module that "
            "registers it first, or build the flow in code and load its weights with flow.load_state_dict(...)"
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
