"""Rows of layers on the coordinates of particles, as layers on configurations."""

from __future__ import annotations

from pyro_gflows.actions import ParticleAction
from pyro_gflows.transforms import GActNorm, GLinear, InCoordinates, g_radial, g_residual
from tests.constructors.row import Row

__all__ = ["ROWS"]

FOUR = ParticleAction(4, 2)
SPECIES = ParticleAction((2, 1, 2), 3, group="SO(3)")
FREE = ParticleAction(3, 2, group="D3", center="free")

ROWS = (
    Row("particles", "radial in coordinates, 4 in the plane", lambda: InCoordinates(g_radial(FOUR.coordinates), FOUR)),
    Row("particles", "linear in coordinates, species", lambda: InCoordinates(GLinear(SPECIES.coordinates), SPECIES)),
    Row(
        "particles",
        "actnorm in coordinates, species",
        lambda: InCoordinates(GActNorm(SPECIES.coordinates), SPECIES),
    ),
    Row(
        "particles",
        "residual in coordinates, free center",
        lambda: InCoordinates(g_residual(FREE.coordinates), FREE),
    ),
)
