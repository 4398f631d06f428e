"""VectorAction: a group that acts on vectors, x -> rho(g) x on R^d."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.factor_order import canonical_by_factors
from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.actions.sign_order import act_by_signs, canonical_signs
from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.groups.closure import generate_group
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.escnn_representation import as_representation
from pyro_gflows.groups.lifted import LiftedRepresentation
from pyro_gflows.groups.permutation_representations import (
    QuotientRepresentation,
    RegularRepresentation,
    RowsRepresentation,
)
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.representations import (
    DefiningRepresentation,
    MatrixRepresentation,
    Representation,
    TrivialRepresentation,
)
from pyro_gflows.groups.sign_representation import sign_fields
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.numerics.blocks import block_diagonal
from pyro_gflows.numerics.constants import as_constants, kept_in, made_once, rows_at
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean

__all__ = ["VectorAction"]


@registered
class VectorAction(LinearAction):
    r"""A group that acts on vectors by orthogonal matrices, :math:`x \mapsto \rho(g)\,x` on R^d.

    The vector consists of one block of coordinates for each representation, so :math:`\rho(g)` is block-diagonal. The
    usual actions have a constructor each: :meth:`plane`, :meth:`space`, :meth:`rows` (permutations), :meth:`signs`,
    :meth:`regular`, :meth:`quotient`, :meth:`trivial`, and :meth:`from_generators` for the user's own matrices.

    Args:
        representations: One representation or a sequence of them, all of one group. Representations of escnn are
            accepted (:func:`~pyro_gflows.groups.escnn_group` imports escnn).

    Raises:
        TypeError: An argument is not a representation.
        ValueError: The representations are of different groups, or there is none.

    Example:
        >>> VectorAction.plane("D8")
        VectorAction(D8 on R^2: defining)
        >>> VectorAction.regular("C4", copies=2).act(torch.tensor(1), torch.arange(8.0)).tolist()
        [3.0, 0.0, 1.0, 2.0, 7.0, 4.0, 5.0, 6.0]
    """

    def __init__(self, representations: Representation | Sequence[Representation] | Any) -> None:
        listed = list(representations) if isinstance(representations, list | tuple) else [representations]
        parts = [as_representation(part) for part in listed]
        if not parts:
            raise ValueError("expected at least one representation, got none")
        if len({part.group for part in parts}) > 1:
            raise ValueError(f"expected representations of one group, got {[str(part.group) for part in parts]}")
        self.fields: tuple[Representation, ...] = tuple(parts)
        self.group = parts[0].group
        self.event_shape = torch.Size([sum(part.size for part in parts)])
        # an instance has the space of its events under this name, the class has a constructor
        self.space = Euclidean(self.event_shape)  # type: ignore[method-assign, assignment]

    @classmethod
    def plane(cls, group: Group | str, *, copies: int = 1) -> VectorAction:
        """C_n, D_n, SO(2) or O(2) acts on vectors of the plane by rotations and reflections.

        Args:
            group: The group, or its name.
            copies: The number of vectors of the plane, so that events have 2 * ``copies`` coordinates.

        Raises:
            ValueError: The group does not act on the plane.

        Example:
            >>> VectorAction.plane("C4").act(torch.tensor(1), torch.tensor([1.0, 2.0])).tolist()  # by 90 degrees
            [-2.0, 1.0]
        """
        return cls._defining(group, copies, 2)

    @classmethod
    def space(  # type: ignore[override]
        cls, group: Group | str, *, copies: int = 1
    ) -> VectorAction:
        """SO(3) or O(3) acts on vectors of three-dimensional space by rotations and reflections.

        Args:
            group: The group, or its name.
            copies: The number of vectors of space, so that events have 3 * ``copies`` coordinates.

        Raises:
            ValueError: The group does not act on three-dimensional space.

        Example:
            >>> VectorAction.space("O(3)", copies=2)
            VectorAction(O(3) on R^6: 2 x defining)
        """
        return cls._defining(group, copies, 3)

    @classmethod
    def _defining(cls, group: Group | str, copies: int, size: int) -> VectorAction:
        representation = DefiningRepresentation(group)
        if representation.size != size:
            instead = f"; use VectorAction.{'plane' if size == 3 else 'space'}('{representation.group}')"
            raise ValueError(f"expected a group that acts on R^{size}, got {representation.group}{instead}")
        return cls([representation] * copies)

    @classmethod
    def regular(cls, group: Group | str, *, copies: int = 1) -> VectorAction:
        """The group permutes its own elements: one coordinate for each element, ``copies`` times.

        Args:
            group: The finite group, or its name.
            copies: The number of blocks of ``|G|`` coordinates, each of which is permuted.

        Raises:
            ValueError: The group is infinite.

        Example:
            >>> VectorAction.regular("C4").act(torch.tensor(1), torch.arange(4.0)).tolist()
            [3.0, 0.0, 1.0, 2.0]
        """
        return cls([RegularRepresentation(group)] * copies)

    @classmethod
    def quotient(cls, group: Group | str, subgroup: Sequence[int], *, copies: int = 1) -> VectorAction:
        """The group permutes the cosets of a subgroup: one coordinate for each coset, ``copies`` times.

        Args:
            group: The finite group, or its name.
            subgroup: The indices of the elements of the subgroup.
            copies: The number of blocks of coordinates, each of which is permuted.

        Raises:
            ValueError: The group is infinite, or the indices are not those of a subgroup.

        Example:
            >>> VectorAction.quotient("D4", [0, 4])  # permutes the corners of a square
            VectorAction(D4 on R^4: quotient by [0, 4])
        """
        return cls([QuotientRepresentation(group, subgroup)] * copies)

    @classmethod
    def trivial(cls, group: Group | str, *, copies: int = 1) -> VectorAction:
        """The group leaves every coordinate as it is; with the group "C1" there is no symmetry at all.

        Args:
            group: The group, or its name.
            copies: The number of coordinates.

        Example:
            >>> VectorAction.trivial("C1", copies=3)
            VectorAction(C1 on R^3: 3 x trivial)
        """
        return cls([TrivialRepresentation(group)] * copies)

    @classmethod
    def rows(cls, group: Group | str, *, features: int = 1) -> VectorAction:
        """S_n permutes the rows of an n x ``features`` matrix, which is flattened row by row.

        The rows are exchangeable things, such as the components of a mixture. To permute the columns of a D x n matrix,
        take ``rows("Sn").copies(D)``.

        Args:
            group: The symmetric group, or its name.
            features: The number of columns.

        Raises:
            ValueError: The group is not a symmetric group, or ``features`` is not positive.

        Example:
            >>> VectorAction.rows("S3", features=2).act(torch.tensor(3), torch.arange(6.0)).tolist()
            [4.0, 5.0, 0.0, 1.0, 2.0, 3.0]
        """
        return cls([RowsRepresentation(group, features)])

    @classmethod
    def signs(cls, count: int, *, copies: int = 1) -> VectorAction:
        """Every coordinate has a sign flip of its own, so that the group has 2^count elements.

        Args:
            count: The number of sign flips, and of coordinates of a copy.
            copies: The number of copies: the flips change the signs of the columns of a ``copies`` x ``count`` matrix,
                which is flattened row by row.

        Raises:
            ValueError: ``count`` is not positive.

        Example:
            >>> VectorAction.signs(2).act_all(torch.tensor([1.0, 2.0])).tolist()
            [[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]]
        """
        return cls(sign_fields(count) * copies)

    @classmethod
    def from_generators(
        cls, generators: Sequence[Any], *, max_order: int = 1024, name: str | None = None
    ) -> VectorAction:
        """The group whose elements are all products of the user's own matrices or permutations.

        Args:
            generators: Orthogonal d x d matrices, or permutations p as lists of d indices, where p sends the entry at
                place j to place p[j].
            max_order: The largest number of elements that is accepted.
            name: The name of the group, by default made from its order.

        Raises:
            ValueError: A matrix is not orthogonal (to 1e-12), or the group has more than ``max_order`` elements.

        Example:
            >>> VectorAction.from_generators([[1, 2, 0]]).group.order
            3
        """
        group, matrices = generate_group(generators, max_order, name)
        return cls([MatrixRepresentation(group, matrices, name=f"{matrices.shape[-1]}x{matrices.shape[-1]} matrices")])

    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        self.check_event(x)
        if isinstance(self.group, SignGroup) and not self.is_enumerable:
            return act_by_signs(self.group, self.fields, elements, x)
        images = []
        start = 0
        for part, run in itertools.groupby(self.fields):
            count = len(list(run))
            block = x[..., start : start + count * part.size].unflatten(-1, (count, part.size))
            images.append((block @ self._matrices(part, elements, x).mT).flatten(-2))
            start += count * part.size
        return torch.cat(images, -1)

    def _matrices(self, part: Representation, elements: Tensor, x: Tensor) -> Tensor:
        if not isinstance(self.group, EnumerableGroup):
            return part.matrices(elements.to("cpu", self.group.element_dtype)).to(x)
        group, device, dtype = self.group, x.device, x.dtype
        matrices = kept_in(
            self._tables, (part, device, dtype), lambda: part.matrices(group.elements()).to(device, dtype)
        )
        return rows_at(matrices, elements.to(device))

    def canonical(self, x: Tensor) -> Tensor | None:
        if self.is_enumerable or not isinstance(self.group, SignGroup | ProductGroup):
            return super().canonical(x)
        self.check_event(x)
        with torch.no_grad():
            x = x.detach().double()
            if isinstance(self.group, SignGroup):
                return canonical_signs(self.group, self.fields, x)
            return canonical_by_factors(self, self.group, x)

    def matrix(self, elements: Tensor) -> Tensor:
        return block_diagonal([part.matrices(elements) for part in self.fields])

    @made_once
    @as_constants()
    def decomposition(self) -> Decomposition:
        return self.field_decomposition()

    def lift(self, product: ProductGroup, index: int) -> VectorAction:
        """The action of a direct product on the same vectors, in which only one factor acts.

        A direct product is right where every element of one factor commutes with every element of the other, as
        permutations of rows commute with a sign flip of all rows. Permutations of rows do not commute with sign flips
        of single rows (such as hidden units): for their group, give joint generators to :meth:`from_generators` or
        ``SitesAction.from_generators``.

        Args:
            product: The direct product.
            index: The index of the factor whose action this is. The other factors leave the vectors as they are.

        Raises:
            ValueError: This is not an action of that factor.

        Example:
            >>> from pyro_gflows.groups import parse_group
            >>> VectorAction.rows("S3").lift(parse_group("S3 x C2"), 0)
            VectorAction(S3 x C2 on R^3: rows)
        """
        if self.group != product.factors[index]:
            raise ValueError(f"expected an action of factor {index}, {product.factors[index]}, got {self}")
        if not isinstance(product, EnumerableGroup):
            return VectorAction([LiftedRepresentation(field, product, index) for field in self.fields])
        elements = product.project(product.elements(), index)
        lifted: dict[Representation, Representation] = {
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
