"""Shear: a contraction that reads one half of an event and changes the other half."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.numerics import ShearBranch
from pyro_gflows.serialization.registry import registered

__all__ = ["Half", "Shear"]

#: Which half of an event (x, z): the first one is x, the second one is z.
Half = Literal["first", "second"]


@registered
class Shear(Contraction, ShearBranch):
    r"""A branch that reads one half of an event (x, z) and changes the other half, by a known function h.

    It serves maps on a padded space, where z is a second event of the kind of x (the padding).

    .. math:: f(x, z) = (0,\; b\,h(a\,x)) \quad\text{or}\quad f(x, z) = (b\,h(a\,z),\; 0)

    The factors a and b are the arguments ``inner`` and ``outer``. The Lipschitz constant of f is that of h times
    \|ab\|. The map (x, z) + f(x, z) has the log-det 0, since its Jacobian is triangular with ones on the diagonal. It
    is equivariant if h is, and if the group acts on both halves alike.

    Args:
        action: How the group acts on (x, z), which lie side by side along dimension ``-event_dim``.
        function: h, a module or another function from halves to halves, row by row.
        lipschitz: A Lipschitz constant of h; it is taken as stated.
        reads: The half that f reads, "first" or "second".
        inner: The factor a of the argument of h.
        outer: The factor b of the value of h.

    Raises:
        TypeError: ``action`` is not a LinearAction, or ``function`` cannot be called.
        ValueError: An event has no two halves of one size, or the Lipschitz constant of f is not below 1.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> shear = Shear(VectorAction.plane("O(2)", copies=2), torch.tanh, lipschitz=1.0, reads="second", outer=0.5)
        >>> shear(torch.tensor([1.0, 2.0, 0.0, 0.0])).tolist(), float(shear.lipschitz_bound())
        ([0.0, 0.0, 0.0, 0.0], 0.5)
    """

    def __init__(
        self,
        action: LinearAction,
        function: Callable[[Tensor], Tensor],
        *,
        lipschitz: float,
        reads: Half = "first",
        inner: float = 1.0,
        outer: float = 1.0,
    ) -> None:
        super().__init__()
        self.action = require_linear(action)
        length = action.event_shape[0]
        if length % 2:
            raise ValueError(
                f"expected events of two halves of one size, got {action}; take action.direct_sum(action), by which "
                "the group acts on both halves alike"
            )
        if not callable(function):
            raise TypeError(f"expected a function of one half of an event, got {type(function).__name__}")
        if reads not in ("first", "second"):
            raise ValueError(f"expected reads='first' or reads='second', got {reads!r}")
        bound = abs(inner * outer) * lipschitz
        if not (math.isfinite(bound) and 0 < bound < 1):
            raise ValueError(
                f"expected a branch with a Lipschitz constant in (0, 1), got |inner * outer| * lipschitz = {bound:g}; "
                "lower outer"
            )
        self.function, self.reads, self.inner, self.outer, self.bound = function, reads, inner, outer, bound

    def forward(self, x: Tensor) -> Tensor:
        dim = -self.action.event_dim
        first, second = x.chunk(2, dim)
        if self.reads == "first":
            return torch.cat([torch.zeros_like(first), self._value(first)], dim)
        return torch.cat([self._value(second), torch.zeros_like(second)], dim)

    def _value(self, half: Tensor) -> Tensor:
        return self.outer * self.function(self.inner * half)

    def lipschitz_bound(self) -> Tensor:
        return torch.tensor(self.bound, dtype=torch.float64, device="cpu")

    def extra_repr(self) -> str:
        return f"{self.action}, reads the {self.reads} half, Lipschitz constant {self.bound:.4g}"
