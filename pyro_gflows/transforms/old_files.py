"""Layers in files of format 2, in which the action was part of the split, and modules were not made by factories."""

from __future__ import annotations

import functools
from typing import Any

from pyro_gflows.serialization.migrations import migration, replace_class
from pyro_gflows.serialization.registry import build

__all__: list[str] = []

_OF_A_SPLIT = ("GAutoregressive", "GCoupling", "GInverseAutoregressive", "GSplit")
# the layers with a network, and the size of their default network
_BY_NETWORK = {
    "GAffine": {"width": 16, "depth": 1},
    "GCoupling": {"width": 16, "depth": 2},
    "GSplit": {"width": 16, "depth": 2},
}
_DEFAULT_NETWORKS = ("EquivariantCNN", "EquivariantMLP")


@migration(2)
def _actions_first_and_factories(flow: Any, source: str) -> Any:
    """From format 2 to 3: the action is an argument beside the split, and factories make transformers and networks."""
    for name in _OF_A_SPLIT:
        flow = replace_class(flow, name, _with_action)
    for name, default in _BY_NETWORK.items():
        flow = replace_class(flow, name, functools.partial(_with_factories, default=default))
    return flow


def _with_action(layer: dict[str, Any]) -> dict[str, Any]:
    arguments = dict(layer["arguments"])
    if "action" not in arguments["split"]["arguments"]:  # a split of the user's own, which knows its action once built
        split = arguments.pop("split")
        return {**layer, "arguments": {"action": split, **arguments}}
    return {**layer, "arguments": {"action": arguments["split"]["arguments"]["action"], **arguments}}


def _with_factories(layer: dict[str, Any], *, default: dict[str, int]) -> dict[str, Any]:
    arguments = dict(layer["arguments"])
    transformer, network = arguments.get("transformer"), arguments.get("network")
    if transformer is not None and _is_default_transformer(transformer):
        transformer = None
    if network is not None and (size := _default_size(network)) is not None:
        own = {name: arguments.get(name, value) for name, value in default.items()}
        if size == own or not arguments.keys() & own.keys():
            arguments, network = {**arguments, **size}, None
    parts = {"transformer": _made(transformer), "network": _made(network)}
    return {**layer, "arguments": {**arguments, **parts}}


def _made(module: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if module is None else {"class": "Made", "arguments": {"module": module}}


def _is_default_transformer(description: dict[str, Any]) -> bool:
    """Whether a layer would make this transformer by default, so that it is left out."""
    if description.get("arguments", {}).keys() != {"action"}:
        return False
    if description["class"] == "IrrepScale":
        return not build(description["arguments"]["action"]).is_signed_permutation
    return bool(description["class"] == "ElementwiseAffine")


def _default_size(description: dict[str, Any]) -> dict[str, Any] | None:
    """Width and depth of a default network; None for a network with other arguments."""
    arguments = description.get("arguments", {})
    if description.get("class") not in _DEFAULT_NETWORKS:
        return None
    if arguments.keys() != {"action_in", "action_out", "width", "depth"}:
        return None
    return {"width": arguments["width"], "depth": arguments["depth"]}
