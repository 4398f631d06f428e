"""Group and EnumerableGroup: products, inverses, random elements, and all elements where they are few."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.order import order_in_words
from pyro_gflows.numerics.constants import as_constants, kept_in, made_once

__all__ = ["LARGEST_LISTED", "EnumerableGroup", "Group", "require_enumerable"]

LARGEST_LISTED = 2**20
"""The order of the largest group whose elements are listed."""

_LARGEST_TABLE = 4096  # a table of 134 MB


class Group(ABC):
    r"""A group of symmetries: a finite group, or a continuous one such as all rotations of the plane.

    A group says which symmetries there are and how they multiply. How a group acts on an event is said by an action
    (:class:`~pyro_gflows.actions.Action`). Continuous groups are compact, so that averages over all elements exist.

    Group elements are tensors: an element is an int64 index where all elements can be listed
    (:class:`EnumerableGroup`, where ``element_shape`` is ``()``), a matrix in float64 for rotation groups, and a
    permutation or a vector of signs, int64, for large finite groups. A batch of elements has shape ``batch_shape +
    element_shape``. A group is a plain value: groups are compared by value, and a group can be pickled.

    Attributes:
        name: The name that ``repr`` shows.
        order: The number of elements: an exact int of any size, or ``math.inf``.
        element_shape: The shape of one element.
        element_dtype: The dtype of elements.

    Example:
        >>> from pyro_gflows.groups import parse_group
        >>> group = parse_group("SO(2)")
        >>> group.order, group.element_shape
        (inf, torch.Size([2, 2]))
        >>> rotation = group.sample()
        >>> bool(torch.allclose(group.compose(rotation, group.inverse(rotation)), group.identity()))
        True
    """

    name: str
    order: int | float
    element_shape: torch.Size
    element_dtype: torch.dtype = torch.float64

    @property
    def is_finite(self) -> bool:
        """Whether the number of elements is finite; they may be too many to list (see :class:`EnumerableGroup`)."""
        return self.order < math.inf

    @property
    def order_in_words(self) -> str:
        """The order as a short text, such as "720", "20! = 2.4e18" or "infinite"."""
        return order_in_words(self.order, self._order_formula())

    def _order_formula(self) -> str:
        """The order as a product of factorials and powers; empty where there is none."""
        return ""

    def elements(self) -> Tensor:
        """All elements, along the first dimension.

        Raises:
            ValueError: The group is infinite, or too large for its elements to be listed.
        """
        return require_enumerable(self, "the list of all elements").elements()

    def batch_shape(self, elements: Tensor) -> torch.Size:
        """The batch shape of a tensor of elements, which is the shape without the last dimensions ``element_shape``."""
        return elements.shape[: elements.ndim - len(self.element_shape)]

    @abstractmethod
    def identity(self) -> Tensor:
        r"""The element e with :math:`e\,g = g\,e = g`."""

    @abstractmethod
    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """The product g h of two elements, which acts first as h and then as g.

        Args:
            first: Elements g, shape ``batch_shape + element_shape``.
            second: Elements h, whose batch shape broadcasts with that of ``first``.
        """

    @abstractmethod
    def inverse(self, elements: Tensor) -> Tensor:
        """The inverse of each element."""

    @abstractmethod
    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Random elements that are uniformly (Haar) distributed over the group.

        Args:
            shape: The batch shape of the draw.
            generator: The source of randomness, by default torch's global one.
        """

    @abstractmethod
    def generators(self) -> Tensor:
        """A few elements whose products are all elements, along the first dimension.

        What holds for these generators, such as the invariance of a density, holds for the whole group. The products
        of the generators of a continuous group come arbitrarily near to every element (a dense subgroup).
        """

    @abstractmethod
    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        """Elements and weights for exact averages over the group.

        The weighted sum over these elements is the exact average over the group (Haar average) of every polynomial of
        degree at most ``band`` in the entries of the defining matrix. An enumerable group gives all its elements, with
        equal weights, so that the average of any function is exact.

        Args:
            band: The highest degree for which averages are exact.

        Returns:
            Elements along the first dimension, and their weights, which add up to 1.
        """

    def _key(self) -> Any:
        return (type(self).__name__, self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


class EnumerableGroup(Group):
    r"""A finite group whose elements are the indices 0, ..., ``order - 1``, with the identity at index 0.

    A subclass defines ``name``, ``order``, ``compose``, ``inverse`` and ``generators`` by arithmetic on indices. For a
    group of arbitrary matrices or permutations there is :class:`FiniteGroup`, which holds a multiplication table. Two
    groups with equal multiplication tables are equal, whatever their names are.

    Example:
        >>> from pyro_gflows.groups import parse_group
        >>> group = parse_group("C4")
        >>> group.elements().tolist(), group.table[1].tolist()
        ([0, 1, 2, 3], [1, 2, 3, 0])
    """

    order: int
    element_shape = torch.Size()
    element_dtype = torch.int64

    def identity(self) -> Tensor:
        return torch.tensor(0)

    def elements(self) -> Tensor:
        """All elements, which are the indices from 0 to ``order - 1``.

        Raises:
            ValueError: The group has more than 2^20 elements.
        """
        if self.order > LARGEST_LISTED:
            raise ValueError(
                f"expected a group of at most {LARGEST_LISTED} elements to list them, got {self} of order {self.order}"
                "; use sample() for an average over random elements, generators() for a check, or a subgroup"
            )
        return torch.arange(self.order)

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        return torch.randint(self.order, tuple(shape), generator=generator)

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        return self.elements(), torch.full((self.order,), 1.0 / self.order, dtype=torch.float64)

    @made_once
    def table(self) -> Tensor:
        r"""The multiplication table, :math:`g_i g_j = g_{\mathrm{table}[i][j]}`.

        The table is computed when it is first asked for. Shape ``(|G|, |G|)``.

        Raises:
            ValueError: The group has more than 4096 elements.
        """
        if self.order > _LARGEST_TABLE:
            raise ValueError(
                f"expected a group of at most {_LARGEST_TABLE} elements for a multiplication table, got {self} of "
                f"order {self.order}; use compose(g, h) and inverse(g), which need none"
            )
        with as_constants():
            return self.compose(self.elements()[:, None], self.elements())

    def regular(self) -> Tensor:
        """The permutations of the regular representation, in which the group permutes its own elements.

        Returns:
            Shape ``(|G|, |G|)``; entry ``[g, h]`` is the index of the basis vector to which g sends basis vector h.
        """
        return self.table

    def coset_action(self, subgroup: Sequence[int]) -> Tensor:
        """The permutations of the left cosets ``g H`` of a subgroup H (the quotient representation).

        Args:
            subgroup: The indices of the elements of H.

        Returns:
            Shape ``(|G|, |G|/|H|)``; entry ``[g, k]`` is the index of the coset to which g sends coset k.

        Raises:
            ValueError: The indices are not those of a subgroup.
        """
        members = torch.as_tensor(sorted(set(subgroup)), dtype=torch.int64)
        if len(members) == 0 or not torch.isin(self.compose(members[:, None], members), members).all():
            raise ValueError(f"expected the indices of a subgroup of {self.name}, got {list(subgroup)}")
        label = self.compose(self.elements()[:, None], members).min(dim=1).values
        representatives, coset = torch.unique(label, return_inverse=True)
        return coset[self.compose(self.elements()[:, None], representatives)]

    # -- values -------------------------------------------------------------------------------------------------------
    _compares_tables: bool = True

    @made_once
    def _table_bytes(self) -> bytes:
        return self.table.numpy().tobytes()  # compared outside of torch: no transform, mode or trace sees it

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, EnumerableGroup) or self.order != other.order:
            return False
        if type(self) is type(other) and self._key() == other._key():
            return True
        comparable = self.order <= _LARGEST_TABLE and self._compares_tables and other._compares_tables
        return comparable and self._table_bytes == other._table_bytes

    def __hash__(self) -> int:
        return hash(("enumerable", self.order))

    # -- constants on the device of the elements ----------------------------------------------------------------------
    @made_once
    def _constants(self) -> dict[tuple[str, torch.device], Tensor]:
        return {}

    def _constant(self, name: str, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that is made once for each device on which elements are used."""
        return kept_in(self._constants, (name, device), lambda: make().to(device))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._derived()}

    @staticmethod
    def _derived() -> tuple[str, ...]:
        """The names of attributes that are caches, which pickles and copies leave out."""
        return ("table", "_table_bytes", "_constants")


def require_enumerable(group: Group, what: str = "a sum over all elements") -> EnumerableGroup:
    """The group itself if its elements can be listed, else an error.

    Args:
        group: Any group.
        what: The name of what needs all elements, for the error message.

    Raises:
        ValueError: The group is infinite, or finite but too large for its elements to be listed.

    Example:
        >>> from pyro_gflows.groups.names import parse_group
        >>> require_enumerable(parse_group("D4")).elements().tolist()
        [0, 1, 2, 3, 4, 5, 6, 7]
    """
    if isinstance(group, EnumerableGroup):
        return group
    if group.is_finite:
        raise ValueError(
            f"{what} needs a group whose elements can be listed, got {group}, which has {group.order_in_words} "
            "elements; for an invariant density use Canonicalized in place of Symmetrized, OrbitMixture and "
            "OrbitFlow, sample() for an average over random elements, and generators() for a check"
        )
    raise ValueError(
        f"{what} needs a finite group, got {group}, which has infinitely many elements; use sample(), or a finite "
        "subgroup such as D16"
    )
