"""Rows of gradient maps on tori, and of Moser's flow."""

from __future__ import annotations

import math

from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.nn import TorusPotential
from pyro_gflows.transforms import Compose, Fast, GGradient, GMoser
from tests.constructors.own_branch import CosineDensity
from tests.constructors.row import Row
from tests.constructors.torus import square, thirds

__all__ = ["ROWS", "glides"]


def glides() -> TorusAction:
    """A reflection together with a translation by half a circle, and the exchange of two angles."""
    return TorusAction.from_generators([([[1, 0], [0, -1]], [math.pi, 0.0]), ([[0, 1], [1, 0]], [0.0, 0.0])])


def gradient(action: TorusAction, *, frequencies: int = 2, fast: Fast = "score") -> GGradient:
    return GGradient(action, TorusPotential(action, frequencies=frequencies, waves=2), fast=fast)


def moser_then_gradient() -> Compose:
    action = TorusAction.point_group(VectorAction.signs(1))
    moser = GMoser(action, CosineDensity(0.4), CosineDensity(0.3, 2), grid=16, steps=2)
    return Compose([moser, gradient(action)])


ROWS = (
    Row("gradient", "angles, D4 with half periods", lambda: gradient(square())),
    Row("gradient", "angles, glides, for sampling", lambda: gradient(glides(), fast="sample")),
    Row("gradient", "angles, screw and thirds", lambda: gradient(thirds())),
    Row("gradient", "four permuted angles", lambda: gradient(TorusAction.point_group(VectorAction.rows("S4")))),
    Row("moser", "then a gradient map, reflection", moser_then_gradient),
)
