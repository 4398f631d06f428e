"""MatrixField: a matrix whose rows and columns are permuted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_gflows.groups.row_structure import RowStructure
from pyro_gflows.groups.structured_field import StructuredField
from pyro_gflows.numerics.contrasts import contrasts, from_contrasts
from pyro_gflows.numerics.tables import take_columns, take_rows
from pyro_gflows.serialization.registry import registered

if TYPE_CHECKING:
    from pyro_gflows.groups.components import Decomposition

__all__ = ["MatrixField"]


@registered
class MatrixField(StructuredField):
    r"""A matrix whose rows and columns are permuted, as the weights between two hidden layers, or transition rates.

    A vector holds the matrix row by row: :math:`(g\,x)_{p(i)\,q(j)} = s_i\,t_j\,x_{ij}`, where p and s are those of
    the block of the rows, and q and t those of the block of the columns, which may be the same.

    Args:
        structure: The group.
        blocks: The block that permutes the rows and the block that permutes the columns.
        odd: Whether the matrix changes its sign with its rows, and with its columns.
        mean_free: Whether each row sums to 0. A vector then holds n_b - 1 coordinates of each row in the orthonormal
            basis of :class:`~pyro_gflows.guides.IsometricLogRatio`, as the rows of transition matrices in log-ratios.

    Raises:
        ValueError: There are no such blocks, or a side is odd but rows have no signs.

    Example:
        >>> field = MatrixField(RowStructure((3, 2)), (0, 1))
        >>> field, field.size
        (3 x 2 matrix of S3 x S2, 6)
    """

    def __init__(
        self,
        structure: RowStructure,
        blocks: tuple[int, int],
        *,
        odd: tuple[bool, bool] = (False, False),
        mean_free: bool = False,
    ) -> None:
        self.structure, self.group = structure, structure.group
        self.blocks, self.odd, self.mean_free = tuple(blocks), tuple(odd), mean_free
        if len(self.blocks) != 2 or any(not 0 <= block < len(structure.sizes) for block in self.blocks):
            raise ValueError(f"expected two blocks in 0..{len(structure.sizes) - 1}, got {blocks}")
        if any(self.odd) and not structure.signed:
            raise ValueError(f"an odd side changes its sign with its rows, but {self.group} only permutes rows")
        self.shape = torch.Size([structure.sizes[block] for block in self.blocks])
        if mean_free and (odd[1] or self.shape[1] < 2):
            raise ValueError("expected mean-free rows with at least 2 even columns")
        self.size = self.shape[0] * (self.shape[1] - int(mean_free))
        kinds = ("mean-free " if mean_free else "") + ("signed " if any(self.odd) else "")
        self.name = f"{kinds}{self.shape[0]} x {self.shape[1]} matrix"
        if self.blocks != (0, 1):
            self.name += f" in blocks {self.blocks[0]} and {self.blocks[1]}"

    def act(self, elements: Tensor, x: Tensor) -> Tensor:
        elements = elements.to(x.device)
        table = x.unflatten(-1, (self.shape[0], -1))
        if self.mean_free:
            table = from_contrasts(table)
        first, second = ([block] for block in self.blocks)
        if self.odd[0]:
            table = table * self.structure.signs(elements, first).to(x)[..., :, None]
        if self.odd[1]:
            table = table * self.structure.signs(elements, second).to(x)[..., None, :]
        table = take_rows(table, self.structure.permutations(elements, first).argsort(-1))
        table = take_columns(table, self.structure.permutations(elements, second).argsort(-1))
        return (contrasts(table) if self.mean_free else table).flatten(-2)

    def entries(self) -> frozenset[float]:
        if self.mean_free:
            return frozenset({math.nan})
        return frozenset({0.0, 1.0, -1.0} if any(self.odd) else {0.0, 1.0})

    def absolute(self) -> MatrixField:
        return MatrixField(self.structure, (self.blocks[0], self.blocks[1]))

    def invariant_sets(self) -> list[list[int]]:
        diagonal = [index * (self.shape[1] + 1) for index in range(self.shape[0])]
        if self.mean_free or self.blocks[0] != self.blocks[1] or self.odd[0] != self.odd[1] or self.size == 1:
            return [list(range(self.size))]
        return [diagonal, [index for index in range(self.size) if index % (self.shape[1] + 1)]]

    def isotypes(self) -> Decomposition | None:
        return None

    def _key(self) -> Any:
        return (type(self).__name__, self.structure, self.blocks, self.odd, self.mean_free)
