"""VectorAction: a group moving vectors, x -> rho(g) x on R^d."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.base import LinearAction
from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.groups.closure import generate_group
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.escnn_adapter import representation_data
from pyro_gflows.groups.finite import CyclicGroup, FiniteGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.representations import (
    DefiningRepresentation,
    EscnnRepresentation,
    MatrixRepresentation,
    QuotientRepresentation,
    RegularRepresentation,
    Representation,
    RowsRepresentation,
    TrivialRepresentation,
)
from pyro_gflows.numerics.blocks import block_diagonal
from pyro_gflows.numerics.constants import as_constants, rows_at
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean

__all__ = ["VectorAction"]


@registered
class VectorAction(LinearAction):
    r"""A group moving vectors by a direct sum of orthogonal representations, :math:`x \mapsto \rho(g)\,x` on R^d.

    Args:
        representations: one representation or a sequence of them, of one group; escnn representations are accepted
            (:func:`~pyro_gflows.groups.escnn_group` imports escnn so that it also works beside numpy 2).

    Raises:
        TypeError: something else was given.
        ValueError: the representations are of different groups, or none is given.

    Example:
        >>> VectorAction.plane("D8")
        VectorAction(D8 on R^2: defining)
        >>> VectorAction.regular("C4", copies=2).act(torch.tensor(1), torch.arange(8.0)).tolist()
        [3.0, 0.0, 1.0, 2.0, 7.0, 4.0, 5.0, 6.0]
    """

    def __init__(self, representations: Representation | Sequence[Representation] | Any) -> None:
        given = list(representations) if isinstance(representations, list | tuple) else [representations]
        parts = [_as_representation(part) for part in given]
        if not parts:
            raise ValueError("expected at least one representation, got none")
        if len({part.group for part in parts}) > 1:
            raise ValueError(f"expected representations of one group, got {[str(part.group) for part in parts]}")
        self.fields: tuple[Representation, ...] = tuple(parts)
        self.group = parts[0].group
        self.event_shape = torch.Size([sum(part.size for part in parts)])
        # of an instance the space of its events; the constructor of that name belongs to the class
        self.space = Euclidean(self.event_shape)  # type: ignore[method-assign, assignment]

    # -- constructors -------------------------------------------------------------------------------------------------
    @classmethod
    def plane(cls, group: Group | str, *, copies: int = 1) -> VectorAction:
        """C_n, D_n, SO(2) or O(2) turning and mirroring ``copies`` vectors of the plane."""
        return cls._defining(group, copies, 2)

    @classmethod
    def space(  # type: ignore[override]
        cls, group: Group | str, *, copies: int = 1
    ) -> VectorAction:
        """SO(3) or O(3) turning ``copies`` vectors of space."""
        return cls._defining(group, copies, 3)

    @classmethod
    def _defining(cls, group: Group | str, copies: int, size: int) -> VectorAction:
        representation = DefiningRepresentation(group)
        if representation.size != size:
            raise ValueError(f"expected a group that acts on R^{size}, got {representation.group}")
        return cls([representation] * copies)

    @classmethod
    def regular(cls, group: Group | str, *, copies: int = 1) -> VectorAction:
        """``copies`` regular representations: vectors of ``copies * |G|`` numbers, permuted in blocks."""
        return cls([RegularRepresentation(group)] * copies)

    @classmethod
    def quotient(cls, group: Group | str, subgroup: Sequence[int], *, copies: int = 1) -> VectorAction:
        """The group permuting the cosets of a subgroup (given by the indices of its elements)."""
        return cls([QuotientRepresentation(group, subgroup)] * copies)

    @classmethod
    def trivial(cls, group: Group | str, *, copies: int = 1) -> VectorAction:
        """``copies`` numbers that the group leaves alone; with group "C1", no symmetry at all."""
        return cls([TrivialRepresentation(group)] * copies)

    @classmethod
    def rows(cls, group: Group | str, *, features: int = 1) -> VectorAction:
        """S_n permuting the rows of an n x ``features`` matrix, flattened row by row.

        The columns of a D x n matrix move by ``rows("Sn").copies(D)``.

        Example:
            >>> VectorAction.rows("S3", features=2).act(torch.tensor(3), torch.arange(6.0)).tolist()
            [4.0, 5.0, 0.0, 1.0, 2.0, 3.0]
        """
        return cls([RowsRepresentation(group, features)])

    @classmethod
    def signs(cls, count: int, *, copies: int = 1) -> VectorAction:
        """``count`` numbers, each with a sign flip of its own: the group has 2^count elements.

        With ``copies``, the columns of a ``copies`` x ``count`` matrix (flattened row by row) change sign.

        Example:
            >>> VectorAction.signs(2).act_all(torch.tensor([1.0, 2.0])).tolist()
            [[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]]
        """
        if count < 1:
            raise ValueError(f"expected a positive number of signs, got {count}")
        group = ProductGroup([CyclicGroup(2)] * count)
        flips = [1.0 - 2.0 * group.project(group.elements(), index).double() for index in range(count)]
        fields = [
            MatrixRepresentation(group, flip[:, None, None], name=f"sign {index}") for index, flip in enumerate(flips)
        ]
        return cls(fields * copies)

    @classmethod
    def from_generators(
        cls, generators: Sequence[Any], *, max_order: int = 1024, name: str | None = None
    ) -> VectorAction:
        """The group generated by the user's own matrices (d x d, orthogonal to 1e-12) or permutations (d indices).

        A permutation p moves entry j to place p[j].

        Raises:
            ValueError: a generator is not orthogonal, or the group they generate is larger than ``max_order``.

        Example:
            >>> VectorAction.from_generators([[1, 2, 0]]).group.order
            3
        """
        group, matrices = generate_group(generators, max_order, name)
        return cls([MatrixRepresentation(group, matrices, name=f"{matrices.shape[-1]}x{matrices.shape[-1]} matrices")])

    # -- moving events ------------------------------------------------------------------------------------------------
    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        self.check_event(x)
        moved = []
        start = 0
        for part, run in itertools.groupby(self.fields):
            count = len(list(run))
            block = x[..., start : start + count * part.size].unflatten(-1, (count, part.size))
            moved.append((block @ self._matrices(part, elements, x).mT).flatten(-2))
            start += count * part.size
        return torch.cat(moved, -1)

    def _matrices(self, part: Representation, elements: Tensor, x: Tensor) -> Tensor:
        if not isinstance(self.group, EnumerableGroup):
            return part.matrices(elements.to("cpu", torch.float64)).to(x)
        key = (part, x.device, x.dtype)
        if key not in self._tables:
            with as_constants():
                self._tables[key] = part.matrices(self.group.elements()).to(x.device, x.dtype)
        return rows_at(self._tables[key], elements.to(x.device))

    def matrix(self, elements: Tensor) -> Tensor:
        return block_diagonal([part.matrices(elements) for part in self.fields])

    # -- structure ----------------------------------------------------------------------------------------------------
    @functools.cached_property
    @as_constants()
    def decomposition(self) -> Decomposition:
        return self.field_decomposition()

    def lift(self, product: ProductGroup, index: int) -> VectorAction:
        """The action of a direct product in which only factor ``index`` moves anything, as this action says.

        A direct product is right where every element of one factor commutes with every element of the other, as
        permutations of rows and one sign for all of them do. The permutations and the signs of the same rows (hidden
        units, factors) do not: give those as joint generators, ``VectorAction.from_generators`` or
        ``SitesAction.from_generators``.

        Raises:
            ValueError: this is not an action of that factor.

        Example:
            >>> from pyro_gflows.groups import parse_group
            >>> VectorAction.rows("S3").lift(parse_group("S3 x C2"), 0)
            VectorAction(S3 x C2 on R^3: rows)
        """
        if self.group != product.factors[index]:
            raise ValueError(f"expected an action of factor {index}, {product.factors[index]}, got {self}")
        elements = product.project(product.elements(), index)
        lifted = {
            field: MatrixRepresentation(product, field.matrices(elements), name=field.name)
            for field in set(self.fields)
        }
        return VectorAction([lifted[field] for field in self.fields])

    def with_fields(self, fields: Sequence[Representation]) -> VectorAction:
        return VectorAction(list(fields))

    def without_symmetry(self) -> VectorAction:
        return VectorAction.trivial("C1", copies=self.numel)

    def _key(self) -> Any:
        return self.fields

    def __repr__(self) -> str:
        return f"VectorAction({self.group} on R^{self.numel}: {self._fields_in_words()})"


def _as_representation(given: Any) -> Representation:
    if isinstance(given, Representation):
        return given
    if type(given).__module__.split(".")[0] != "escnn":
        raise TypeError(
            f"expected a representation (of pyro_gflows or escnn), got {type(given).__name__}; "
            "for your own matrices use VectorAction.from_generators([...])"
        )
    data = representation_data(given)
    if data.matrices is None:
        return EscnnRepresentation(parse_group(data.group), data.irreps, data.change_of_basis)
    return MatrixRepresentation(FiniteGroup(data.group, data.table, data.generators), data.matrices, name=data.name)
