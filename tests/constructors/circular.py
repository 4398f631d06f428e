"""Rows of layers with circular splines on angles."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from pyro_gflows.actions import TorusAction, TorusSplit, VectorAction
from pyro_gflows.transforms import (
    ElementwiseCircularSpline,
    GCoupling,
    GInverseAutoregressive,
    g_autoregressive,
    g_coupling,
)
from tests.constructors.row import Row
from tests.constructors.torus import square, thirds

__all__ = ["ROWS", "exchange", "glide", "half_periods"]

_FEW_BINS = functools.partial(ElementwiseCircularSpline, bins=3)


def half_periods() -> TorusAction:
    """Both reflections of two angles, with the translation of both by half a circle."""
    return TorusAction.point_group("D2").with_translations([[math.pi, math.pi]])


def glide() -> TorusAction:
    """A reflection of the second angle about 45 degrees, together with a translation of the first by half a circle."""
    return TorusAction.from_generators([([[1, 0], [0, -1]], [math.pi, math.pi / 2])])


def exchange() -> TorusAction:
    """An exchange of two of three angles with a sign and a translation, and a translation of all three."""
    turn = ([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [0.0, math.pi, 0.0])
    return TorusAction.from_generators([turn, ([0, 1, 2], [math.pi, math.pi, math.pi])])


def all_alike(action: TorusAction) -> GCoupling:
    split = TorusSplit(action, [range(action.numel)])
    return GCoupling(action, split=split, transformed=0, width=2, depth=1)


def with_context() -> GCoupling:
    action = TorusAction.point_group("D1")
    return GCoupling(action, width=2, depth=1, context_action=VectorAction.regular(action.group))


ROWS = (
    Row(
        "coupling",
        "angles without symmetry",
        lambda: g_coupling(TorusAction.trivial(2), transformer=_FEW_BINS, width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "angles, translations by thirds and sixths",
        lambda: GCoupling(TorusAction.translations([[Fraction(1, 3), Fraction(1, 6)]]), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "angles, D2 with half periods",
        lambda: g_coupling(half_periods(), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "angles, glide reflection",
        lambda: g_coupling(glide(), transformer=_FEW_BINS, width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "angles, exchange with a sign",
        lambda: g_coupling(exchange(), width=2, depth=1),
        splits=True,
    ),
    Row(
        "coupling",
        "angles, translations that fix 2 x1 - x2",
        lambda: g_coupling(TorusAction.fixing([[2, -1]]), width=2, depth=1),
        splits=True,
    ),
    Row("coupling", "angles all alike, D4 with half periods", lambda: all_alike(square()), splits=True),
    Row("coupling", "angles all alike, screw and thirds", lambda: all_alike(thirds()), splits=True),
    Row("coupling", "angles with a context, D1", with_context, splits=True, takes_context=True),
    Row(
        "autoregressive",
        "angles, D2 with half periods",
        lambda: g_autoregressive(half_periods(), width=2, depth=1),
        splits=True,
    ),
    Row(
        "inverse autoregressive",
        "angles, translations that fix x1 + x2 and x3",
        lambda: GInverseAutoregressive(
            TorusAction.fixing([[1, 1, 0], [0, 0, 1]]),
            split=TorusSplit(TorusAction.fixing([[1, 1, 0], [0, 0, 1]]), [[0], [1], [2]], order=1),
            transformer=_FEW_BINS,
            width=2,
            depth=1,
        ),
        splits=True,
    ),
)
