"""How a group acts on the parameters of circular splines: it permutes their pieces and their knots."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_gflows.actions import Action, LinearAction, TorusAction, VectorAction
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.groups.isometry_table import IsometryTable
from pyro_gflows.groups.orbits import orbit_fields
from pyro_gflows.groups.representations import Representation, TrivialRepresentation

__all__ = ["CircularFields"]


class CircularFields(nn.Module):
    r"""The parameters of a circular spline for each of d angles, as a group acts on them.

    Each spline has K pieces, which begin at K knots, the first one at :math:`-\pi`. A group element that acts on angles
    by :math:`x \mapsto M x + a` permutes the pieces of all splines, and the knots, as it acts on a regular grid of
    pieces: a reflection reverses them, and a translation by :math:`2\pi / s` shifts them by K / s. A call maps
    parameters to widths, heights and slopes of shape ``(..., d, K)`` and phases of shape ``(..., d)``, on which the
    group acts by M.

    Args:
        action: How the group acts on the angles.
        bins: The least number of pieces; K is the next multiple of the number s of sectors.

    Raises:
        ValueError: The group does not permute angles up to signs, or there are infinitely many translations.

    Attributes:
        bins: K.
        sectors: s, the common denominator of the translations in parts of the full circle.
        action: How the group acts on the parameters.

    Example:
        >>> fields = CircularFields(VectorAction.signs(1), 4)
        >>> widths, heights, slopes, phase = fields(torch.arange(13.0))
        >>> widths.shape, phase
        (torch.Size([1, 4]), tensor([12.]))
        >>> reflected = fields(fields.action.act(1, torch.arange(13.0)))
        >>> reflected[0].equal(widths.flip(-1)), reflected[2].equal(slopes[:, [0, 3, 2, 1]])
        (True, True)
    """

    pieces: Tensor
    beginnings: Tensor

    def __init__(self, action: Action, bins: int) -> None:
        super().__init__()
        linear, steps, self.sectors = _shifts(action)
        if not linear.is_signed_permutation or linear.event_dim != 1:
            raise ValueError(f"a circular spline commutes with (signed) permutations of vectors only, got {action}")
        self.bins = -(-bins // self.sectors) * self.sectors
        self._shape = (linear.numel, self.bins)
        fields: list[Representation] = []
        for name, repetitions, shift in (("pieces", 2, 1), ("beginnings", 1, 0)):
            order, own = self._permuted(linear, steps, shift)
            fields += own * repetitions
            self.register_buffer(name, order.argsort(), persistent=False)
        self.action: VectorAction = VectorAction([*fields, *linear.fields])

    def _permuted(self, linear: LinearAction, steps: Tensor | None, shift: int) -> tuple[Tensor, list[Representation]]:
        """An order of all pieces (shift 1) or knots (shift 0), and the fields that they are in this order."""
        count, bins = self._shape
        group = linear.group
        if not group.is_finite or group.order == 1:
            return torch.arange(count * bins), [TrivialRepresentation(group)] * (count * bins)
        group = require_enumerable(group, "a circular spline")
        matrices = linear.matrix(group.elements())  # M[g, i, j] is the sign with which g takes angle j to place i
        places, signs = matrices.abs().argmax(-2), matrices.sum(-2)
        index = torch.arange(bins)
        images = torch.where(signs[..., None] > 0, index, bins - shift - index)
        if steps is not None:
            images = images + (steps.gather(-1, places) * (bins // self.sectors))[..., None]
        targets = (places[..., None] * bins + images % bins).flatten(1)
        return orbit_fields(group, targets)

    def forward(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The raw widths, heights, slopes and phases."""
        size = math.prod(self._shape)
        widths, heights, slopes, phase = params.split([size, size, size, self._shape[0]], -1)
        return (
            widths.index_select(-1, self.pieces).unflatten(-1, self._shape),
            heights.index_select(-1, self.pieces).unflatten(-1, self._shape),
            slopes.index_select(-1, self.beginnings).unflatten(-1, self._shape),
            phase,
        )

    def extra_repr(self) -> str:
        return f"{self._shape[0]} splines of {self.bins} pieces, {self.sectors} sectors"


def _shifts(action: Action) -> tuple[LinearAction, Tensor | None, int]:
    """The matrices of an action, its translations in multiples of 2 pi / s, and s."""
    if isinstance(action, LinearAction):
        return action, None, 1
    if not isinstance(action, TorusAction) or not isinstance(action.maps, IsometryTable):
        raise ValueError(f"expected an action with finitely many translations of angles, got {action}")
    steps, denominator = action.maps.steps, action.maps.denominator
    common = math.gcd(denominator, *steps.flatten().tolist())
    return action.linear_part, steps // common, denominator // common
