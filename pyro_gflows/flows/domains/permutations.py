"""Rows in increasing order of a key, with or without a sign for each row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.flows.domains.base import FundamentalDomain, Represent, axis_aligned, common_fixed_space
from pyro_gflows.groups.monomial import MonomialGroup
from pyro_gflows.groups.signed_permutations import SignedPermutationGroup

__all__ = ["SignedRows", "SortedRows"]

_ZERO = 1e-9


class SortedRows(FundamentalDomain):
    r"""Keys in increasing order, :math:`k_1 \le \dots \le k_n`, for permutations of n rows.

    The keys sum to 0, since a common shift of all keys changes no order; the gaps are the differences of neighboring
    keys. If the group is one of signed permutations, then this is the domain of its permutations.

    Args:
        group: The group that permutes n >= 2 rows.

    Example:
        >>> from pyro_gflows.groups import SymmetricGroup
        >>> domain = SortedRows(SymmetricGroup(3))
        >>> domain.group.permutations_of(domain.element(torch.tensor([2.0, -3.0, 1.0]))).tolist()  # the place of each
        [2, 0, 1]
        >>> domain.keys(torch.tensor([1.0, 1.0])).tolist()
        [-1.0, 0.0, 1.0]
    """

    group: MonomialGroup

    def __init__(self, group: MonomialGroup) -> None:
        self.group, self.size, self.dimension = group, group.n, group.n - 1
        self.order = math.factorial(group.n)
        self.log_det = -0.5 * math.log(group.n)

    def element(self, keys: Tensor) -> Tensor:
        return self.group.elements_of(permutations=keys.argsort(dim=-1, stable=True).argsort(-1))

    def gaps(self, keys: Tensor) -> Tensor:
        return keys.diff(dim=-1)

    def keys(self, gaps: Tensor) -> Tensor:
        keys = torch.nn.functional.pad(gaps.cumsum(-1), (1, 0))
        return keys - keys.mean(-1, keepdim=True)

    def key_spaces(self, represent: Represent, others: Sequence[Tensor]) -> list[Tensor]:
        conditions = _fixed_by_the_other_rows(self.group, represent, others)
        rows = _translates(self.group, represent, common_fixed_space(conditions))
        # of the keys that the other rows do not change, those that sum to 0 over the rows
        sums = rows.sum(1)
        values, vectors = torch.linalg.eigh(sums @ sums.T)
        weights = vectors[:, values < _ZERO].T
        first = weights @ rows[:, 0]
        weights = axis_aligned(first.T @ first, len(first)) @ rows[:, 0].T
        return [torch.einsum("ab,bni->ani", weights, rows) * math.sqrt(1 - 1 / self.size)]


class SignedRows(FundamentalDomain):
    r"""Keys that are positive and in increasing order, :math:`0 \le k_1 \le \dots \le k_n`, for signed permutations.

    The gaps are the first key and the differences of neighboring keys. An element first makes all keys positive, and
    then sorts them.

    Args:
        group: The group of signed permutations of n rows.

    Example:
        >>> domain = SignedRows(SignedPermutationGroup(2))
        >>> domain.group.signs_of(domain.element(torch.tensor([2.0, -1.0]))).tolist()
        [1, -1]
        >>> domain.gaps(torch.tensor([1.0, 3.0])).tolist()
        [1.0, 2.0]
    """

    group: SignedPermutationGroup

    def __init__(self, group: SignedPermutationGroup) -> None:
        self.group, self.size, self.dimension = group, group.n, group.n
        self.order = math.factorial(group.n) * 2**group.n
        self.log_det = 0.0

    def element(self, keys: Tensor) -> Tensor:
        signs = torch.where(keys < 0, -1, 1)
        return self.group.elements_of(permutations=keys.abs().argsort(dim=-1, stable=True).argsort(-1), signs=signs)

    def gaps(self, keys: Tensor) -> Tensor:
        return keys.diff(dim=-1, prepend=torch.zeros_like(keys[..., :1]))

    def keys(self, gaps: Tensor) -> Tensor:
        return gaps.cumsum(-1)

    def key_spaces(self, represent: Represent, others: Sequence[Tensor]) -> list[Tensor]:
        conditions = _fixed_by_the_other_rows(self.group, represent, others)
        one = torch.eye(self.size, dtype=torch.int64)[0]
        first_sign, second_sign = (represent(self.group.elements_of(signs=1 - 2 * one.roll(i))) for i in (0, 1))
        unit = torch.eye(len(first_sign), dtype=torch.float64)
        conditions.append(first_sign + unit)
        if self.size > 1:
            conditions.append(second_sign - unit)
        return [_translates(self.group, represent, common_fixed_space(conditions))]


def _fixed_by_the_other_rows(group: MonomialGroup, represent: Represent, others: Sequence[Tensor]) -> list[Tensor]:
    """Conditions for a key of the first row: the permutations of the other rows, and some matrices, leave it."""
    n = group.n
    swap, cycle = [0, 2, 1, *range(3, n)], [0, *range(2, n), 1]
    chosen = [] if n < 3 else [swap] if n == 3 else [swap, cycle]
    matrices = [represent(group.elements_of(permutations=torch.tensor(permutation))) for permutation in chosen]
    unit = torch.eye(represent(group.identity()).shape[-1], dtype=torch.float64)
    return [*[matrix - unit for matrix in (*matrices, *others)], 0 * unit]


def _translates(group: MonomialGroup, represent: Represent, first: Tensor) -> Tensor:
    """The keys of all rows from keys of the first row, shape ``(count, n, N)``."""
    rows = [first]
    for row in range(1, group.n):
        exchange = torch.arange(group.n)
        exchange[0], exchange[row] = row, 0
        rows.append(first @ represent(group.elements_of(permutations=exchange)).T)
    return torch.stack(rows, 1)
