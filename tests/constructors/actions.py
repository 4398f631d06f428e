"""Actions that several rows use, and residual branches on them."""

from __future__ import annotations

import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.groups import MatrixRepresentation, TrivialRepresentation, parse_group
from pyro_gflows.groups.escnn_representation import EscnnRepresentation
from pyro_gflows.groups.finite import DihedralGroup
from pyro_gflows.nn import LipschitzNetwork, LipschitzSum, RadialTerm, Ridges

__all__ = [
    "QUATERNIONS",
    "SIGN_FLIPS",
    "frequencies",
    "interleaved",
    "network",
    "ridges",
    "rows_and_signs",
    "shifts_with_rotations",
]

QUATERNIONS = [
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]
SIGN_FLIPS = [torch.diag(torch.tensor([-1.0, 1.0, 1.0])), torch.diag(torch.tensor([1.0, -1.0, -1.0]))]


def interleaved() -> VectorAction:
    """A plane, a scalar and a plane again: fields of one kind that are not neighbors."""
    group = DihedralGroup(3)
    plane = MatrixRepresentation(group, group.plane())
    return VectorAction([plane, TrivialRepresentation(group), plane])


def frequencies() -> VectorAction:
    """Two planes that SO(2) rotates, the second by twice the angle, as escnn represents them."""
    return VectorAction([EscnnRepresentation("SO(2)", [(1,), (2,)], torch.eye(4, dtype=torch.float64))])


def rows_and_signs() -> VectorAction:
    """Three rows that are permuted, and a scalar whose sign flips independently."""
    group = parse_group("S3 x C2")
    return VectorAction.rows("S3").lift(group, 0).direct_sum(VectorAction.signs(1).lift(group, 1))


def shifts_with_rotations(channels: int) -> ImageAction:
    """All shifts of a periodic grid with the rotations and reflections of the square: 72 elements."""
    return ImageAction.translations(channels, size=3, point_group="D4")


def ridges(action: VectorAction) -> LipschitzSum:
    return LipschitzSum([Ridges(action, 3, knots=8), RadialTerm(action, knots=8)])


def network(action: VectorAction | ImageAction, *, bound: float = 0.6) -> LipschitzNetwork:
    return LipschitzNetwork(action, width=2, depth=1, bound=bound)
