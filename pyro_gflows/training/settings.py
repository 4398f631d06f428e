"""How a flow is trained: small frozen objects, each one decision."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from pyro_gflows.deprecation import renamed_arguments, renamed_attributes
from pyro_gflows.training.optimizers import Adam, OptimizerSettings, TorchOptimizer, optimizer_settings

__all__ = [
    "Adam",
    "Constant",
    "FitSettings",
    "OneCycle",
    "OptimizerSettings",
    "Ramp",
    "Schedule",
    "TorchOptimizer",
    "Validation",
]


class Schedule(Protocol):
    """A number when a fraction of the run (0 <= done < 1) is over, such as the factor on the learning rate.

    It has no state, so that a resumed run cannot disagree with an unbroken one.
    """

    def __call__(self, done: float) -> float: ...


@dataclass(frozen=True)
class Constant:
    """Always the peak learning rate."""

    def __call__(self, done: float) -> float:
        """The factor 1."""
        return 1.0


@dataclass(frozen=True)
class OneCycle:
    """Rise along a cosine from ``start`` to 1 over the first ``warmup`` of the run, then fall along one to ``end``.

    Example:
        >>> schedule = OneCycle(warmup=0.25, start=0.04, end=0.0)
        >>> [round(schedule(done), 2) for done in (0.0, 0.25, 0.625, 1.0)]
        [0.04, 1.0, 0.5, 0.0]
    """

    warmup: float = 0.25
    start: float = 0.04
    end: float = 1e-4

    def __post_init__(self) -> None:
        if not 0 < self.warmup < 1:
            raise ValueError(f"expected a warm-up fraction between 0 and 1, got {self.warmup}")

    def __call__(self, done: float) -> float:
        """The factor after the fraction ``done`` of the run."""
        if done < self.warmup:
            return _cosine(self.start, 1.0, done / self.warmup)
        return _cosine(1.0, self.end, (done - self.warmup) / (1 - self.warmup))


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Ramp:
    """From ``start`` to ``end`` along a straight line over the first part of the run, and ``end`` from then on.

    Args:
        start: The number at the beginning.
        end: The number from the fraction ``until`` of the run on.
        until: That fraction.

    Example:
        >>> [Ramp(start=0.2, end=1.0, until=0.5)(done) for done in (0.0, 0.25, 0.5, 0.9)]
        [0.2, 0.6, 1.0, 1.0]
    """

    start: float
    end: float = 1.0
    until: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1 or not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise ValueError(f"expected finite ends and a fraction until in (0, 1], got {self}")

    def __call__(self, done: float) -> float:
        """The number after the fraction ``done`` of the run."""
        passed = min(1.0, done / self.until)
        return (1 - passed) * self.start + passed * self.end


@dataclass(frozen=True)
class Validation:
    """When to look at the held-out NLL, and when to stop because of it.

    Args:
        every: Steps between two looks.
        patience: Stop after this many looks without a gain and return the best weights; None runs all steps and
            returns the last weights.
    """

    every: int = 250
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1 or (self.patience is not None and self.patience < 1):
            raise ValueError(f"expected every >= 1 and patience >= 1 (or None), got {self.every} and {self.patience}")


@renamed_arguments(held_out="validation")
@renamed_attributes(held_out="validation")
@dataclass(frozen=True)
class FitSettings:
    """All that decides how :func:`pyro_gflows.training.fit` trains.

    Args:
        steps: Number of optimizer steps.
        batch_size: Events a step (at most the number of rows of the data; a ``DataLoader`` has its own).
        seed: Of the minibatches, the augmentation and everything random inside the flow while it trains.
        optimizer: For example ``Adam(lr=3e-3)``, or ``TorchOptimizer(torch.optim.AdamW, lr=3e-3)`` for any other class;
            the bare class, or a ``functools.partial`` of it, is taken too.
        schedule: ``OneCycle()`` or ``Constant()``.
        ema_decay: Decay of the exponential moving average of the weights, which is then what is validated and returned;
            None returns the weights themselves.
        validation: When to validate, and early stopping.
        checkpoint_every: Steps between two checkpoints.
        check_symmetry: Whether :func:`~pyro_gflows.training.fit` tests at the start if the data contradict the flow's
            symmetry, and warns if so; it does not where there is an augmentation.

    Example:
        >>> FitSettings(steps=100, optimizer=Adam(lr=3e-3)).batch_size
        512
    """

    steps: int = 2000
    batch_size: int = 512
    seed: int = 0
    optimizer: OptimizerSettings = field(default_factory=Adam)
    schedule: Schedule = field(default_factory=OneCycle)
    ema_decay: float | None = None
    validation: Validation = field(default_factory=Validation)
    checkpoint_every: int = 500
    check_symmetry: bool = field(default=True, repr=False)  # it decides nothing about the weights

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        object.__setattr__(self, "optimizer", optimizer_settings(self.optimizer))
        if not callable(self.schedule):
            raise TypeError(
                f"expected a schedule such as OneCycle(), a function of the fraction of the run that is over, got "
                f"{type(self.schedule).__name__}"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"expected ema_decay between 0 and 1, or None, got {self.ema_decay}")
