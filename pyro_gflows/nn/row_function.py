"""Functions of one row with a certified Lipschitz constant, and their derivatives row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_gflows.actions import VectorAction
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.feature_maps import Shift, feature_map, side_by_side, size_of
from pyro_gflows.nn.kernel import KernelLayer, LipschitzLayer
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.rows_hidden import to_mirror

__all__ = ["RowFunction", "RowSignature"]


@dataclass(frozen=True)
class RowSignature:
    """What a function of one row reads and gives; None stands for no feature.

    Args:
        even: How H acts on the even features of the input.
        odd: How H acts on the odd features of the input.
        shared: How H acts on further even features of the input.
        even_out: How H acts on the even features of the output.
        odd_out: How H acts on the odd features of the output.
    """

    even: VectorAction | None
    odd: VectorAction | None
    shared: VectorAction | None
    even_out: VectorAction | None
    odd_out: VectorAction | None


class RowFunction(nn.Module):
    r"""A function F(x, t) of a row x and shared features t, whose Lipschitz constant is at most ``bound``.

    It is a chain of linear maps with certified norms and 1-Lipschitz activations, applied to every row alike. The even
    features of the output are even in the odd features of the row, and the odd ones are odd, since the activations are
    applied to sums and differences of even and odd features. The last map has no shift.

    Args:
        signature: What the function reads and gives.
        hidden: How H acts on the features of a hidden layer.
        activation: The class of the activation.
        depth: The number of hidden layers.
        bound: The Lipschitz bound.
    """

    gated: Tensor

    def __init__(
        self,
        signature: RowSignature,
        hidden: VectorAction,
        *,
        activation: type[Activation],
        depth: int,
        bound: float,
    ) -> None:
        super().__init__()
        read = side_by_side([signature.even, signature.shared])
        made, bound = hidden.copies(activation.fan_out), bound ** (1 / (depth + 1))
        has_odd = signature.odd is not None
        even = [read, *[made] * depth], [*[hidden] * depth, signature.even_out]
        odd_made, odd_hidden = (made, hidden) if has_odd else (None, None)
        odd = [signature.odd, *[odd_made] * depth], [*[odd_hidden] * depth, signature.odd_out]
        self.even = nn.ModuleList(feature_map(a, b, bound=bound) for a, b in zip(*even, strict=True))
        self.odd = nn.ModuleList(feature_map(a, b, bound=bound) for a, b in zip(*odd, strict=True))
        self.shifts = nn.ModuleList(Shift(hidden) for _ in range(depth))
        self.activations = nn.ModuleList(activation(hidden) for _ in range(depth))
        fields = torch.tensor(hidden.field_sizes)
        self.register_buffer("gated", torch.arange(len(fields)).repeat_interleave(fields), persistent=False)
        self._has_odd = has_odd
        # a map of norm 1 from few features to many makes each of the many small: by the root of the ratio
        count = max(1, size_of(read) + size_of(signature.odd))  # a block of one mean-free row has no features
        self._scale = min(1.0, (count / hidden.numel) ** 0.5)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights."""
        pairs = zip(each(self.even, LipschitzLayer), each(self.odd, LipschitzLayer), strict=True)
        norms = torch.stack([torch.stack([layer.lipschitz_bound() for layer in pair]).max() for pair in pairs])
        return norms.prod() * math.prod(activation.lipschitz for activation in each(self.activations, Activation))

    def forward(self, x: Tensor, z: Tensor, shift: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The even and the odd features of the output.

        Args:
            x: The even and the shared features, of shape ``batch + (n, E + T)``.
            z: The odd features, of shape ``batch + (n, O)``.
            shift: What a context does to the first hidden layer: even features that are added before the activation,
                then one scalar for each field, by whose logistic function the field is multiplied; and odd features
                that are added.
        """
        for index, activation in enumerate(self.activations):
            x, z = self._linear(index, x, z)
            if index == 0 and shift is not None:
                x, z, _ = self._shifted(x, z, shift)
            if self._has_odd:
                pair = activation(torch.stack(to_mirror(x, z)) / self._scale).unbind(0)
                x, z = (self._scale * part for part in to_mirror(*pair))
            else:
                x = self._scale * activation(x / self._scale)
        return self._linear(len(self.shifts), x, z)

    def call_and_jacobians(
        self, x: Tensor, z: Tensor, shift: tuple[Tensor, Tensor] | None = None
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The even and the odd features of the output, and the Jacobian of each.

        The columns of a Jacobian are the even and shared features of the input, then the odd ones; its shape is ``batch
        + (n, outputs, E + T + O)``.

        Args:
            x: The even and the shared features, of shape ``batch + (n, E + T)``.
            z: The odd features, of shape ``batch + (n, O)``.
            shift: What a context does to the first hidden layer: even features that are added before the activation,
                then one scalar for each field, by whose logistic function the field is multiplied; and odd features
                that are added.
        """
        layers, odd_layers = each(self.even, KernelLayer), each(self.odd, KernelLayer)
        tangents = nn.functional.pad(layers[0].kernel().to(x), (0, z.shape[-1]))
        odd_tangents = nn.functional.pad(odd_layers[0].kernel().to(x), (x.shape[-1], 0))
        x, z = self._linear(0, x, z)
        for index, activation in enumerate(each(self.activations, Activation)):
            if index == 0 and shift is not None:
                x, z, gate = self._shifted(x, z, shift)
                tangents = gate * tangents
                odd_tangents = gate * odd_tangents if self._has_odd else odd_tangents
            if self._has_odd:
                points = torch.stack(to_mirror(x, z)) / self._scale
                both = torch.broadcast_tensors(tangents, odd_tangents)
                value, pushed = activation.call_and_push(points, _stacked(both, points))
                x, z = (self._scale * part for part in to_mirror(*value.unbind(0)))
                tangents, odd_tangents = to_mirror(*pushed.unbind(0))
                odd_tangents = odd_layers[index + 1].kernel().to(x) @ odd_tangents
            else:
                x, tangents = activation.call_and_push(x / self._scale, tangents)
                x = self._scale * x
                odd_tangents = x.new_zeros(odd_layers[index + 1].kernel().shape[0], tangents.shape[-1])
            tangents = layers[index + 1].kernel().to(x) @ tangents
            x, z = self._linear(index + 1, x, z)
        return (x, z), (_expanded(tangents, x), _expanded(odd_tangents, x))

    def _shifted(self, x: Tensor, z: Tensor, shift: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The features of the first hidden layer with a context, and the factor of their derivatives."""
        even, odd = shift[0][..., : x.shape[-1]], shift[1]
        # a factor of at most 1 for each field, by which also invariants of the context act on vectors
        gate = torch.sigmoid(2 + shift[0][..., x.shape[-1] :]).index_select(-1, self.gated)
        x, z = gate * (x + self._scale * even), gate * (z + self._scale * odd) if self._has_odd else z
        return x, z, gate.unsqueeze(-1)

    def _linear(self, index: int, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        even, odd = self.even[index](x), self.odd[index](z)
        return (self.shifts[index](even) if index < len(self.shifts) else even), odd


def _expanded(jacobian: Tensor, x: Tensor) -> Tensor:
    return jacobian.expand(*x.shape[:-1], *jacobian.shape[-2:])


def _stacked(tangents: tuple[Tensor, ...], points: Tensor) -> Tensor:
    """The tangents of the sums and of the differences, with as many dimensions as the points have, and one more."""
    stacked = torch.stack(to_mirror(*tangents))
    missing = points.ndim + 1 - stacked.ndim
    return stacked.reshape(2, *[1] * missing, *stacked.shape[1:])
