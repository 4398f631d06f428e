"""SignRepresentation: one coordinate that changes its sign with one of many signs."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups.base import Group, require_enumerable
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.finite import CyclicGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.one_dimensional import single_coordinate
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.representations import MatrixRepresentation, Representation, TrivialRepresentation
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.serialization.registry import registered

__all__ = ["SignRepresentation", "sign_fields"]

_IN_TABLES = 10  # signs, of 1,024 elements; saved flows describe these fields by a matrix for each element


@registered
class SignRepresentation(Representation):
    r"""One sign of the group C2^n acts on one coordinate, :math:`\rho(s) = s_i`.

    Each of the n signs has a representation of its own, which all the other signs leave as it is. Together they are
    the action of n independent sign flips on a vector (:meth:`VectorAction.signs
    <pyro_gflows.actions.VectorAction.signs>`).

    Args:
        group: The group of n sign flips, or its name.
        index: The index i of the sign.

    Raises:
        ValueError: The group is not a group of sign flips, or it has no sign of this index.

    Example:
        >>> flips = SignRepresentation("C2^12", 2)
        >>> signs = torch.tensor([1, 1, -1, 1, 1, 1, 1, 1, 1, 1, 1, -1])
        >>> flips, flips.matrices(flips.group.elements_of(signs=signs)).tolist()
        (sign 2 of C2^12, [[-1.0]])
    """

    group: SignGroup
    size = 1

    def __init__(self, group: Group | str, index: int) -> None:
        parsed = parse_group(group)
        if not isinstance(parsed, SignGroup):
            raise ValueError(f"signs are changed by a group of sign flips such as 'C2^20', got {parsed}")
        if not 0 <= index < parsed.n:
            raise ValueError(f"expected the index of a sign of {parsed}, in 0..{parsed.n - 1}, got {index}")
        self.group, self.index, self.name = parsed, index, f"sign {index}"

    def matrices(self, elements: Tensor) -> Tensor:
        return self.group.signs_of(elements)[..., self.index, None, None].to(torch.float64)

    def act(self, elements: Tensor, x: Tensor) -> Tensor:
        return x * self.group.signs_of(elements)[..., self.index, None].to(x)

    def entries(self) -> frozenset[float]:
        return frozenset({-1.0, 1.0})

    def absolute(self) -> Representation:
        return TrivialRepresentation(self.group)

    def isotypes(self) -> Decomposition:
        return single_coordinate(self, is_trivial=False, outer=self.name)


def sign_fields(count: int) -> list[Representation]:
    """The representations of n independent sign flips on n coordinates, one for each.

    Args:
        count: The number n of signs.

    Raises:
        ValueError: ``count`` is not positive.

    Example:
        >>> sign_fields(12)[:2], sign_fields(2)
        ([sign 0 of C2^12, sign 1 of C2^12], [sign 0 of C2 x C2, sign 1 of C2 x C2])
    """
    if count < 1:
        raise ValueError(f"expected a positive number of signs, got {count}")
    if count > _IN_TABLES:
        return [SignRepresentation(SignGroup(count), index) for index in range(count)]
    product = ProductGroup([CyclicGroup(2)] * count)
    group = require_enumerable(product)
    flips = [1.0 - 2.0 * product.project(group.elements(), index).double() for index in range(count)]
    return [MatrixRepresentation(group, flip[:, None, None], name=f"sign {index}") for index, flip in enumerate(flips)]
