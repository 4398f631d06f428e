"""Rows of augmented couplings on particles: positions beside clouds of auxiliary vectors."""

from __future__ import annotations

from pyro_gflows.actions import ParticleAction
from pyro_gflows.transforms import Compose, GRelative, g_augmented_coupling
from tests.constructors.row import Row

__all__ = ["ROWS"]


def two_steps(action: ParticleAction, copies: int) -> Compose:
    steps = [g_augmented_coupling(action, copies=copies, width=4, depth=1) for _ in range(2)]
    return Compose([*steps, GRelative(action, copies=copies)])


ROWS = (
    Row("augmented coupling", "4 in the plane", lambda: two_steps(ParticleAction(4, 2), 1), splits=True),
    Row(
        "augmented coupling",
        "species, 2 clouds",
        lambda: two_steps(ParticleAction((2, 1, 2), 3, group="SO(3)"), 2),
        splits=True,
    ),
)
