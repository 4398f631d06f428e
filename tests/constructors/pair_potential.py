"""Rows of layers by pair potentials of particles."""

from __future__ import annotations

from pyro_gflows.actions import ParticleAction
from pyro_gflows.transforms import Fast, GPairPotential
from tests.constructors.row import Row

__all__ = ["ROWS"]


def pairs(action: ParticleAction, *, one_body: bool = True, fast: Fast = "score") -> GPairPotential:
    return GPairPotential(action, knots=6, limit=4.0, one_body=one_body, fast=fast)


ROWS = (
    Row("pair potential", "4 in the plane", lambda: pairs(ParticleAction(4, 2))),
    Row("pair potential", "two species in space", lambda: pairs(ParticleAction((2, 3), 3))),
    Row(
        "pair potential",
        "free center, pairs alone, D3",
        lambda: pairs(ParticleAction(3, 2, group="D3", center="free"), one_body=False),
    ),
    Row("pair potential", "2 on the line", lambda: pairs(ParticleAction(2, 1))),
    Row(
        "pair potential",
        "for sampling, rotations in space",
        lambda: pairs(ParticleAction((1, 2), 3, group="SO(3)"), fast="sample"),
    ),
)
