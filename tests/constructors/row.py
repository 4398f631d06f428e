"""One row of the table of constructors: how a transform is built, and what a test has to know of it beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyro_gflows.transforms import EquivariantTransform

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """A named constructor. Nothing is built until :attr:`build` is called.

    Args:
        family: the kind of layer, by which tests choose rows, and over which ``--rows`` spreads those that it keeps.
        what: tells the rows of a family apart.
        build: makes the transform, in torch's default dtype, with the weights that it starts with.
        image: its events are images.
        bounded: its values lie in an interval, which is then the support.
        estimated: its log-det is random while it trains, and an estimate afterwards.
        piecewise_linear: its slopes are piecewise constant, so that the log-det has no gradient in what only moves the
            kinks.
        splits: some layer of it splits events into parts.
        takes_context: it is one of the conditional transforms.
    """

    family: str
    what: str
    build: Callable[[], EquivariantTransform]
    image: bool = False
    bounded: bool = False
    estimated: bool = False
    piecewise_linear: bool = False
    splits: bool = False
    takes_context: bool = False

    @property
    def name(self) -> str:
        return f"{self.family}, {self.what}"
