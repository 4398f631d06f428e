"""The maps x -> M x + a of vectors of angles, exactly: a signed permutation M and rational parts a of the circle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from pyro_gflows.groups.closure import as_matrix

__all__ = ["TorusIsometry", "as_isometry", "as_part_of_circle"]

_CLOSE = 1e-12  # in radians


@dataclass(frozen=True)
class TorusIsometry:
    r"""The map of angles :math:`y_i = \mathrm{sign}_i\,x_{\mathrm{source}_i} + 2\pi\,\mathrm{shift}_i`.

    Such maps are compared and composed exactly.

    Attributes:
        sources: The index of the angle that each angle of the image is made from.
        signs: 1 or -1 for each angle of the image.
        shift: The translation, in parts of the full circle, each in [0, 1).

    Example:
        >>> half = TorusIsometry((0,), (-1,), (Fraction(1, 2),))  # x -> -x + pi
        >>> half.after(half) == TorusIsometry.identity(1)
        True
    """

    sources: tuple[int, ...]
    signs: tuple[int, ...]
    shift: tuple[Fraction, ...]

    @classmethod
    def identity(cls, dimension: int) -> TorusIsometry:
        """The map that leaves all angles as they are."""
        return cls(tuple(range(dimension)), (1,) * dimension, (Fraction(0),) * dimension)

    def after(self, first: TorusIsometry) -> TorusIsometry:
        """The map x -> self(first(x))."""
        places = range(len(self.sources))
        return TorusIsometry(
            tuple(first.sources[self.sources[i]] for i in places),
            tuple(self.signs[i] * first.signs[self.sources[i]] for i in places),
            tuple((self.signs[i] * first.shift[self.sources[i]] + self.shift[i]) % 1 for i in places),
        )

    @property
    def is_translation(self) -> bool:
        """Whether M is the identity."""
        return self.sources == tuple(range(len(self.sources))) and set(self.signs) == {1}

    def matrix(self) -> list[list[int]]:
        """The rows of M."""
        size = range(len(self.sources))
        return [[self.signs[i] * int(self.sources[i] == j) for j in size] for i in size]


def as_isometry(matrix: Any, shift: Sequence[Any] | Tensor, what: str, *, max_denominator: int) -> TorusIsometry:
    """The map x -> M x + a with a given M and a.

    Args:
        matrix: M, a signed permutation matrix, or a permutation p as a list of indices, which sends angle j to place
            p[j].
        shift: a, one angle for each coordinate: in radians, or a ``fractions.Fraction`` of the full circle.
        what: The name of the map in error messages.
        max_denominator: The largest denominator of a part of the circle.

    Raises:
        ValueError: M is not a signed permutation, a has another length, or an angle is no rational part of the circle.

    Example:
        >>> as_isometry([[-1]], [math.pi / 2], "reflection", max_denominator=8).shift
        (Fraction(1, 4),)
    """
    linear = as_matrix(matrix, what)
    if not ((linear == 0) | (linear.abs() == 1)).all():
        raise ValueError(
            f"{what}: expected a signed permutation matrix (entries -1, 0 and 1), got {linear.tolist()}; no other "
            "orthogonal matrix maps angles that differ by full circles to such angles"
        )
    angles = list(shift)
    if len(angles) != len(linear):
        raise ValueError(f"{what}: expected a translation of {len(linear)} angles, got {len(angles)}")
    sources = linear.abs().argmax(1)
    signs = linear.gather(1, sources[:, None]).squeeze(1)
    parts = tuple(as_part_of_circle(angle, what, max_denominator=max_denominator) for angle in angles)
    return TorusIsometry(tuple(sources.tolist()), tuple(int(sign) for sign in signs.tolist()), parts)


def as_part_of_circle(angle: Any, what: str, *, max_denominator: int) -> Fraction:
    """An angle as an exact part of the full circle, in [0, 1).

    Args:
        angle: An angle in radians, or a ``fractions.Fraction`` of the full circle.
        what: The name of the angle in error messages.
        max_denominator: The largest denominator.

    Raises:
        TypeError: The angle is no number.
        ValueError: No fraction with such a denominator is within 1e-12 radians of the angle.

    Example:
        >>> as_part_of_circle(-math.pi / 2, "a", max_denominator=8)
        Fraction(3, 4)
    """
    if isinstance(angle, Fraction):
        return angle % 1
    if isinstance(angle, bool) or not isinstance(angle, int | float | Tensor):
        raise TypeError(
            f"{what}: expected an angle in radians, or a fractions.Fraction of the full circle, got {angle!r}"
        )
    radians = float(angle)
    if not math.isfinite(radians):
        raise ValueError(f"{what}: expected a finite angle, got {radians}")
    part = Fraction(radians / (2 * math.pi)).limit_denominator(max_denominator)
    if abs(2 * math.pi * part.numerator / part.denominator - radians) > _CLOSE * max(1.0, abs(radians)):
        raise ValueError(
            f"{what}: expected a translation by a rational part of the full circle with a denominator of at most "
            f"{max_denominator}, so that the group is finite, got {radians} radians = {radians / (2 * math.pi):.6g} of "
            "the circle; give it as math.pi / 2 in float64, or exactly as fractions.Fraction(1, 4) of the circle. For "
            "all translations along a direction, take TorusAction.fixing"
        )
    return part % 1
