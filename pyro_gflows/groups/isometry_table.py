"""IsometryTable: the maps x -> M x + a of all elements of a finite group that acts on angles, as exact tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, require_enumerable
from pyro_gflows.groups.closure import generate_exactly
from pyro_gflows.groups.finite import FiniteGroup
from pyro_gflows.groups.torus_isometries import TorusIsometry
from pyro_gflows.numerics.angles import wrap_angle
from pyro_gflows.numerics.constants import as_constants, made_once, rows_at
from pyro_gflows.numerics.integer_lattices import integer_dual
from pyro_gflows.serialization.registry import registered

__all__ = ["IsometryTable"]


@registered
class IsometryTable:
    r"""One map of angles :math:`x \mapsto M x + a` for each element of a finite group, in whole numbers.

    Args:
        group: The group.
        matrices: M for each element, shape ``(|G|, d, d)``, signed permutation matrices.
        steps: a for each element in multiples of ``2 pi / denominator``, shape ``(|G|, d)``.
        denominator: The denominator of the parts of the full circle.

    Raises:
        ValueError: The shapes are wrong, a matrix is not a signed permutation, or the maps do not multiply as the
            elements do.

    Example:
        >>> from pyro_gflows.groups.finite import CyclicGroup
        >>> table = IsometryTable(CyclicGroup(2), [[[1]], [[1]]], steps=[[0], [1]], denominator=2)
        >>> table.act(torch.tensor(1), torch.tensor([0.5]))
        tensor([3.6416])
    """

    def __init__(self, group: EnumerableGroup, matrices: Any, *, steps: Any, denominator: int = 1) -> None:
        self.group = require_enumerable(group, "a table of all maps")
        linear, steps = torch.as_tensor(matrices).long().cpu(), torch.as_tensor(steps).long().cpu()
        if linear.ndim != 3 or linear.shape[0] != group.order or linear.shape[1] != linear.shape[2]:
            raise ValueError(f"expected matrices of shape ({group.order}, d, d), got {tuple(linear.shape)}")
        if steps.shape != linear.shape[:2]:
            raise ValueError(f"expected shifts of shape {tuple(linear.shape[:2])}, got {tuple(steps.shape)}")
        if denominator < 1:
            raise ValueError(f"expected a positive denominator, got {denominator}")
        if not ((linear.abs().sum(1) == 1).all() and (linear.abs().sum(2) == 1).all()):
            raise ValueError("expected signed permutation matrices, with one entry 1 or -1 in each row and column")
        self.matrices, self.steps, self.denominator = linear, steps % denominator, denominator
        generators = group.generators()[:, None]
        products = group.compose(generators, group.elements())
        left = self.matrices[generators]
        images = ((left @ self.steps[..., None]).squeeze(-1) + self.steps[generators]) % denominator
        if not (torch.equal(left @ linear, linear[products]) and torch.equal(images, self.steps[products])):
            raise ValueError(f"expected maps x -> M x + a that multiply as the elements of {group} do")

    @property
    def dimension(self) -> int:
        """The number of angles."""
        return self.matrices.shape[-1]

    @classmethod
    def generated(cls, maps: Sequence[TorusIsometry], *, max_order: int, name: str | None = None) -> IsometryTable:
        """The group of all products of some maps.

        Args:
            maps: The generators, of one number of angles.
            max_order: The largest number of elements that is accepted.
            name: The name of the group, by default made from its order.

        Raises:
            ValueError: The numbers of angles differ, or there are more than ``max_order`` elements.
        """
        sizes = [len(each.sources) for each in maps]
        if len(set(sizes)) != 1:
            raise ValueError(f"expected maps of one number of angles, got {sizes}")
        identity = TorusIsometry.identity(sizes[0])
        group, found = generate_exactly(identity, maps, TorusIsometry.after, max_order=max_order, name=name)
        denominator = math.lcm(*[part.denominator for each in found for part in each.shift])
        steps = [[int(part * denominator) for part in each.shift] for each in found]
        matrices = torch.tensor([each.matrix() for each in found])
        return cls(group, matrices, steps=torch.tensor(steps), denominator=denominator)

    def named(self, name: str) -> IsometryTable:
        """The same maps, whose group has another name."""
        group = FiniteGroup(name, self.group.table, self.group.generators().tolist())
        return IsometryTable(group, self.matrices, steps=self.steps, denominator=self.denominator)

    # -- the maps -----------------------------------------------------------------------------------------------------
    def act(self, elements: Tensor, x: Tensor) -> Tensor:
        """The images M x + a in [0, 2 pi).

        Args:
            elements: Elements of the group, whose batch shape broadcasts with that of x.
            x: Angles of shape ``batch_shape + (d,)``.
        """
        elements = elements.to(x.device)
        matrices = rows_at(self._constant("matrices", x.device, x.dtype), elements)
        shifts = rows_at(self._constant("shifts", x.device, x.dtype), elements)
        return wrap_angle((matrices @ x[..., None]).squeeze(-1) + shifts)

    def matrix(self, elements: Tensor) -> Tensor:
        """M for some elements, float64, shape ``batch_shape + (d, d)``."""
        return rows_at(self._constant("matrices", elements.device, torch.float64), elements)

    def shift(self, elements: Tensor) -> Tensor:
        """The translation a for some elements, angles in float64, shape ``batch_shape + (d,)``."""
        return rows_at(self._constant("shifts", elements.device, torch.float64), elements)

    def isometry(self, element: int) -> TorusIsometry:
        """The map of one element."""
        linear = self.matrices[element]
        shift = tuple(Fraction(step, self.denominator) for step in self.steps[element].tolist())
        return TorusIsometry(tuple(linear.abs().argmax(1).tolist()), tuple(linear.sum(1).tolist()), shift)

    def pure_steps(self) -> list[list[int]]:
        """The translations among the maps (M = 1), in multiples of ``2 pi / denominator``."""
        pure = (self.matrices == torch.eye(self.dimension, dtype=torch.int64)).flatten(1).all(1)
        found: list[list[int]] = self.steps[pure].tolist()
        return found

    @made_once
    def fixed(self) -> tuple[tuple[int, ...], ...]:
        """A basis of the integer combinations of angles that all translations among the maps fix, modulo 2 pi."""
        return integer_dual(self.pure_steps(), self.denominator, self.dimension)

    @property
    def coordinate_orders(self) -> tuple[int | float, ...]:
        """For each angle, by how many different amounts the translations among the maps shift it."""
        columns = zip(*self.pure_steps(), strict=True)
        return tuple(self.denominator // math.gcd(self.denominator, *column) for column in columns)

    def _constant(self, what: str, device: torch.device, dtype: torch.dtype) -> Tensor:
        if (what, device, dtype) not in self._constants:
            with as_constants():
                angles = 2 * math.pi * (self.steps.double() / self.denominator)
                exact = self.matrices.double() if what == "matrices" else angles
                self._constants[what, device, dtype] = exact.to(device, dtype)
        return self._constants[what, device, dtype]

    @made_once
    def _constants(self) -> dict[tuple[str, torch.device, torch.dtype], Tensor]:
        return {}

    @made_once
    def _value(self) -> tuple[bytes, ...]:
        # in lowest terms, as bytes, which are compared outside of torch
        common = math.gcd(self.denominator, *self.steps.flatten().tolist())
        denominator = str(self.denominator // common).encode()
        return denominator, self.matrices.numpy().tobytes(), (self.steps // common).numpy().tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IsometryTable) and self.group == other.group and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_constants", "_value", "fixed")}
