"""SignRepresentation: one coordinate that changes its sign with one of many signs."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups.base import Group
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.serialization.registry import registered

__all__ = ["SignRepresentation"]


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
