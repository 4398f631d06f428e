"""Rows of layers by pair potentials of particles, and of leapfrog steps with such potentials."""

from __future__ import annotations

from pyro_gflows.actions import ParticleAction
from pyro_gflows.transforms import Fast, GLeapfrog, GPairPotential
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
    Row("leapfrog", "4 in the plane", lambda: GLeapfrog(ParticleAction(4, 2), knots=6, limit=4.0)),
    Row(
        "leapfrog",
        "two steps, species, free center",
        lambda: GLeapfrog(ParticleAction((1, 2), 2, group="D3", center="free"), steps=2, knots=6, limit=4.0),
    ),
)
