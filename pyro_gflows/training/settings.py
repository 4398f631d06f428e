"""The settings of a training run: small frozen objects for one decision each."""

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
    """A function of the fraction of the run that is over, such as the factor on the learning rate.

    :class:`Constant`, :class:`OneCycle` and :class:`Ramp` are schedules, and any function may be one. A schedule has no
    state, so that a resumed run and an unbroken one agree.

    Example:
        >>> from pyro_gflows import FitSettings
        >>> FitSettings(schedule=lambda done: 1 - done).schedule(0.25)
        0.75
    """

    def __call__(self, done: float) -> float:
        """Returns the value after a fraction of the run.

        Args:
            done: The fraction of the run that is over, in [0, 1).
        """
        ...


@dataclass(frozen=True)
class Constant:
    """The schedule that is always 1: the learning rate stays at its peak.

    Example:
        >>> Constant()(0.5)
        1.0
    """

    def __call__(self, done: float) -> float:
        """Returns 1.

        Args:
            done: The fraction of the run that is over.
        """
        return 1.0


@dataclass(frozen=True)
class OneCycle:
    """The schedule that rises along a cosine from ``start`` to 1 and then falls along a cosine to ``end``.

    The slow start prevents divergence of untrained layers, and the low end removes the noise of the minibatches.

    Args:
        warmup: The fraction of the run during which it rises, between 0 and 1.
        start: The value at the beginning.
        end: The value at the end of the run.

    Raises:
        ValueError: ``warmup`` is not between 0 and 1.

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
        """Returns the factor on the learning rate.

        Args:
            done: The fraction of the run that is over.
        """
        if done < self.warmup:
            return _cosine(self.start, 1.0, done / self.warmup)
        return _cosine(1.0, self.end, (done - self.warmup) / (1 - self.warmup))


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Ramp:
    """The schedule that goes along a straight line from ``start`` to ``end`` and then stays at ``end``.

    It serves as the inverse temperature or the share of a second loss in :func:`fit_energy`.

    Args:
        start: The value at the beginning of the run.
        end: The value at the fraction ``until`` of the run and after it.
        until: The fraction of the run at which ``end`` is reached, in (0, 1].

    Raises:
        ValueError: ``start`` or ``end`` is not finite, or ``until`` is outside (0, 1].

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
        """Returns the value after a fraction of the run.

        Args:
            done: The fraction of the run that is over.
        """
        passed = min(1.0, done / self.until)
        return (1 - passed) * self.start + passed * self.end


@dataclass(frozen=True)
class Validation:
    """How often the validation loss is measured, and when the run stops early because of it.

    Args:
        every: The number of steps between two validations.
        patience: The number of validations without a gain after which the run stops; the weights with the lowest
            validation loss are then returned. None runs all steps and returns the last weights.

    Raises:
        ValueError: ``every`` or ``patience`` is below 1.

    Example:
        >>> FitSettings(steps=10_000, validation=Validation(every=100, patience=5)).validation.patience
        5
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
    """All settings that determine how :func:`pyro_gflows.training.fit` trains.

    Args:
        steps: The number of optimizer steps.
        batch_size: The number of events in a step, at most the number of rows of the data; a ``DataLoader`` has its own
            batch size.
        seed: The seed of the minibatches, the augmentation and all random draws inside the flow during training.
        optimizer: The optimizer, for example ``Adam(lr=3e-3)``, or ``TorchOptimizer(torch.optim.AdamW, lr=3e-3)`` for
            any other class. An optimizer class or a ``functools.partial`` of one is accepted as well.
        schedule: The factor on the learning rate over the run, for example ``OneCycle()`` or ``Constant()``.
        ema_decay: The decay of the exponential moving average of the weights, between 0 and 1. The averaged weights are
            then validated and returned. None returns the weights themselves.
        validation: How often the validation loss is measured, and early stopping.
        checkpoint_every: The number of steps between two checkpoints.
        check_symmetry: Whether :func:`~pyro_gflows.training.fit` checks at the start if the data contradict the flow's
            symmetry, and warns if they do. It does not check data with an augmentation.

    Raises:
        ValueError: ``steps``, ``batch_size`` or ``checkpoint_every`` is below 1, or ``ema_decay`` is not between 0 and
            1.
        TypeError: ``optimizer`` does not describe an optimizer, or ``schedule`` is not a function.

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
    check_symmetry: bool = field(default=True, repr=False)  # it does not influence the weights

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
