r"""Pointwise activations, which commute with permutations of coordinates, each with its Lipschitz constant.

Every activation is a Module with ``lipschitz`` (a constant that holds for all its weights; ``inf`` where there is
none); smooth pointwise ones also give ``value_and_slope(x)``. On other representations: ``norm_activations.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.splines import SlopeSplines
from pyro_gflows.serialization.registry import registered

__all__ = ["Activation", "LipSwish", "Pointwise", "SortedPairs", "Splines"]


class Activation(nn.Module):
    """An equivariant map from fields to copies of them, with its Lipschitz constant."""

    action: LinearAction
    lipschitz: float = 1.0
    """A constant that holds for all weights; ``inf`` where there is none."""
    fan_out = 1
    """How many entries it makes of each: the output's fields are as many copies of the input's, one after the other."""

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        self.action = action


class Pointwise(Activation):
    """A function of one number, applied to every entry of permutation fields."""

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        if not action.is_permutation:
            raise ValueError(
                f"{type(self).__name__} acts pointwise, so it needs fields that are permuted (trivial, regular, "
                f"quotient), got {action}; on other fields use SoftThresholdNorm"
            )

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value, and the slope of each of its entries."""
        raise NotImplementedError

    def sandwich(self, x: Tensor, inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The value, and three factors of the Jacobian of outer . activation . inner at inner x: inner kernel, slopes,
        outer kernel. Kernels are ``(out, in, ...)``."""
        value, slope = self.value_and_slope(x)
        return value, torch.cat([inner] * self.fan_out), slope, outer

    def field_of_entries(self) -> Tensor:
        """For each entry along dimension ``-event_dim``, the index of its field; broadcasts with events."""
        sizes = torch.tensor(self.action.field_sizes)
        return torch.arange(len(sizes)).repeat_interleave(sizes).reshape(-1, *[1] * (self.action.event_dim - 1))

    def extra_repr(self) -> str:
        return f"Lipschitz {self.lipschitz:g}"


@registered
class LipSwish(Pointwise):
    r"""Pointwise :math:`x\,\sigma(\beta x)/1.1` with a learnable :math:`\beta > 0`; 1-Lipschitz.

    Args:
        action: permutation fields.

    Source: Residual Flows, arXiv:1906.02735.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> LipSwish(VectorAction.regular("C4"))(torch.zeros(5, 4)).shape
        torch.Size([5, 4])
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        self.raw_beta = nn.Parameter(torch.tensor(math.log(math.expm1(1.0))))

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        beta = nn.functional.softplus(self.raw_beta)
        gate = torch.sigmoid(beta * x)
        return x * gate / 1.1, gate * (1 + beta * x * (1 - gate)) / 1.1

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(nn.functional.softplus(self.raw_beta) * x) / 1.1


@registered
class SortedPairs(Pointwise):
    """Sorts each entry of one field with that of the next, (a, b) -> (min, max); norm-preserving, 1-Lipschitz.

    The first half of the fields is paired with the second half; fields that pair up must be of one type. Its slopes are
    piecewise constant, so on its own it gives a log-det no gradient in the biases.

    Args:
        action: an even number of permutation fields, the second half of the types of the first.

    Source: Sorting out Lipschitz function approximation, arXiv:1811.05381.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> SortedPairs(VectorAction.trivial("C1", copies=4))(torch.tensor([3.0, 1.0, 2.0, 5.0]))
        tensor([2., 1., 3., 5.])
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        half = len(action.fields) // 2
        if len(action.fields) % 2 or action.fields[:half] != action.fields[half:]:
            raise ValueError(f"SortedPairs needs an even number of equal fields, got {action}")

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -self.action.event_dim)
        return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -self.action.event_dim)

    def sandwich(self, x: Tensor, inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # sums and differences of pairs are what has slopes: the sum stays, the difference turns into -|difference|
        first, second = x.chunk(2, -self.action.event_dim)
        slope = torch.cat([torch.ones_like(first), torch.sign(second - first)], -self.action.event_dim)
        return self(x), _sums_and_differences(inner, 0), slope, _sums_and_differences(outer, 1)


def _sums_and_differences(kernel: Tensor, dim: int) -> Tensor:
    first, second = kernel.chunk(2, dim)
    return torch.cat([first + second, first - second], dim) * 0.5**0.5


@registered
class Splines(Pointwise):
    """One learnable function with |slope| < 1 for each field, applied to each of its entries; it starts as a soft step.

    Args:
        action: permutation fields.
        knots: knots on each side of 0.
        limit: where the functions become linear.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> value, slope = Splines(VectorAction.regular("C4")).value_and_slope(torch.zeros(5, 4))
        >>> value.shape, bool((slope.abs() < 1).all())
        (torch.Size([5, 4]), True)
    """

    row: Tensor

    def __init__(self, action: LinearAction, *, knots: int = 8, limit: float = 3.0) -> None:
        super().__init__(action)
        self.splines = SlopeSplines(len(action.fields), knots=knots, limit=limit)
        self.register_buffer("row", self.field_of_entries(), persistent=False)
        with torch.no_grad():  # a smooth step: half of the slope range used, so that both signs are within reach
            points = torch.linspace(-limit, limit, 2 * knots - 1)
            self.splines.theta.copy_(torch.atanh(0.05 + 0.9 * torch.sigmoid(2 * points)) + self.splines.theta)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self.splines(x, self.row)
        return value, slope

    def forward(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]
