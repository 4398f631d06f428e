"""The designs of the table: how each density is built for a target, how it is trained and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.particles.continuous import graph_cnf, radial_cnf
from benchmarks.particles.finite import (
    augmented_coupling,
    internal_coordinates,
    many_body,
    pair_potentials,
    placement,
)
from benchmarks.particles.plain import plain_coupling
from benchmarks.particles.problems import Problem
from benchmarks.particles.training import ByEnergy, ByLikelihood, FlowMatching, OnFinerGrids
from pyro_gflows.flows import placement_on_grids
from pyro_gflows.nn.placement_grids import PlacementGrids

__all__ = ["DESIGNS", "Design", "Training"]

#: CPU minutes of designs that are compared at equal training time.
COMPARED: Mapping[str, float] = {"dw4": 3, "lj13": 5}
Training = ByLikelihood | ByEnergy | FlowMatching | OnFinerGrids


@dataclass(frozen=True)
class Design:
    """One density of particles, and its trainings.

    Attributes:
        name: What the command and the table call it.
        build: From a problem and ``size`` to a flow, or a distribution with a module.
        training: The trainings by name, ``"likelihood"`` or ``"energy"``.
        minutes: CPU minutes of a training, by target; there is a row for each of these targets.
        size: Keywords of ``build``.
        draws: Own draws over which ESS is measured, by target, where 100,000 would take too long.
        at_once: Events that are drawn or scored at a time.
        scored: Test draws that are scored, by target, where all would take too long.
        measured: From the trained flow to the one that is measured, which has the same weights; None for itself.
    """

    name: str
    build: Callable[..., Any]
    training: Mapping[str, Training]
    minutes: Mapping[str, float]
    size: Mapping[str, Any] = field(default_factory=dict)
    draws: Mapping[str, int] = field(default_factory=dict)
    at_once: int = 500
    scored: Mapping[str, int] = field(default_factory=dict)
    measured: Callable[[Any], Any] | None = None

    def make(self, problem: Problem) -> Any:
        """A new density of the problem's target."""
        return self.build(problem, **self.size)


DESIGNS: Sequence[Design] = [
    Design(
        "sequential placement",
        placement,
        {"likelihood": ByLikelihood(lr=1e-2, batch_size=128)},
        {"dw4": 3},
    ),
    Design(
        "sequential placement, started at the energy of pairs",
        placement,
        {"energy": ByEnergy(lr=1e-2, batch_size=128, hot=0.5, until=0.2)},
        {"dw4": 6},
        {"informed": True, "width": 48},
    ),
    Design(
        "sequential placement, started at the energy of pairs",
        placement,
        {"likelihood": ByLikelihood(lr=5e-3, batch_size=24)},
        {"lj13": 25},
        {"informed": True},
        draws={"lj13": 10_000},
        scored={"lj13": 2000},
        # the core of a repulsion needs more knots of the polar angle
        measured=partial(placement_on_grids, grids=PlacementGrids(radii=9, angles=24, polar=81, ring=96)),
    ),
    Design(
        "sequential placement, later on finer grids",
        placement,
        {
            "likelihood": OnFinerGrids(
                ByLikelihood(lr=5e-3, batch_size=24),
                ByLikelihood(lr=3e-3, batch_size=24),
                PlacementGrids(radii=13, angles=24, cosines=8, polar=41, ring=96),
                share=0.4,
            )
        },
        {"lj13": 50},
        {"informed": True, "width": 48},
        scored={"lj13": 2000},
        measured=partial(placement_on_grids, grids=PlacementGrids(radii=13, angles=24, cosines=8, polar=61, ring=96)),
    ),
    Design(
        "10 pair potentials",
        pair_potentials,
        {"likelihood": ByLikelihood(lr=1e-2)},
        COMPARED,
        {"layers": 10},
        draws={"dw4": 20_000, "lj13": 20_000},
    ),
    Design(
        "plain coupling, random images of the data",
        plain_coupling,
        {"likelihood": ByLikelihood(lr=2e-3, augment=True)},
        COMPARED,
        {"blocks": 6, "width": 64},
        at_once=2000,
    ),
    Design(
        "CNF, graph network",
        graph_cnf,
        {"likelihood": FlowMatching()},
        COMPARED,
        {"width": 44, "layers": 3},
        draws={"dw4": 5000, "lj13": 500},
        at_once=100,
        scored={"dw4": 2000, "lj13": 200},
    ),
    Design(
        "internal coordinates, sum over 48 images",
        internal_coordinates,
        {"likelihood": ByLikelihood(lr=3e-3, batch_size=128)},
        {"dw4": 5},
        {"layers": 3, "width": 32, "bins": 10},
        draws={"dw4": 20_000},
        scored={"dw4": 20_000},
    ),
    Design(
        "6 residual layers of many bodies",
        many_body,
        {"likelihood": ByLikelihood(lr=5e-3)},
        {"dw4": COMPARED["dw4"]},
        {"layers": 6},
        draws={"dw4": 10_000},
        scored={"dw4": 20_000},
    ),
    Design(
        "augmented coupling",
        augmented_coupling,
        {"likelihood": ByLikelihood(lr=3e-3)},
        COMPARED,
        {"layers": 8, "width": 24, "depth": 1},
        draws={"dw4": 20_000, "lj13": 20_000},
        scored={"dw4": 5000, "lj13": 2000},
    ),
    Design(
        "CNF, radial kernel",
        radial_cnf,
        {"likelihood": ByLikelihood(lr=1e-2, batch_size=64)},
        {"dw4": COMPARED["dw4"]},
        draws={"dw4": 5000},
        scored={"dw4": 5000},
    ),
]
