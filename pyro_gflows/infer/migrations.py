"""Descriptions of flows that earlier versions wrote, brought to today's form step by step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.decomposition import irreducible_subspaces, isotypes_of, side_by_side
from pyro_gflows.actions.irrep_basis import block_rows, monomial_basis
from pyro_gflows.registry import build, describe

__all__ = ["FORMAT", "RENAMED", "eigenvector_blocks", "migrate"]

FORMAT = 2
"""The format that is written today."""

RENAMED: dict[int, dict[str, str]] = {}
"""By format: the classes that have another name in the next one, old name -> new; no other code knows old names."""


def migrate(flow: Any, version: int | None, *, source: str) -> Any:
    """The description of a flow in today's form.

    Args:
        flow: what ``EquivariantFlow.config`` gave, as JSON data.
        version: the format of the file it comes from; None where the file does not say.
        source: what warnings call the file.

    Raises:
        ValueError: a format that no version up to this one wrote.
    """
    if version is None or version not in range(1, FORMAT + 1):
        raise ValueError(
            f"{source} has format {version!r}, expected one from 1 to {FORMAT}; a file of a later version needs that "
            "version"
        )
    for step in range(version, FORMAT):
        flow = _renamed(flow, RENAMED.get(step, {}))
        if step in _STEPS:
            flow = _STEPS[step](flow, source)
    return flow


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """The description with the new names of classes, of objects as of types that are arguments."""
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


def _blocks_beside_weights(flow: Any, source: str) -> Any:
    """From format 1, which did not hold the basis of an IrrepSplit: computed anew, as the version that wrote it did."""
    recomputed = False

    def with_blocks(node: dict[str, Any]) -> dict[str, Any]:
        nonlocal recomputed
        arguments = dict(node["arguments"])
        blocks = eigenvector_blocks(build(arguments["action"]))
        recomputed = recomputed or any(not _is_unit(block) for block in blocks)
        return {**node, "arguments": {**arguments, "blocks": describe(blocks)}}

    migrated = _replace(flow, "IrrepSplit", with_blocks)
    if recomputed:
        warnings.warn(
            f"{source} was written by a version that did not save the basis in which an IrrepSplit splits its events, "
            "so the basis was computed anew. On the machine that wrote the file the flow is the one that was saved; "
            "with another processor or mathematics library it may be another density. Compare log-probabilities that "
            "you know, then save the flow again: the basis is saved with it from now on.",
            UserWarning,
            stacklevel=4,
        )
    return migrated


def eigenvector_blocks(action: LinearAction) -> list[Tensor]:
    """The rows of the irreducible blocks of an action's fields as format 1 had them.

    Their bases are eigenvectors; those of a degenerate eigenvalue are decided by rounding, so they are those of the
    version that wrote the file only on a machine that computes alike.
    """
    parts = [isotypes_of(field, irreducible_subspaces(field)) for field in action.fields]
    return [
        rows
        for isotype in side_by_side(parts, action.field_sizes)
        for rows in block_rows(action, isotype, monomial_basis(isotype, action, _eigenvectors), _largest)
    ]


def _eigenvectors(involutions: Tensor) -> Iterator[Tensor]:
    yield from torch.eye(involutions.shape[-1], dtype=torch.float64)
    yield from torch.linalg.eigh(involutions)[1].mT.flatten(0, 1)


def _largest(sizes: Tensor) -> int:
    return int(sizes.argmax())


def _is_unit(rows: Tensor) -> bool:
    """Whether the block is a whole field, in the field's own basis."""
    return bool(((rows == 0) | (rows == 1)).all())


def _replace(node: Any, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The JSON data with every description of an object of class ``name`` changed."""
    if isinstance(node, list):
        return [_replace(item, name, change) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {key: _replace(item, name, change) for key, item in node.items()}
    return change(inner) if inner.get("class") == name else inner


# by format: what else changes on the way to the next one, in descriptions that have the new names already
_STEPS: dict[int, Callable[[Any, str], Any]] = {1: _blocks_beside_weights}
