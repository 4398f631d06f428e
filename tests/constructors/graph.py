"""Rows of residual layers on particles with messages along their differences."""

from __future__ import annotations

from pyro_gflows.actions import ParticleAction
from pyro_gflows.transforms import g_graph_residual
from tests.constructors.row import Row

__all__ = ["ROWS"]

ROWS = (
    Row("graph residual", "4 in the plane", lambda: g_graph_residual(ParticleAction(4, 2), width=2)),
    Row(
        "graph residual",
        "species, for sampling",
        lambda: g_graph_residual(ParticleAction((2, 1, 2), 3, group="SO(3)"), width=2, fast="sample"),
    ),
)
