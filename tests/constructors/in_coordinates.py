"""Rows of layers on the coordinates of particles, as layers on configurations."""

from __future__ import annotations

from collections.abc import Callable

from pyro_gflows.actions import ParticleAction, RowsAction
from pyro_gflows.transforms import EquivariantTransform, GActNorm, GLinear, InCoordinates, g_radial, g_residual
from tests.constructors.row import Row

__all__ = ["ROWS", "four", "free", "species"]


def four() -> ParticleAction:
    """Four particles in the plane."""
    return ParticleAction(4, 2)


def species() -> ParticleAction:
    """Five particles of three species in space, under rotations only."""
    return ParticleAction((2, 1, 2), 3, group="SO(3)")


def free() -> ParticleAction:
    """Three particles in the plane with any center, under the symmetries of a triangle."""
    return ParticleAction(3, 2, group="D3", center="free")


def _layer(action: ParticleAction, build: Callable[[RowsAction], EquivariantTransform]) -> InCoordinates:
    return InCoordinates(build(action.coordinates), action)


ROWS = (
    Row("particles", "radial in coordinates, 4 in the plane", lambda: _layer(four(), g_radial)),
    Row("particles", "linear in coordinates, species", lambda: _layer(species(), GLinear)),
    Row("particles", "actnorm in coordinates, species", lambda: _layer(species(), GActNorm)),
    Row("particles", "residual in coordinates, free center", lambda: _layer(free(), g_residual)),
)
