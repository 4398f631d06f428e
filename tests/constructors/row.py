"""One row of the table of constructors: how a transform is built, and the traits by which tests choose it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyro_gflows.transforms import EquivariantTransform

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """A named constructor; nothing is built until :attr:`build` is called.

    Args:
        family: The kind of layer, by which tests choose rows, and over which ``--rows`` spreads its choice.
        what: The name of the row within its family.
        build: The function that builds the transform, in torch's default dtype and with its first weights.
        image: Whether the events are images.
        bounded: Whether the values lie in an interval, which is the support.
        estimated: Whether the log-det is random in training, and an estimate in evaluation.
        piecewise_linear: Whether the slopes are piecewise constant, so that the log-det has no gradient in parameters
            that only shift the kinks.
        splits: Whether a layer splits events into parts.
        takes_context: Whether the transform takes a context.
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
