"""A budget of CPU time, by which schedules go and trainings end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from pyro_gflows.training import Schedule

__all__ = ["MANY_STEPS", "Clock"]

MANY_STEPS = 10**9  # of a training that a clock ends


class Clock:
    """How much of a budget of CPU time is used.

    Trainings of different designs are compared at the same time, not at as many steps; CPU time of one thread is what
    a busy machine changes least. Learning rates and temperatures follow the clock in place of the number of steps.

    Args:
        minutes: The budget.
        now: The time in seconds; by default the CPU time of this process.

    Example:
        >>> times = iter([0.0, 15.0, 30.0, 90.0])
        >>> clock = Clock(1.0, now=lambda: next(times))
        >>> clock.schedule(lambda done: 1 - done)(0.0), clock.done, clock.stop()
        (0.75, 0.5, True)
    """

    def __init__(self, minutes: float, *, now: Callable[[], float] = time.process_time) -> None:
        self.seconds, self._now = 60 * minutes, now
        self._began = now()

    def part(self, fraction: float) -> Clock:
        """A clock that starts now and has this fraction of the whole budget."""
        return Clock(fraction * self.seconds / 60, now=self._now)

    @property
    def used(self) -> float:
        """Seconds since the clock was made."""
        return self._now() - self._began

    @property
    def done(self) -> float:
        """The fraction of the budget that is used, below 1."""
        return min(self.used / self.seconds, math.nextafter(1.0, 0.0))

    def schedule(self, shape: Schedule) -> Schedule:
        """A schedule that follows the clock, whatever step it is asked for."""

        def value(done: float) -> float:
            return shape(self.done)

        return value

    def stop(self, *_: Any) -> bool:
        """Whether the budget is used; a callback of a training."""
        return self.used >= self.seconds
