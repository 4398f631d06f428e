"""Rows of layers on the rows of a table that are permuted, and on many signs."""

from __future__ import annotations

import functools

from pyro_gflows.actions import RowsAction, VectorAction
from pyro_gflows.nn import LipschitzRowsNetwork, RowsAttention
from pyro_gflows.numerics import RouletteLogDet, SeriesLogDet
from pyro_gflows.transforms import (
    Compose,
    ElementwiseSpline,
    GActNorm,
    GAffine,
    GLinear,
    GLinearPLU,
    GRadial,
    GResidual,
    MatrixScale,
    by_field,
    g_autoregressive,
    g_coupling,
)
from tests.constructors.row import Row
from tests.constructors.row_actions import hidden_units, mixture

__all__ = ["ROWS"]

_SPLINE = functools.partial(ElementwiseSpline, bins=4)
_coupling = functools.partial(g_coupling, width=2, depth=1)
_autoregressive = functools.partial(g_autoregressive, width=2, depth=1)


def points(count: int) -> RowsAction:
    return RowsAction(count, VectorAction.plane("O(2)", copies=2))


def particles(count: int) -> RowsAction:
    return RowsAction(count, VectorAction.space("O(3)").direct_sum(VectorAction.trivial("O(3)")))


def estimated(action: RowsAction) -> GResidual:
    branch = LipschitzRowsNetwork(action, width=2, depth=2, bound=0.6)
    return GResidual(action, branch, log_det=RouletteLogDet(evaluation=SeriesLogDet(8, probes=1)))


def with_context(action: RowsAction) -> Compose:
    return _coupling(action, context_action=action.trivial_fields(2).direct_sum(RowsAction(*action.structure.sizes)))


ROWS = (
    Row("actnorm", "rows, 20 hidden units", lambda: GActNorm(hidden_units(20))),
    Row("linear", "rows, S50", lambda: GLinear(RowsAction(50))),
    Row("linear", "rows, S5 x O(2)", lambda: GLinear(points(5))),
    Row("linear, triangular", "rows, signed S4, odd and even", lambda: GLinearPLU(RowsAction(4, 3, signed=[0, 2]))),
    Row("linear, triangular", "rows, mixture of 8", lambda: GLinearPLU(mixture(8))),
    Row("radial", "rows, S13 x O(3)", lambda: GRadial(particles(13), bins=6)),
    Row("coupling", "rows, S3", lambda: _coupling(RowsAction(3, 2)), splits=True),
    Row("coupling", "rows, S50", lambda: _coupling(RowsAction(50, 2)), splits=True),
    Row("coupling", "rows, 20 hidden units", lambda: _coupling(hidden_units(20)), splits=True),
    Row("coupling", "rows, mixture of 8", lambda: _coupling(mixture(8)), splits=True),
    Row("coupling", "rows, S13 x O(3)", lambda: _coupling(particles(13)), splits=True),
    Row(
        "coupling",
        "rows, splines, signed S4, odd and even",
        lambda: _coupling(RowsAction(4, 3, signed=[0, 2]), transformer=_SPLINE),
        splits=True,
    ),
    Row(
        "coupling",
        "rows, splines field by field, mixture of 8",
        lambda: _coupling(mixture(8), transformer=functools.partial(by_field, transformer=_SPLINE)),
        splits=True,
    ),
    Row(
        "coupling",
        "rows, attention, S8",
        lambda: g_coupling(RowsAction(8, 2), network=functools.partial(RowsAttention, width=2, depth=1, keys=2)),
        splits=True,
    ),
    Row(
        "coupling",
        "rows, matrix exponential, mean-free",
        lambda: _coupling(RowsAction(8, 2, mean_free=True), transformer=MatrixScale),
        splits=True,
    ),
    Row("autoregressive", "rows, two blocks", lambda: _autoregressive(RowsAction((7, 2), 2)), splits=True),
    Row("autoregressive", "rows, mixture of 3", lambda: _autoregressive(mixture(3)), splits=True),
    Row(
        "inverse autoregressive",
        "rows, S5 x O(2)",
        lambda: _autoregressive(points(5), fast="sample"),
        splits=True,
    ),
    Row("residual", "rows, estimated, S8", lambda: estimated(RowsAction(8, 2)), estimated=True),
    Row("residual", "rows, estimated, S5 x O(2)", lambda: estimated(points(5)), estimated=True),
    Row(
        "affine",
        "rows, rows of S8",
        lambda: GAffine(RowsAction(8, 2), context_action=RowsAction(8, 3), width=2),
        takes_context=True,
    ),
    Row(
        "coupling",
        "rows, a context of rows and of the set, S8",
        lambda: with_context(RowsAction(8, 2)),
        splits=True,
        takes_context=True,
    ),
    Row("coupling", "signs, C2^12", lambda: _coupling(VectorAction.signs(12)), splits=True),
)
