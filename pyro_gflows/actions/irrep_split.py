"""IrrepSplit: an event in a basis of irreducible blocks, and the blocks shared out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.base import GroupAction
from pyro_gflows.actions.constants import as_constants
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.irrep_basis import IrreducibleBlock, irreducible_blocks
from pyro_gflows.actions.splits import Split, balanced_halves, with_fields
from pyro_gflows.registry import registered

__all__ = ["IrrepSplit", "isotypic_split"]


@registered
class IrrepSplit(Split):
    r"""Vectors, or the channels of images, split by irreducible blocks: :math:`x_i = Q_i x` with orthogonal Q.

    On squeezed images the default is the mean of each field | its details. The bases are chosen so that the group
    permutes the entries of the parts up to signs, where the irreps allow it.

    Args:
        action: how the group moves events; any group.
        parts: lists of the numbers of irreducible blocks, counted with the invariant blocks first, then by dimension.
            Unless given: for vectors two balanced halves of every isotype; for images the invariant blocks | the rest.

    Raises:
        ValueError: there is only one irreducible block; a part is empty; the lists are no partition.

    Example:
        >>> from pyro_gflows.actions import QuotientRepresentation
        >>> IrrepSplit(ImageAction("D4", size=8, fields=QuotientRepresentation("D4", [0, 4])))
        IrrepSplit(ImageAction(D4 on 1 x 8 x 8: trivial) | ImageAction(D4 on 3 x 8 x 8: sign + irrep of 2 dimensions))
    """

    def __init__(self, action: GroupAction, parts: Sequence[Sequence[int]] | None = None) -> None:
        blocks = irreducible_blocks(_require_action(action))
        if len(blocks) == 1:
            raise ValueError(
                f"{action} is one irreducible block, so no part of it is invariant and nothing can be split; use "
                "GResidual or GRadial, which split nothing (or, on images, a mask: checkerboard_split)"
            )
        chosen = _default(action, blocks) if parts is None else [list(part) for part in parts]
        listed = sorted(block for part in chosen for block in part)
        if listed != list(range(len(blocks))) or len(chosen) < 2 or not all(chosen):
            raise ValueError(
                f"expected at least two non-empty lists that hold every irreducible block 0..{len(blocks) - 1} once "
                f"(their dimensions are {[len(block.rows) for block in blocks]}), got {chosen}"
            )
        self.action = action
        self.parts = tuple(with_fields(action, [blocks[i].representation for i in part]) for part in chosen)
        self.basis = torch.cat([blocks[i].rows for part in chosen for i in part])
        self._chosen = tuple(map(tuple, chosen))

    def _matrix(self, x: Tensor) -> Tensor:
        key = (x.device, x.dtype)
        if key not in self._tables:
            with as_constants():
                self._tables[key] = self.basis.to(x.device, x.dtype)
        return self._tables[key]

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        self.action.check_event(x)
        changed = _along_fields(self._matrix(x), x, self.action.event_dim)
        return changed.split([sum(part.field_sizes) for part in self.parts], -self.action.event_dim)

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        self.check_parts(parts)
        changed = torch.cat(list(parts), -self.action.event_dim)
        return _along_fields(self._matrix(changed).T, changed, self.action.event_dim)

    def _key(self) -> Any:
        return self._chosen


def isotypic_split(action: GroupAction) -> IrrepSplit:
    """One part for each irrep, with all of its copies: of squeezed images the means, and every kind of details.

    Raises:
        TypeError: not an action.
        ValueError: all fields hold one irrep only, as under a trivial group.

    Example:
        >>> isotypic_split(ImageAction("C4", size=2, fields="regular"))  # doctest: +NORMALIZE_WHITESPACE
        IrrepSplit(ImageAction(C4 on 1 x 2 x 2: trivial) | ImageAction(C4 on 1 x 2 x 2: sign) |
        ImageAction(C4 on 2 x 2 x 2: irrep of 2 dimensions))
    """
    copies = [isotype.multiplicity for isotype in _require_action(action).field_decomposition()]
    if len(copies) == 1:
        raise ValueError(f"{action} holds a single irrep, which leaves nothing to split; use IrrepSplit, by its copies")
    ends = list(itertools.accumulate(copies))
    return IrrepSplit(action, [list(range(end - count, end)) for end, count in zip(ends, copies, strict=True)])


def _require_action(action: GroupAction) -> GroupAction:
    if not isinstance(action, GroupAction):
        raise TypeError(f"expected a GroupAction to split by irreps, got {type(action).__name__}")
    return action


def _along_fields(matrix: Tensor, x: Tensor, event_dim: int) -> Tensor:
    if event_dim == 1:
        return x @ matrix.T
    return (matrix @ x.flatten(1 - event_dim)).unflatten(-1, x.shape[1 - event_dim :])


def _default(action: GroupAction, blocks: list[IrreducibleBlock]) -> list[list[int]]:
    invariant = [index for index, block in enumerate(blocks) if block.is_trivial]
    others = [index for index, block in enumerate(blocks) if not block.is_trivial]
    if isinstance(action, ImageAction) and invariant and others:
        return [invariant, others]
    return balanced_halves([len(block.rows) for block in blocks])
