"""The time steps of Moser's flow, which are shorter where the velocity changes faster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Clock"]

_LARGEST = 100.0  # with singularities so far away the steps are equal


@dataclass(frozen=True)
class Clock:
    r"""A smooth increasing time t(s) from [0, 1] onto [0, 1], for a velocity with singularities outside of [0, 1].

    .. math:: \frac{dt}{ds} \propto \Big(\frac{1}{t + a} + \frac{1}{1 - t + b}\Big)^{-1}

    Here -a and 1 + b are the times near which t(s) is slow. Equal steps in s keep the order of a Runge-Kutta method,
    with smaller errors than equal steps in t.

    Args:
        before: a, positive.
        after: b, positive.

    Example:
        >>> clock = Clock(0.01, 1.0)
        >>> clock.time(0.0), round(clock.time(1.0), 6), clock.time(0.5) < 0.2
        (0.0, 1.0, True)
    """

    before: float
    after: float

    @classmethod
    def between(cls, p: Tensor, q: Tensor) -> Clock:
        """The clock for the velocity of Moser's flow, from the values of the densities p and q on a grid.

        The velocity at x is singular where (1 - t) p(x) + t q(x) = 0, at a time t outside of [0, 1]. The square root of
        the distance of the nearest such time is taken, since few points travel through the places x where it is small.

        Args:
            p: The values of the first density.
            q: The values of the second density.
        """
        nearest = (float((first / (second - first).clamp(min=0)).min()) for first, second in ((p, q), (q, p)))
        before, after = (math.sqrt(min(distance, _LARGEST)) for distance in nearest)
        return cls(before, after)

    @property
    def _rate(self) -> float:
        return math.log((1 + 1 / self.before) * (1 + 1 / self.after))

    def time(self, s: float) -> float:
        """The time t(s).

        Args:
            s: A number from 0 to 1.
        """
        odds = self.before / (1 + self.after) * math.exp(self._rate * s)  # (t + a) / (1 + b - t)
        return (odds * (1 + self.after) - self.before) / (1 + odds)

    def speed(self, s: float) -> float:
        """The derivative dt/ds.

        Args:
            s: A number from 0 to 1.
        """
        t = self.time(s)
        return self._rate / (1 / (t + self.before) + 1 / (1 - t + self.after))
