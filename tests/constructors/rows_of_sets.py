"""Rows of residual layers on rows of any number, which are permuted and may change sign."""

from __future__ import annotations

import functools

from pyro_gflows.actions import RowsAction, VectorAction
from pyro_gflows.nn import LipschitzRowsNetwork, PooledBranch
from pyro_gflows.numerics import RouletteLogDet, SeriesLogDet
from pyro_gflows.transforms import GMonotone, GResidual, g_residual
from tests.constructors.row import Row
from tests.constructors.row_actions import mixture

__all__ = ["ROWS"]


def units() -> RowsAction:
    """The weights (odd) and prior scales (even) of hidden units."""
    return RowsAction(3, 3, signed=[0, 2])


def pooled(action: RowsAction) -> GResidual:
    branch = functools.partial(PooledBranch, width=3, pooled=2, bound=0.6)
    return g_residual(action, branch=branch)


def in_context() -> GResidual:
    branch = PooledBranch(units(), width=3, pooled=2, bound=0.6, context_action=RowsAction(3, 2, signed=[1]))
    return GResidual(units(), branch)


def deep_set() -> GResidual:
    action = RowsAction(7, 1)  # 5,040 permutations are too many to average over
    log_det = RouletteLogDet(evaluation=SeriesLogDet(8, probes=1))
    return GResidual(action, LipschitzRowsNetwork(action, width=2, bound=0.6), log_det=log_det)


ROWS = (
    Row("residual", "pooled, S8", lambda: pooled(RowsAction(8, 1))),
    Row("residual", "pooled, S3 with two blocks", lambda: pooled(RowsAction((3, 2), 2))),
    Row("residual", "pooled, a mixture of 4", lambda: pooled(mixture(4))),
    Row("residual", "pooled, signed S3", lambda: pooled(units())),
    Row("residual", "pooled, S3 x O(2)", lambda: pooled(RowsAction(3, VectorAction.plane("O(2)")))),
    Row("residual", "deep set, signed S3", lambda: GResidual(units(), LipschitzRowsNetwork(units(), bound=0.6))),
    Row("residual", "estimated, deep set S7", deep_set, estimated=True),
    Row(
        "monotone", "deep set, S4", lambda: GMonotone(RowsAction(4, 2), LipschitzRowsNetwork(RowsAction(4, 2), width=2))
    ),
    Row("residual", "pooled, signed S3 with a context of the rows", in_context, takes_context=True),
)
