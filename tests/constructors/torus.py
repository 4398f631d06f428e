"""Rows of layers on angles."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.nn import PeriodicNetwork
from pyro_gflows.numerics import RouletteLogDet, SeriesLogDet
from pyro_gflows.transforms import GResidual, g_residual
from tests.constructors.row import Row

__all__ = ["ROWS", "square", "thirds"]


def square() -> TorusAction:
    """The symmetries of the square, with translations by half a circle: 32 elements."""
    return TorusAction.point_group("D4").with_translations([[math.pi, 0.0]])


def thirds() -> TorusAction:
    """Translations of three angles by thirds of the circle, and a cyclic exchange with a translation (a screw)."""
    return TorusAction.from_generators(
        [([1, 2, 0], [Fraction(1, 3), 0.0, 0.0]), ([0, 1, 2], [Fraction(1, 3), Fraction(1, 3), Fraction(1, 3)])]
    )


def residual(action: TorusAction, *, depth: int = 1, estimated: bool = False, sample: bool = False) -> GResidual:
    branch = functools.partial(PeriodicNetwork, width=2, depth=depth, bound=0.6)
    log_det = RouletteLogDet(evaluation=SeriesLogDet(8, probes=1)) if estimated else None
    return g_residual(action, branch=branch, log_det=log_det, fast="sample" if sample else "score")


ROWS = (
    Row("residual", "angles, D4 with half periods", lambda: residual(square())),
    Row("residual", "angles, screw and thirds", lambda: residual(thirds())),
    Row(
        "residual",
        "angles, all common translations, for sampling",
        lambda: residual(TorusAction.fixing([[1, -1, 0], [0, 1, -1]]), sample=True),
    ),
    Row(
        "residual",
        "a trigonometric polynomial of an angle, reflection",
        lambda: residual(TorusAction.point_group(VectorAction.signs(1)), depth=0),
    ),
    Row(
        "residual",
        "angles, estimated log-det, D1",
        lambda: residual(TorusAction.point_group("D1"), estimated=True),
        estimated=True,
    ),
)
