"""IrrepSplit: an event in a basis of irreducible blocks, and the blocks divided among parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.actions.splits.base import Split, balanced_halves
from pyro_gflows.actions.splits.irrep_basis import IrreducibleBlock, along_fields, block_of, irreducible_blocks
from pyro_gflows.groups.canonical_basis import Nearly
from pyro_gflows.numerics.constants import kept_in
from pyro_gflows.serialization.registry import registered

__all__ = ["IrrepSplit", "isotypic_split"]


@registered
class IrrepSplit(Split):
    r"""A split of vectors, or of the channels of images, into irreducible blocks.

    An irreducible block is a smallest subspace that every group element maps to itself (an irreducible representation,
    or irrep), such as the mean of permuted coordinates. This split also works where the group mixes all coordinates, so
    that no list of coordinates is mapped to itself. A part is :math:`x_i = Q_i x`, where the rows of :math:`Q_i` are
    the bases of its blocks; Q is orthogonal.

    On squeezed images, the default parts are the mean of each field and its details. The bases are chosen so that the
    group permutes the entries of the parts up to signs, where the irreps allow it.

    Args:
        action: How the group acts on events; any group.
        parts: Lists of the indices of irreducible blocks, which are counted with the invariant blocks first and then by
            dimension. By default, vectors are split into two parts of about equal size, and images into the invariant
            blocks and the others.
        blocks: Orthonormal rows of each block, shape ``(d, sum of field sizes)``, float64. By default they are
            computed. Weights of layers refer to these rows, so the description of a saved flow holds them.

    Raises:
        TypeError: The action is not a LinearAction.
        ValueError: There is only one irreducible block; a part is empty; the lists do not hold every block once; or the
            rows of the blocks are not orthonormal, do not add up to the whole event, or span subspaces that are not
            invariant.

    Example:
        >>> from pyro_gflows.groups import QuotientRepresentation
        >>> IrrepSplit(ImageAction("D4", size=8, fields=QuotientRepresentation("D4", [0, 4])))
        IrrepSplit(ImageAction(D4 on 1 x 8 x 8: trivial) | ImageAction(D4 on 3 x 8 x 8: sign + irrep of 2 dimensions))
    """

    action: LinearAction

    def __init__(
        self,
        action: LinearAction,
        parts: Sequence[Sequence[int]] | None = None,
        *,
        blocks: Sequence[Tensor] | None = None,
    ) -> None:
        self._blocks = irreducible_blocks(_require_action(action)) if blocks is None else _checked(action, blocks)
        if len(self._blocks) == 1:
            raise ValueError(
                f"{action} is one irreducible block, so no part of it is invariant and nothing can be split; use "
                "GResidual or GRadial, which split nothing (or, on images, a mask: checkerboard_split)"
            )
        chosen = _default(action, self._blocks) if parts is None else [list(part) for part in parts]
        listed, dims = sorted(block for part in chosen for block in part), [len(block.rows) for block in self._blocks]
        if listed != list(range(len(dims))) or len(chosen) < 2 or not all(chosen):
            raise ValueError(
                f"expected at least two non-empty lists that hold every irreducible block 0..{len(dims) - 1} once "
                f"(their dimensions are {dims}), got {chosen}"
            )
        self.action = action
        self.parts = tuple(action.with_fields([self._blocks[i].representation for i in part]) for part in chosen)
        self.basis = torch.cat([self._blocks[i].rows for part in chosen for i in part])
        self._chosen = tuple(map(tuple, chosen))

    def _matrix(self, x: Tensor) -> Tensor:
        return kept_in(self._tables, (x.device, x.dtype), lambda: self.basis.to(x.device, x.dtype))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        self.action.check_event(x)
        changed = along_fields(self._matrix(x), x, self.action.event_dim)
        return changed.split([sum(part.field_sizes) for part in self.parts], -self.action.event_dim)

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        self.check_parts(parts)
        changed = torch.cat(list(parts), -self.action.event_dim)
        return along_fields(self._matrix(changed).T, changed, self.action.event_dim)

    def computed_arguments(self) -> dict[str, Any]:
        """The parts and the rows of the blocks, which are saved because weights of layers refer to them."""
        return {"parts": [list(part) for part in self._chosen], "blocks": [block.rows for block in self._blocks]}

    def _key(self) -> Any:
        return (self._chosen, Nearly(self.basis))


def isotypic_split(action: LinearAction) -> IrrepSplit:
    """The split with one part for each kind of irreducible block (irrep), which holds all blocks of that kind.

    On squeezed images, one part holds the means and the other parts hold one kind of details each.

    Args:
        action: How the group acts on events.

    Raises:
        TypeError: The action is not a LinearAction.
        ValueError: All blocks are of one kind, as under a trivial group.

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


def _require_action(action: LinearAction) -> LinearAction:
    if not isinstance(action, LinearAction):
        raise TypeError(f"expected a LinearAction to split by irreps, got {type(action).__name__}")
    return action


def _checked(action: LinearAction, rows: Sequence[Tensor]) -> list[IrreducibleBlock]:
    blocks = [block_of(_require_action(action), block) for block in rows]
    basis = torch.cat([block.rows for block in blocks])
    size = sum(action.field_sizes)
    identity = torch.eye(size, dtype=torch.float64)
    if len(basis) != size or not torch.allclose(basis @ basis.T, identity, rtol=0, atol=1e-10):
        raise ValueError(f"expected blocks whose {size} rows are orthonormal for {action}, got {len(basis)} rows")
    return blocks


def _default(action: LinearAction, blocks: list[IrreducibleBlock]) -> list[list[int]]:
    invariant = [index for index, block in enumerate(blocks) if block.is_trivial]
    others = [index for index, block in enumerate(blocks) if not block.is_trivial]
    if isinstance(action, ImageAction) and invariant and others:
        return [invariant, others]
    return balanced_halves([len(block.rows) for block in blocks])
