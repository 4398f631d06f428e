"""The designs of the table: how each density is built for a target, how it is trained and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.particles.continuous import graph_cnf, radial_cnf
from benchmarks.particles.plain import plain_coupling
from benchmarks.particles.problems import Problem
from benchmarks.particles.training import ByEnergy, ByLikelihood, FlowMatching

__all__ = ["DESIGNS", "Design", "Training"]

Training = ByLikelihood | ByEnergy | FlowMatching
BOTH = ("dw4", "lj13")


@dataclass(frozen=True)
class Design:
    """One density of particles, and its trainings.

    Attributes:
        name: What the command and the table call it.
        build: From a problem and ``size`` to a flow, or a distribution with a module.
        training: The trainings by name, ``"likelihood"`` or ``"energy"``.
        minutes: CPU minutes of a training, by target; there is a row for each of these targets.
        size: Keywords of ``build``.
        draws: Own draws over which ESS is measured, 100,000 unless drawing is too slow.
        at_once: Events that are drawn or scored at a time.
    """

    name: str
    build: Callable[..., Any]
    training: Mapping[str, Training]
    minutes: Mapping[str, float]
    size: Mapping[str, Any] = field(default_factory=dict)
    draws: int = 100_000
    at_once: int = 500

    def make(self, problem: Problem) -> Any:
        """A new density of the problem's target."""
        return self.build(problem, **self.size)


DESIGNS: Sequence[Design] = [
    Design(
        "plain coupling, augmented data",
        plain_coupling,
        {"likelihood": ByLikelihood(lr=2e-3, augment=True)},
        {"dw4": 15, "lj13": 15},
        {"blocks": 6, "width": 64},
        at_once=2000,
    ),
    Design(
        "CNF, radial kernel",
        radial_cnf,
        {"likelihood": ByLikelihood(lr=1e-2, batch_size=64)},
        {"dw4": 15, "lj13": 15},
        draws=10_000,
    ),
    Design(
        "CNF, graph network",
        graph_cnf,
        {"likelihood": FlowMatching()},
        {"dw4": 15, "lj13": 15},
        {"width": 44, "layers": 3},
        draws=10_000,
        at_once=100,
    ),
]
