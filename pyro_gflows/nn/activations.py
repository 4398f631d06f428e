"""Pointwise activations, which commute with permutations of coordinates, each with its Lipschitz constant.

An activation here is a module with the attribute ``lipschitz``: a Lipschitz constant that holds for all values of its
weights, or ``inf`` where no finite constant does. Smooth pointwise activations also give ``value_and_slope(x)``. The
activations for fields that the group does not permute are in ``norm_activations.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.splines import SlopeSplines
from pyro_gflows.serialization.registry import registered

__all__ = ["Activation", "LipSwish", "Pointwise", "SortedPairs", "Splines", "Swish"]


class Activation(nn.Module):
    """An equivariant nonlinear map from the fields of an action to the same fields, or to several copies of them.

    This is the base class of all activations in networks. A field is a block of components that the group transforms
    together, such as one vector, or one channel of an image. Networks take the ready-made ones by name
    (``activation=`` of :class:`EquivariantNetwork`); most use :class:`LipSwish`, :class:`Splines` or
    :class:`GatedNorm`. A call maps ``batch_shape + event_shape`` to the same shape, with ``fan_out`` times as many
    coordinates (on images: channels).

    Args:
        action: How the group acts on the input.

    Attributes:
        action: How the group acts on the input.
        lipschitz: A Lipschitz constant that holds for all values of the weights; ``inf`` where no finite constant does.
        fan_out: The number of output components for each input component. The output consists of ``fan_out`` copies of
            the fields of the input, one copy after the other.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> activation: Activation = LipSwish(VectorAction.regular("C4"))
        >>> activation.lipschitz, activation.fan_out
        (1.0, 1)
    """

    action: LinearAction
    lipschitz: float = 1.0
    fan_out = 1

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        self.action = action

    def call_and_push(self, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """The value at vectors x, and the product of the Jacobian at x with some vectors.

        Args:
            x: Vectors of shape ``batch + (d,)``.
            tangents: k vectors as the columns of matrices, of shape ``batch + (d, k)``, or one that broadcasts with it.

        Raises:
            TypeError: If the activation has no closed form of this product.
        """
        raise TypeError(
            f"expected an activation whose derivative has a closed form, such as Splines or SoftThresholdNorm, got "
            f"{type(self).__name__}"
        )


class Pointwise(Activation):
    """A function of one variable, applied to every coordinate of fields that the group permutes.

    A permutation of coordinates commutes with any function that is applied to each of them, so the map is equivariant.

    Args:
        action: An action whose fields are permuted by the group: trivial, regular or quotient fields.

    Raises:
        ValueError: If the group does more to a field than permute its coordinates.
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        if not action.is_permutation:
            raise ValueError(
                f"{type(self).__name__} acts pointwise, so it needs fields that the group permutes (trivial, regular, "
                f"quotient), got {action}; on other fields use SoftThresholdNorm"
            )

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value of the function at each coordinate, and its slope there."""
        raise NotImplementedError

    def sandwich(self, x: Tensor, inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The value of the activation at x, and three factors of a Jacobian: inner kernel, slopes and outer kernel.

        It is the Jacobian of the composition ``outer . activation . inner`` of two linear maps with the activation.

        Args:
            x: The input of the activation, which is the output of the inner map.
            inner: The kernel of the linear map before the activation, shape ``(out, in, ...)``.
            outer: The kernel of the linear map after the activation, shape ``(out, in, ...)``.
        """
        value, slope = self.value_and_slope(x)
        return value, torch.cat([inner] * self.fan_out), slope, outer

    def call_and_push(self, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self.value_and_slope(x)
        return value, slope.unsqueeze(-1) * torch.cat([tangents] * self.fan_out, -2)

    def field_of_entries(self) -> Tensor:
        """The index of the field of each coordinate along dimension ``-event_dim``, shaped to broadcast with events."""
        sizes = torch.tensor(self.action.field_sizes)
        return torch.arange(len(sizes)).repeat_interleave(sizes).reshape(-1, *[1] * (self.action.event_dim - 1))

    def extra_repr(self) -> str:
        return f"Lipschitz {self.lipschitz:g}"


@registered
class LipSwish(Pointwise):
    r"""The pointwise activation :math:`x\,\sigma(\beta x)/1.1` with a learnable :math:`\beta > 0`; 1-Lipschitz.

    Here x is one coordinate and :math:`\sigma` the logistic function. It is a smooth activation for the branches of
    residual layers: its slope never exceeds 1, for any :math:`\beta`. Events keep their shape.

    Args:
        action: An action whose fields are permuted by the group.

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
class Swish(Pointwise):
    r"""The pointwise activation :math:`x\,\sigma(x)`, where :math:`\sigma` is the logistic function; 1.1-Lipschitz.

    It is the default activation of networks on vectors that need no Lipschitz bound, such as the conditioners of
    coupling and autoregressive layers. It has no weights and takes a single operation. Between linear layers of free
    norm it gives the same functions as :class:`LipSwish`, since :math:`x\,\sigma(\beta x) = (\beta x)\,\sigma(\beta
    x)/\beta`. Events keep their shape.

    Args:
        action: An action whose fields are permuted by the group.

    Source: Sigmoid-weighted linear units, arXiv:1702.03118.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> Swish(VectorAction.regular("C4"))(torch.zeros(5, 4)).shape
        torch.Size([5, 4])
    """

    lipschitz = 1.1

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(x)
        return nn.functional.silu(x), gate * (1 + x * (1 - gate))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x)


@registered
class SortedPairs(Pointwise):
    """Sorts pairs of coordinates, (a, b) -> (min, max), which preserves the norm; 1-Lipschitz.

    The first half of the fields is paired with the second half, coordinate by coordinate. The two fields of a pair must
    be of one type, so that the group permutes their coordinates alike. The slopes are piecewise constant: a network
    with this activation alone has a log-det whose gradient in the biases is zero.

    Args:
        action: An even number of fields that the group permutes; the second half has the types of the first half.

    Raises:
        ValueError: If the fields do not form such pairs.

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

    def call_and_push(self, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        first, second = tangents.chunk(2, -2)
        in_order = torch.le(*x.chunk(2, -1)).unsqueeze(-1)
        pushed = torch.where(in_order, first, second), torch.where(in_order, second, first)
        return self(x), torch.cat(pushed, -2)

    def sandwich(self, x: Tensor, inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # in the sums and differences of the pairs the map is pointwise: sum -> sum, difference -> -|difference|
        first, second = x.chunk(2, -self.action.event_dim)
        slope = torch.cat([torch.ones_like(first), torch.sign(second - first)], -self.action.event_dim)
        return self(x), _sums_and_differences(inner, 0), slope, _sums_and_differences(outer, 1)


def _sums_and_differences(kernel: Tensor, dim: int) -> Tensor:
    first, second = kernel.chunk(2, dim)
    return torch.cat([first + second, first - second], dim) * 0.5**0.5


@registered
class Splines(Pointwise):
    """One learnable function with |slope| < 1 for each field, applied to each of its coordinates; 1-Lipschitz.

    A learnable function can use the Lipschitz bound of a residual branch more fully than a fixed one. It starts as a
    smooth rectifier, whose slope rises from 0.05 to 0.95.

    Args:
        action: An action whose fields are permuted by the group.
        knots: The number of knots on each side of 0.
        limit: The distance from 0 beyond which the functions are linear.

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
        with torch.no_grad():  # the slope is a smooth step over half of its range, so that both signs are within reach
            points = torch.linspace(-limit, limit, 2 * knots - 1)
            self.splines.theta.copy_(torch.atanh(0.05 + 0.9 * torch.sigmoid(2 * points)) + self.splines.theta)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self.splines(x, self.row)
        return value, slope

    def forward(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]
