"""Descriptions of flows in the formats of earlier versions, converted to the present format step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

__all__ = [
    "FORMAT",
    "RENAMED",
    "RENAMED_ARGUMENTS",
    "RENAMED_WEIGHTS",
    "migrate",
    "migrated_weights",
    "migration",
    "replace_class",
]

_V = TypeVar("_V")

FORMAT = 4
"""The format that this version writes."""

Step = Callable[[Any, str], Any]
_STEPS: dict[int, Step] = {}

RENAMED: dict[int, dict[str, str]] = {
    2: {
        "DequantisedFlow": "DequantizedFlow",
        "GreyLevels": "GrayLevels",
        "GreyScale": "GrayScale",
        "MatrixExponential": "MatrixScale",
        "VariationalDequantiser": "VariationalDequantizer",
    }
}
"""For each format, the classes with another name in the next format, old name -> new; no other code knows old names."""

_LIMITED = ("ElementwiseAffine", "ElementwiseSpline", "GLinear", "IrrepScale", "MatrixScale")
RENAMED_ARGUMENTS: dict[int, dict[str, dict[str, str]]] = {
    2: {
        **{name: {"cap": "max_log_scale"} for name in _LIMITED},
        "DequantizedFlow": {"dequantiser": "dequantizer"},
        "EventFormat": {"grey": "gray"},
        "GCoupling": {"moved": "transformed"},
        "GMonotone": {"branch": "contraction"},
        "GResidual": {"branch": "contraction"},
        "GrayLevels": {"centre": "center"},
        "ImageAction": {"channels": "copies"},
        "OffGridAction": {"channels": "copies"},
    }
}
"""For each format, the arguments with another name in the next format, by the new name of their class."""

RENAMED_WEIGHTS = {"centre": "center", "dequantiser": "dequantizer"}
"""Parts of the names of weights in files of any format, old -> new."""


def migrate(flow: Any, version: int | None, *, source: str) -> Any:
    """The description of a flow in the present format.

    Args:
        flow: A description that ``EquivariantFlow.config`` gave, as JSON data.
        version: The format of the file that it comes from; None if the file does not say.
        source: The name of the file, for warnings.

    Raises:
        ValueError: If no version of the package up to this one wrote that format.
    """
    if version is None or version not in range(1, FORMAT + 1):
        raise ValueError(
            f"{source} has format {version!r}, expected one from 1 to {FORMAT}; a file of a later version needs that "
            "version"
        )
    for step in range(version, FORMAT):
        flow = _renamed(flow, RENAMED.get(step, {}))
        for name, arguments in RENAMED_ARGUMENTS.get(step, {}).items():
            flow = replace_class(flow, name, functools.partial(_with_arguments, names=arguments))
        if step in _STEPS:
            flow = _STEPS[step](flow, source)
    return flow


def migrated_weights(weights: Mapping[str, _V], wanted: Collection[str]) -> dict[str, _V]:
    """Weights by the names that a module has for them now.

    Args:
        weights: The weights in a file, by name.
        wanted: The names of the weights of the module; a weight whose name is among them keeps it.
    """

    def name_now(name: str) -> str:
        new = ".".join(RENAMED_WEIGHTS.get(part, part) for part in name.split("."))
        return new if name not in wanted and new in wanted else name

    return {name_now(name): value for name, value in weights.items()}


def _with_arguments(node: dict[str, Any], *, names: Mapping[str, str]) -> dict[str, Any]:
    return {**node, "arguments": {names.get(name, name): value for name, value in node["arguments"].items()}}


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """A description with the new names of classes, of objects as well as of types that are arguments."""
    if isinstance(node, list):
        return [_renamed(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    if "dict" in node:  # a user's own keys, whatever they are called
        return {"dict": {key: _renamed(item, names) for key, item in node["dict"].items()}}
    inner = {key: _renamed_values(item, names) if key == "arguments" else item for key, item in node.items()}
    return {key: names.get(item, item) if key in ("class", "type") else item for key, item in inner.items()}


def _renamed_values(arguments: Any, names: Mapping[str, str]) -> Any:
    return {key: _renamed(item, names) for key, item in arguments.items()} if isinstance(arguments, dict) else arguments


def migration(version: int) -> Callable[[Step], Step]:
    """Decorate a function that converts descriptions from one format to the next.

    It serves changes beyond new names of classes, and is written beside the class that it concerns. The function takes
    a description, in which classes have their new names already, and the name of the file, and returns the new
    description.

    Args:
        version: The format from which the function converts.
    """

    def add(step: Step) -> Step:
        _STEPS[version] = step
        return step

    return add


def replace_class(node: Any, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """JSON data in which every description of an object of a class is changed.

    Args:
        node: JSON data.
        name: The name of the class.
        change: A function from the old description of an object to the new one.
    """
    if isinstance(node, list):
        return [replace_class(item, name, change) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {key: replace_class(item, name, change) for key, item in node.items()}
    return change(inner) if inner.get("class") == name else inner
