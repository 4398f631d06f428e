"""What every group answers: identity, products, inverses, random elements; and all elements, where they are few."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.numerics.constants import as_constants

__all__ = ["LARGEST_LISTED", "EnumerableGroup", "Group", "require_enumerable"]

LARGEST_LISTED = 2**20
"""The order of the largest group whose elements are listed."""

_LARGEST_TABLE = 4096  # a table of 134 MB


class Group(ABC):
    r"""A compact group, whose elements are tensors of shape batch shape + ``element_shape``.

    An element is an int64 index where all elements can be listed (:class:`EnumerableGroup`, ``element_shape`` is
    ``()``), and its defining matrix in float64 otherwise. A group is a plain value: it compares by value and pickles.

    Attributes:
        name: what ``repr`` shows.
        order: the number of elements, an exact int of any size, or ``math.inf``.
        element_shape: the shape of one element.
    """

    name: str
    order: int | float
    element_shape: torch.Size

    @property
    def is_finite(self) -> bool:
        """Whether the number of elements is finite."""
        return self.order < math.inf

    def batch_shape(self, elements: Tensor) -> torch.Size:
        """The shape of a batch of elements: that of the tensor without ``element_shape``, which stands last."""
        return elements.shape[: elements.ndim - len(self.element_shape)]

    @abstractmethod
    def identity(self) -> Tensor:
        r"""The element e with :math:`e\,g = g\,e = g`."""

    @abstractmethod
    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """The product g h, which acts as h does and then as g does; batch shapes broadcast."""

    @abstractmethod
    def inverse(self, elements: Tensor) -> Tensor:
        """The inverse of each element."""

    @abstractmethod
    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Elements that are uniformly (Haar) distributed, with batch shape ``shape``."""

    @abstractmethod
    def generators(self) -> Tensor:
        """Elements that generate the group (a dense subgroup of a continuous one), along the first dimension."""

    @abstractmethod
    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        """Elements and weights whose weighted sum is the exact Haar average of every function of degree at most
        ``band`` in the entries of the defining matrix; of an enumerable group these are all its elements."""

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

    A new one defines ``name``, ``order``, ``compose``, ``inverse`` and ``generators`` by arithmetic; a group of any
    matrices or permutations is a :class:`FiniteGroup`, which holds its multiplication table. Groups with equal tables
    are equal, whatever they are called.
    """

    order: int
    element_shape = torch.Size()

    def identity(self) -> Tensor:
        return torch.tensor(0)

    def elements(self) -> Tensor:
        """All elements: the indices from 0 to ``order - 1``.

        Raises:
            ValueError: the group has more than 2^20 elements.
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

    @functools.cached_property
    def table(self) -> Tensor:
        r"""The multiplication table, :math:`g_i g_j = g_{\mathrm{table}[i][j]}`, computed where it is first asked for.

        Raises:
            ValueError: the group has more than 4096 elements.
        """
        if self.order > _LARGEST_TABLE:
            raise ValueError(
                f"expected a group of at most {_LARGEST_TABLE} elements for a multiplication table, got {self} of "
                f"order {self.order}; use compose(g, h) and inverse(g), which need none"
            )
        with as_constants():
            return self.compose(self.elements()[:, None], self.elements())

    def regular(self) -> Tensor:
        """Permutations of the regular representation: entry ``[g, h]`` says where g sends the h-th basis vector."""
        return self.table

    def coset_action(self, subgroup: Sequence[int]) -> Tensor:
        """Permutations of the left cosets ``g H`` (the quotient representation), shape ``(|G|, |G|/|H|)``.

        Raises:
            ValueError: the indices are not those of a subgroup.
        """
        members = torch.as_tensor(sorted(set(subgroup)), dtype=torch.int64)
        if len(members) == 0 or not torch.isin(self.compose(members[:, None], members), members).all():
            raise ValueError(f"expected the indices of a subgroup of {self.name}, got {list(subgroup)}")
        label = self.compose(self.elements()[:, None], members).min(dim=1).values
        representatives, coset = torch.unique(label, return_inverse=True)
        return coset[self.compose(self.elements()[:, None], representatives)]

    # -- values -------------------------------------------------------------------------------------------------------
    _compares_tables: bool = True

    @functools.cached_property
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
    @functools.cached_property
    def _constants(self) -> dict[tuple[str, torch.device], Tensor]:
        return {}

    def _constant(self, name: str, device: torch.device, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that is made once, on the device of the elements that it is used with."""
        if (name, device) not in self._constants:
            with as_constants():
                self._constants[name, device] = make().to(device)
        return self._constants[name, device]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._derived()}

    @staticmethod
    def _derived() -> tuple[str, ...]:
        """Names of attributes that are caches, and are left out of pickles and copies."""
        return ("table", "_table_bytes", "_constants")


def require_enumerable(group: Group, what: str = "a sum over all elements") -> EnumerableGroup:
    """The group itself, if its elements can be listed.

    Args:
        group: any group.
        what: needs all elements; for the error.

    Raises:
        ValueError: the group is infinite, or finite but too large for its elements to be listed.

    Example:
        >>> from pyro_gflows.groups.names import parse_group
        >>> require_enumerable(parse_group("D4")).elements().tolist()
        [0, 1, 2, 3, 4, 5, 6, 7]
    """
    if isinstance(group, EnumerableGroup):
        return group
    if group.is_finite:
        raise ValueError(
            f"{what} needs a group whose elements can be listed, got {group} of order {group.order}; use sample() for "
            "an average over random elements, generators() for a check, or a subgroup"
        )
    raise ValueError(
        f"{what} needs a finite group, got {group}, which has infinitely many elements; use sample(), or a finite "
        "subgroup such as D16"
    )
