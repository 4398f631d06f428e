"""The hidden features of networks on rows, and their activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, RowTables, VectorAction
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.feature_maps import is_plain, side_by_side
from pyro_gflows.nn.hidden_fields import HiddenFields
from pyro_gflows.nn.networks import has_regular_fields
from pyro_gflows.nn.row_features import RowFeatures

__all__ = ["MirroredActivation", "RowsActivation", "hidden_features", "to_mirror"]


def hidden_features(*layouts: RowFeatures, width: int, invariants: bool = True) -> VectorAction:
    """How H acts on the hidden features of one row.

    These are ``width`` scalars where H does nothing, ``width`` regular fields where H is a small finite group, and else
    ``width`` invariants and ``width`` copies of each kind of vector that the rows contain.

    Args:
        layouts: What the rows of the input and of the output consist of.
        width: The number of fields.
        invariants: Whether there are invariants also where no row contains any, which matters for infinite H only.

    Raises:
        ValueError: If there is no feature at all.
    """
    every = side_by_side([action for x in layouts for action in (*x.even, *x.odd, x.rest)])
    if every is None:
        raise ValueError("expected rows with at least one feature, got none")
    if is_plain(every):
        return every.trivial_fields(width)
    if has_regular_fields(every):
        return every.regular_fields(width)
    found = HiddenFields(width, width)(every)
    if invariants or len(every.invariants()):
        return found
    return found.with_fields(found.fields[width:])


class MirroredActivation(nn.Module):
    r"""An activation :math:`\sigma` of even and odd features of one row, which respects the sign of the row.

    The sign acts on an even feature x and an odd feature z of the row as (x, z) -> (x, -z), which exchanges the sum and
    the difference of the two. The activation is applied to both:

    .. math:: p, q = \sigma\Big(\frac{x + z}{\sqrt2}\Big), \sigma\Big(\frac{x - z}{\sqrt2}\Big), \qquad
        (x, z) \mapsto \Big(\frac{p + q}{\sqrt2}, \frac{p - q}{\sqrt2}\Big)

    So the new x is an even function of z, as a product of two odd features is, and the new z is odd in z. Sums and
    differences are an orthogonal change of basis, so that the Lipschitz constant is that of :math:`\sigma`. It works
    for every activation, and without odd features the activation is applied to x alone.

    Args:
        activation: The activation of the features of H, to which the even and the odd features of a row belong alike.
    """

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    @property
    def lipschitz(self) -> float:
        """A Lipschitz constant that holds for all values of the weights; inf where no finite constant does."""
        return self.activation.lipschitz

    def forward(self, even: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
        if not odd.shape[-1]:
            return self.activation(even), odd
        first, second = self.activation(torch.stack(to_mirror(even, odd))).unbind(0)
        return to_mirror(first, second)


def to_mirror(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The sum and the difference of two tensors over the root of 2, which is its own inverse."""
    return (first + second) * 0.5**0.5, (first - second) * 0.5**0.5


class RowsActivation(nn.Module):
    """The activations of one hidden layer: one for the rows of each block, and one for the rest.

    Args:
        layout: What the rows of the hidden layer consist of.
        activation: The class of the activation.
        scale: The size of features at which the activations bend.
    """

    def __init__(self, layout: RowFeatures, activation: type[Activation], *, scale: float = 1.0) -> None:
        super().__init__()
        actions: list[LinearAction] = [action for action in layout.even if action is not None]
        self.rows = nn.ModuleList(MirroredActivation(activation(action)) for action in actions)
        self.rest = nn.Identity() if layout.rest is None else activation(layout.rest)
        self.lipschitz, self._scale = activation.lipschitz, scale

    def forward(self, rows: RowTables) -> RowTables:
        if self._scale == 1:
            return self._activated(rows)
        return _times(self._activated(_times(rows, 1 / self._scale)), self._scale)

    def _activated(self, rows: RowTables) -> RowTables:
        found = [layer(x, z) for layer, x, z in zip(self.rows, rows.even, rows.odd, strict=True)]
        even, odd = zip(*found, strict=True)
        return RowTables(even, odd, self.rest(rows.rest))


def _times(rows: RowTables, factor: float) -> RowTables:
    return RowTables(tuple(factor * x for x in rows.even), tuple(factor * z for z in rows.odd), factor * rows.rest)
