"""Representations: how a group acts on a vector by orthogonal matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csgraph
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group, require_enumerable
from pyro_gflows.groups.canonical_basis import Nearly
from pyro_gflows.groups.continuous import ContinuousGroup
from pyro_gflows.groups.finite import PlanarGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.numerics.constants import as_constants, rows_at
from pyro_gflows.serialization.registry import registered

if TYPE_CHECKING:
    from pyro_gflows.groups.components import Decomposition

__all__ = [
    "DefiningRepresentation",
    "MatrixRepresentation",
    "Representation",
    "TabulatedRepresentation",
    "TrivialRepresentation",
]

_ZERO = 1e-10


class Representation:
    r"""A way in which a group acts on vectors: one orthogonal matrix :math:`\rho(g)` for each element g.

    The matrices multiply as the elements do, :math:`\rho(g)\,\rho(h) = \rho(g h)`. One group has many representations:
    rotations may rotate a vector of the plane, or leave a scalar as it is. Actions are built from representations, and
    layers are built from actions. Matrices are computed in float64.

    Attributes:
        group: The group that acts.
        size: The number of coordinates of a vector.
        band: A bound of the degree of the entries of :math:`\rho(g)` as polynomials in the entries of the defining
            matrix of g; 0 for finite groups, whose averages are exact in any case.
        name: The name that ``repr`` shows.

    Example:
        >>> from pyro_gflows.groups import DefiningRepresentation
        >>> isinstance(DefiningRepresentation("D4"), Representation), DefiningRepresentation("D4").size
        (True, 2)
    """

    group: Group
    size: int
    band: int = 0
    name: str

    def matrices(self, elements: Tensor) -> Tensor:
        """The matrix rho(g) of each element, float64, on the device of the elements.

        Args:
            elements: Group elements g.

        Returns:
            Shape ``batch_shape + (size, size)``, where the batch shape is that of the elements.
        """
        raise NotImplementedError

    # -- what a representation of a large group knows from its structure -----------------------------------------------
    def act(self, elements: Tensor, x: Tensor) -> Tensor:
        """The images rho(g) x of vectors, in the dtype and on the device of x.

        Args:
            elements: Group elements g, whose batch shape broadcasts with that of x.
            x: Vectors, shape ``batch_shape + (size,)``.
        """
        return (self.matrices(elements).to(x) @ x[..., None]).squeeze(-1)

    def entries(self) -> frozenset[float]:
        """The distinct entries of all matrices, where any entry other than -1, 0 and 1 is nan."""
        if not isinstance(self.group, EnumerableGroup):
            return frozenset({math.nan})
        with as_constants():
            entries = self.matrices(self.group.elements()).unique().tolist()
        return frozenset(entry if entry in (-1.0, 0.0, 1.0) else math.nan for entry in entries)

    def absolute(self) -> Representation:
        """The representation by the matrices of absolute values, where these permute coordinates up to signs."""
        group = require_enumerable(self.group)
        return MatrixRepresentation(group, self.matrices(group.elements()).abs(), name=f"|{self.name}|")

    def invariant_sets(self) -> list[list[int]]:
        """The smallest sets of coordinates that the group maps to themselves (where it permutes them, the orbits)."""
        mixed = (self.matrices(self.group.generators()).abs() > _ZERO).any(0)
        count, labels = csgraph.connected_components(mixed.numpy(), directed=False)
        return sorted(((np.flatnonzero(labels == label)).tolist() for label in range(count)), key=min)

    def restricted_to(self, coordinates: Sequence[int]) -> tuple[list[int], list[Representation]] | None:
        """The representations on a union of invariant sets, and the order in which they hold its coordinates.

        It is known only for representations that are made from a structure; others give None.

        Args:
            coordinates: A union of invariant sets.
        """
        return None

    def permutations(self) -> Tensor | None:
        """The place to which each element sends each coordinate, where it is known that the group permutes them.

        Returns:
            Shape ``(|G|, size)``, int64; or None.
        """
        return None

    def isotypes(self) -> Decomposition | None:
        """The isotypic components where they are known in closed form, else None."""
        return None

    def _key(self) -> Any:
        return (type(self).__name__, self.group, self.name, self.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Representation) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"{self.name} of {self.group}"


class TabulatedRepresentation(Representation):
    """A representation of a finite group that holds a table of matrices, one for each element."""

    table: Tensor

    def matrices(self, elements: Tensor) -> Tensor:
        return rows_at(self.table.to(elements.device), elements)


@registered
class TrivialRepresentation(Representation):
    """The trivial representation on one coordinate, rho(g) = 1: every element leaves the coordinate as it is.

    Args:
        group: The group, or its name.

    Example:
        >>> TrivialRepresentation("O(2)").size
        1
    """

    size = 1
    name = "trivial"

    def __init__(self, group: Group | str) -> None:
        self.group = parse_group(group)

    def matrices(self, elements: Tensor) -> Tensor:
        return torch.ones(*self.group.batch_shape(elements), 1, 1, dtype=torch.float64, device=elements.device)

    def entries(self) -> frozenset[float]:
        return frozenset({1.0})

    def absolute(self) -> Representation:
        # a table of ones where the elements can be listed, since files describe networks with it
        return super().absolute() if isinstance(self.group, EnumerableGroup) else self

    def isotypes(self) -> Decomposition:
        from pyro_gflows.groups.one_dimensional import single_coordinate  # it is about representations

        return single_coordinate(self, is_trivial=True, outer="invariant")


@registered
class DefiningRepresentation(Representation):
    """The usual action of a group of rotations and reflections: on vectors of the plane, or of space.

    C_n, D_n, SO(2) and O(2) act on the plane; SO(3) and O(3) act on three-dimensional space.

    Args:
        group: The group, or its name.

    Raises:
        ValueError: The group is not one of these.

    Example:
        >>> DefiningRepresentation("C4").matrices(torch.tensor(1)).tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """

    name = "defining"

    def __init__(self, group: Group | str) -> None:
        self.group = parse_group(group)
        if isinstance(self.group, ContinuousGroup):
            self.size, self.band = self.group.dimension, 1
        elif isinstance(self.group, PlanarGroup):
            self.size = 2
        else:
            raise ValueError(f"expected C_n, D_n, SO(2), O(2), SO(3) or O(3), got {self.group}")

    def matrices(self, elements: Tensor) -> Tensor:
        if not isinstance(self.group, PlanarGroup):
            return elements
        return rows_at(self.group.plane().to(elements.device), elements)

    def _key(self) -> Any:
        return (*super()._key(), self.group.name)  # C2 and D1 are one group that acts on the plane in two ways


@registered
class MatrixRepresentation(TabulatedRepresentation):
    """A representation of a finite group by the user's own matrices, one for each element.

    Args:
        group: The group that acts.
        matrices: Orthogonal matrices in the order of the elements, shape ``(|G|, d, d)``.
        name: The name that ``repr`` shows.

    Raises:
        ValueError: The shape is wrong, a matrix is not orthogonal, or the matrices do not multiply as the elements do
            (both to 1e-11).

    Example:
        >>> from pyro_gflows.groups.finite import CyclicGroup
        >>> MatrixRepresentation(CyclicGroup(2), [[[1.0]], [[-1.0]]], name="sign").size
        1
    """

    def __init__(self, group: EnumerableGroup, matrices: Sequence[Any] | Tensor, *, name: str = "matrices") -> None:
        require_enumerable(group, "a table of a matrix for each element")
        table = torch.as_tensor(matrices, dtype=torch.float64)
        if table.ndim != 3 or table.shape[0] != group.order or table.shape[1] != table.shape[2]:
            raise ValueError(f"expected matrices of shape ({group.order}, d, d), got {tuple(table.shape)}")
        self.group, self.table, self.size, self.name = group, table, table.shape[-1], name
        orthogonality = (table @ table.mT - torch.eye(self.size, dtype=torch.float64)).abs().max().item()
        generators = group.generators()[:, None]
        products = table[generators] @ table
        expected = table[group.compose(generators, group.elements())]
        homomorphism = (products - expected).abs().amax().item() if len(products) else 0.0
        if max(orthogonality, homomorphism) > 1e-11:
            raise ValueError(
                f"expected an orthogonal representation of {group}, got defects {orthogonality:.1e} in M M^T = 1 and "
                f"{homomorphism:.1e} in M(g) M(h) = M(gh); give the matrices in float64"
            )

    def permutations(self) -> Tensor | None:
        places = self.table.argmax(-2)
        ones = self.table.gather(-2, places[:, None, :]) == 1.0
        # a matrix is orthogonal to rounding, but a permutation only if the other entries are exactly 0
        return places if bool(ones.all()) and int(self.table.count_nonzero()) == places.numel() else None

    def _key(self) -> Any:
        return (type(self).__name__, self.group, Nearly(self.table))
