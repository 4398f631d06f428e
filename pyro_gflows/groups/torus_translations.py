"""TorusTranslations: the translations of angles that fix some integer combinations of the angles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.groups.base import Group
from pyro_gflows.numerics.angles import wrap_angle
from pyro_gflows.numerics.integer_lattices import divided_form, hermite_basis, inverse_of
from pyro_gflows.serialization.registry import registered

__all__ = ["TorusTranslations", "whole_rows"]


@registered
class TorusTranslations(Group):
    r"""All translations a of d angles that fix some integer combinations k of the angles: :math:`k \cdot a \in 2\pi Z`.

    Every closed subgroup of U(1)^d, the group of all translations, is of this form. For example, the translations by
    :math:`(t, -t)` for all t are those that fix :math:`x_1 + x_2`. An element is a vector of d angles in float64.

    Args:
        fixed: The integer combinations k, one in each row; or a tensor of them.

    Raises:
        ValueError: The rows are of different lengths or not whole, every combination is 0 (then only the uniform
            density is invariant), or there are d independent ones (then the group is finite).

    Example:
        >>> group = TorusTranslations([[1, 1]])
        >>> a = group.sample()
        >>> group, a.shape, bool(torch.isclose(a.sum().cos(), torch.ones_like(a.sum())))
        (translations that fix x1 + x2, torch.Size([2]), True)
    """

    order = math.inf

    def __init__(self, fixed: Sequence[Sequence[int]] | Tensor) -> None:
        rows = whole_rows(fixed)
        self.dimension = len(rows[0])
        self.fixed: tuple[tuple[int, ...], ...] = hermite_basis(rows)
        if not self.fixed:
            raise ValueError(
                "expected at least one integer combination of angles that is not 0: the group of all translations "
                "has only the uniform density as an invariant density, so there is nothing to learn"
            )
        self._divisors, to_coordinates = divided_form(self.fixed, self.dimension)
        self._from_coordinates = inverse_of(to_coordinates)
        if len(self.fixed) == self.dimension:
            raise ValueError(
                f"expected fewer than {self.dimension} independent combinations, got {self._described()}: only "
                f"{math.prod(self._divisors)} translations fix them; TorusAction.fixing makes the finite group"
            )
        self.element_shape = torch.Size([self.dimension])
        self.name = f"translations that fix {self._described()}"

    def _described(self) -> str:
        return " and ".join(_in_words(row) for row in self.fixed)

    # -- the maps -----------------------------------------------------------------------------------------------------
    @property
    def group(self) -> TorusTranslations:
        """The group itself, whose elements are its maps."""
        return self

    def act(self, elements: Tensor, x: Tensor) -> Tensor:
        """The images x + a in [0, 2 pi).

        Args:
            elements: Translations a, whose batch shape broadcasts with that of x.
            x: Angles of shape ``batch_shape + (d,)``.
        """
        return wrap_angle(x + elements.to(x))

    def matrix(self, elements: Tensor) -> Tensor:
        """The identity matrix for each element, float64, shape ``batch_shape + (d, d)``."""
        unit = torch.eye(self.dimension, dtype=torch.float64, device=elements.device)
        return unit.expand(*self.batch_shape(elements), -1, -1)

    def shift(self, elements: Tensor) -> Tensor:
        """The translations themselves."""
        return elements

    @property
    def coordinate_orders(self) -> tuple[int | float, ...]:
        """For each angle, by how many different amounts it is shifted; ``math.inf`` where by all of the circle."""
        orders: list[int | float] = []
        for row in self._from_coordinates:
            if any(row[len(self._divisors) :]):
                orders.append(math.inf)
            else:
                parts = [Fraction(entry, divisor) for entry, divisor in zip(row, self._divisors, strict=False)]
                orders.append(math.lcm(*[part.denominator for part in parts]))
        return tuple(orders)

    # -- the group ----------------------------------------------------------------------------------------------------
    def identity(self) -> Tensor:
        return torch.zeros(self.dimension, dtype=torch.float64)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        return wrap_angle(first + second)

    def inverse(self, elements: Tensor) -> Tensor:
        return wrap_angle(-elements)

    def _at(self, coordinates: Tensor) -> Tensor:
        """The translations with these coordinates, in which the group is a product of circles and cyclic groups."""
        matrix = torch.tensor(self._from_coordinates, dtype=torch.float64, device=coordinates.device)
        return wrap_angle(2 * math.pi * torch.remainder(coordinates @ matrix.T, 1.0))

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        shape = tuple(shape)
        parts = [torch.randint(divisor, shape, generator=generator).double() / divisor for divisor in self._divisors]
        while len(parts) < self.dimension:
            parts.append(torch.rand(shape, generator=generator, dtype=torch.float64))
        return self._at(torch.stack(parts, -1))

    def generators(self) -> Tensor:
        golden = (math.sqrt(5) - 1) / 2  # the multiples of an irrational part of the circle are dense in it
        parts = [1 / divisor if divisor > 1 else 0.0 for divisor in self._divisors]
        parts += [golden] * (self.dimension - len(parts))
        steps = torch.tensor(parts, dtype=torch.float64)
        return self._at(torch.diag(steps)[steps > 0])

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        counts = list(self._divisors)
        for index in range(len(counts), self.dimension):
            counts.append(band * sum(abs(row[index]) for row in self._from_coordinates) + 1)
        grids = [torch.arange(count, dtype=torch.float64) / count for count in counts]
        points = torch.cartesian_prod(*grids).reshape(-1, self.dimension)
        return self._at(points), torch.full((len(points),), 1.0 / len(points), dtype=torch.float64)

    def _key(self) -> Any:
        return (type(self).__name__, self.dimension, self.fixed)


def whole_rows(fixed: Sequence[Sequence[int]] | Tensor) -> list[list[int]]:
    """The combinations as lists of Python integers."""
    rows = fixed.tolist() if isinstance(fixed, Tensor) else [list(row) for row in fixed]
    if not rows or not all(isinstance(row, list) and row for row in rows) or len({len(row) for row in rows}) > 1:
        raise ValueError(f"expected a list of integer combinations of the angles, such as [[1, 1]], got {rows}")
    if not all(_is_whole(entry) for row in rows for entry in row):
        raise ValueError(f"expected combinations with whole coefficients, since angles count modulo 2 pi, got {rows}")
    return [[int(entry) for entry in row] for row in rows]


def _is_whole(entry: Any) -> bool:
    return isinstance(entry, int | float | np.number) and math.isfinite(entry) and int(entry) == entry


def _in_words(row: Sequence[int]) -> str:
    text = ""
    for index, entry in enumerate(row):
        if entry:
            size = "" if abs(entry) == 1 else f"{abs(entry)} "
            sign = ("- " if entry < 0 else "+ ") if text else ("-" if entry < 0 else "")
            text += f"{' ' if text else ''}{sign}{size}x{index + 1}"
    return text
