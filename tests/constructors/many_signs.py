"""Rows of layers under sign flips of any number, and under a product that cannot be listed."""

from __future__ import annotations

import functools

from pyro_gflows.actions import IrrepSplit, VectorAction
from pyro_gflows.groups import parse_group
from pyro_gflows.nn import lipschitz_branch
from pyro_gflows.numerics import RouletteLogDet, SeriesLogDet
from pyro_gflows.transforms import (
    EquivariantTransform,
    GActNorm,
    GCoupling,
    GLinear,
    g_autoregressive,
    g_coupling,
    g_residual,
)
from tests.constructors.row import Row

__all__ = ["ROWS"]

_BRANCH = functools.partial(lipschitz_branch, bound=0.6)


def signs() -> VectorAction:
    return VectorAction.signs(12)


def signs_and_vector() -> VectorAction:
    """Eleven signs, and a vector of the plane under rotations."""
    product = parse_group("C2^11 x SO(2)")
    return VectorAction.signs(11).lift(product, 0).direct_sum(VectorAction.plane("SO(2)").lift(product, 1))


def estimated() -> EquivariantTransform:
    return g_residual(signs(), branch=_BRANCH, log_det=RouletteLogDet(evaluation=SeriesLogDet(8, probes=1)))


ROWS = (
    Row("linear", "C2^12", lambda: GLinear(VectorAction.signs(12, copies=2))),
    Row("actnorm", "C2^12", lambda: GActNorm(signs())),
    Row("coupling", "C2^12", lambda: g_coupling(signs(), width=2, depth=1), splits=True),
    Row(
        "coupling",
        "irreps of C2^12",
        lambda: GCoupling(signs(), split=IrrepSplit(signs()), width=2, depth=1),
        splits=True,
    ),
    Row("coupling", "C2^11 x SO(2)", lambda: g_coupling(signs_and_vector(), width=2, depth=1), splits=True),
    Row(
        "autoregressive",
        "C2^11, twice",
        lambda: g_autoregressive(VectorAction.signs(11, copies=2), width=2, depth=1),
        splits=True,
    ),
    Row("residual", "C2^12", lambda: g_residual(signs(), branch=_BRANCH)),
    Row("residual", "estimated, C2^12", estimated, estimated=True),
)
