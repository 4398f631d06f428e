"""The basis of an IrrepSplit in files of format 1, which did not save it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.actions.splits.irrep_basis import block_rows, monomial_basis
from pyro_gflows.groups.decomposition import isotypes_of, side_by_side
from pyro_gflows.groups.subspaces import irreducible_subspaces
from pyro_gflows.serialization.migrations import migrate, migration, replace_class
from pyro_gflows.serialization.registry import build, describe

__all__ = ["eigenvector_blocks"]


@migration(1)
def _blocks_beside_weights(flow: Any, source: str) -> Any:
    """From format 1: the basis of an IrrepSplit, which the file lacks, is computed as the writing version did."""
    recomputed = False

    def with_blocks(node: dict[str, Any]) -> dict[str, Any]:
        nonlocal recomputed
        arguments = dict(node["arguments"])
        blocks = eigenvector_blocks(build(migrate(arguments["action"], 2, source=source)))
        recomputed = recomputed or any(not _is_unit(block) for block in blocks)
        return {**node, "arguments": {**arguments, "blocks": describe(blocks)}}

    migrated = replace_class(flow, "IrrepSplit", with_blocks)
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
    """The rows of the irreducible blocks of an action's fields that files of format 1 refer to.

    Their bases are eigenvectors, which depend on rounding where an eigenvalue is degenerate. So they agree with the
    bases of the version that wrote the file only on a machine with the same rounding.

    Args:
        action: How the group acts on events.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> [rows.shape for rows in eigenvector_blocks(VectorAction.rows("S3"))]
        [torch.Size([1, 3]), torch.Size([2, 3])]
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
