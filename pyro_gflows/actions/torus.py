"""TorusAction: a group that acts on vectors of angles, x -> M x + a modulo 2 pi."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.groups.base import Group, require_enumerable
from pyro_gflows.groups.isometry_table import IsometryTable
from pyro_gflows.groups.representations import MatrixRepresentation
from pyro_gflows.groups.torus_isometries import as_isometry
from pyro_gflows.groups.torus_translations import TorusTranslations, whole_rows
from pyro_gflows.numerics.constants import made_once
from pyro_gflows.numerics.integer_lattices import divided_form, hermite_basis, inverse_of
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Torus

__all__ = ["TorusAction"]

_MAX_ORDER = 1024


@registered
class TorusAction(Action):
    r"""A group that acts on d angles by reflections, exchanges and translations, :math:`x \mapsto M x + a` mod 2 pi.

    M is a signed permutation matrix: it exchanges angles and changes their signs. The usual actions have a constructor
    each: :meth:`point_group` (no translations), :meth:`with_translations`, :meth:`translations`, :meth:`fixing` (all
    translations that leave some sums and differences of angles as they are), and :meth:`from_generators` for any finite
    group. Images have angles in [0, 2 pi).

    Args:
        maps: The group with the map of each element: an :class:`~pyro_gflows.groups.IsometryTable` for a finite group,
            or :class:`~pyro_gflows.groups.TorusTranslations`, whose elements are translations.

    Raises:
        TypeError: The maps are of another type.

    Example:
        >>> action = TorusAction.point_group("D4").with_translations([[torch.pi, torch.pi]])
        >>> action, action.group.order
        (TorusAction(D4 with 2 translations on T^2), 16)
        >>> action.act(1, torch.tensor([0.5, 1.0]))  # rotation by 90 degrees
        tensor([5.2832, 0.5000])
    """

    def __init__(self, maps: IsometryTable | TorusTranslations) -> None:
        if not isinstance(maps, IsometryTable | TorusTranslations):
            raise TypeError(
                f"expected an IsometryTable or TorusTranslations of pyro_gflows.groups, got {type(maps).__name__}; the "
                "usual actions are TorusAction.point_group('D4'), .translations, .fixing and .from_generators"
            )
        self.maps = maps
        self.group = maps.group
        self.event_shape = torch.Size([maps.dimension])

    @made_once
    def space(self) -> Torus:
        """The torus of all vectors of d angles."""
        return Torus(self.event_shape)

    # -- constructors -------------------------------------------------------------------------------------------------
    @classmethod
    def trivial(cls, dimension: int) -> TorusAction:
        """No symmetry: the group C1 on ``dimension`` angles.

        Example:
            >>> TorusAction.trivial(3)
            TorusAction(C1 on T^3)
        """
        return cls.point_group(VectorAction.trivial("C1", copies=dimension))

    @classmethod
    def point_group(cls, symmetry: str | Group | VectorAction) -> TorusAction:
        """Exchanges and sign flips of angles, without translations.

        Args:
            symmetry: A group of the plane for two angles: C1, C2, C4, D1, D2 or D4, or its name. For other numbers of
                angles, an action on vectors by signed permutations: ``VectorAction.signs(d)`` has a reflection x -> -x
                for each angle, and ``VectorAction.rows("S3")`` permutes three angles.

        Raises:
            ValueError: The group is infinite, or not all matrices are signed permutations.

        Example:
            >>> TorusAction.point_group("C4").act(1, torch.tensor([0.5, 1.0]))
            tensor([5.2832, 0.5000])
            >>> TorusAction.point_group(VectorAction.signs(1))  # one angle and its reflection
            TorusAction(C2 on T^1)
        """
        action = symmetry if isinstance(symmetry, VectorAction) else VectorAction.plane(symmetry)
        if not action.is_signed_permutation:
            raise ValueError(
                f"expected a finite group of signed permutations, got {action}, which has other matrices; on two "
                "angles the groups C1, C2, C4, D1, D2 and D4 act"
            )
        matrices = action.matrix(action.elements()).round().long()
        steps = torch.zeros(matrices.shape[:2], dtype=torch.int64)
        return cls(IsometryTable(require_enumerable(action.group), matrices, steps=steps))

    @classmethod
    def translations(cls, shifts: Sequence[Sequence[Any]] | Tensor) -> TorusAction:
        """The finite group of all sums of some translations.

        Args:
            shifts: Vectors of angles in radians, which are rational parts of the full circle; or of ``Fraction`` parts
                of it.

        Raises:
            ValueError: There is no translation, or an angle is no rational part of the circle.

        Example:
            >>> TorusAction.translations([[torch.pi, torch.pi]])
            TorusAction(2 translations on T^2)
        """
        if len(shifts) == 0:
            raise ValueError("expected at least one translation, got none; for no symmetry use TorusAction.trivial(d)")
        return cls.trivial(len(_as_vectors(shifts)[0])).with_translations(shifts)

    @classmethod
    def fixing(cls, combinations: Sequence[Sequence[int]] | Tensor) -> TorusAction:
        """All translations that leave some integer combinations of the angles as they are, modulo 2 pi.

        These are the closed subgroups of U(1)^d. As many independent combinations as angles give a finite group.

        Args:
            combinations: One integer combination in each row: ``[[1, -1]]`` for the difference of two angles, which all
                common translations of both angles fix.

        Raises:
            ValueError: The combinations are not whole, or all 0: only the uniform density is invariant under all
                translations.

        Example:
            >>> TorusAction.fixing([[1, -1]])
            TorusAction(translations that fix x1 - x2 on T^2)
            >>> TorusAction.fixing([[4]]).group.order  # the translations by multiples of 90 degrees
            4
        """
        rows = whole_rows(combinations)
        basis, dimension = hermite_basis(rows), len(rows[0])
        if len(basis) < dimension:
            return cls(TorusTranslations(rows))
        divisors, coordinates = divided_form(basis, dimension)
        columns = zip(*inverse_of(coordinates), strict=True)
        steps = [
            [Fraction(entry, divisor) for entry in column] for column, divisor in zip(columns, divisors, strict=True)
        ]
        return cls.trivial(dimension).with_translations(steps)

    @classmethod
    def from_generators(
        cls, generators: Sequence[tuple[Any, Any]], *, max_order: int = _MAX_ORDER, name: str | None = None
    ) -> TorusAction:
        """The finite group of all products of the user's own maps x -> M x + a. The closure is computed exactly.

        Args:
            generators: Pairs (M, a): a signed permutation matrix, or a permutation as a list of indices; and a vector
                of angles in radians, or of ``fractions.Fraction`` parts of the full circle.
            max_order: The largest number of elements that is accepted.
            name: The name of the group, by default made from its order.

        Raises:
            ValueError: M is not a signed permutation, an angle is no rational part of the circle (to 1e-12), or the
                group has more than ``max_order`` elements.

        Example:
            >>> glide = ([[1, 0], [0, -1]], [torch.pi, 0.0])  # a reflection together with a translation
            >>> TorusAction.from_generators([glide]).group.order
            2
        """
        maps = [
            as_isometry(matrix, shift, f"generator {index}", max_denominator=max_order)
            for index, (matrix, shift) in enumerate(generators)
        ]
        if not maps:
            raise ValueError("expected at least one generator, got none; for no symmetry use TorusAction.trivial(d)")
        return cls(IsometryTable.generated(maps, max_order=max_order, name=name))

    def with_translations(
        self, shifts: Sequence[Sequence[Any]] | Tensor, *, max_order: int = _MAX_ORDER
    ) -> TorusAction:
        """The finite group of the products of these maps with some translations, their images included (semidirect).

        Args:
            shifts: Vectors of angles in radians, or of ``Fraction`` parts of the full circle.
            max_order: The largest number of elements that is accepted.

        Raises:
            ValueError: This group is infinite, an angle is no rational part of the circle, or there are more than
                ``max_order`` elements.

        Example:
            >>> TorusAction.point_group("D4").with_translations([[torch.pi, 0.0]]).group.order  # (0, pi) is an image
            32
        """
        if not isinstance(self.maps, IsometryTable):
            raise ValueError(f"expected a finite group, got {self.group}, which has infinitely many translations")
        maps = [self.maps.isometry(element) for element in self.maps.group.generators().tolist()]
        for index, shift in enumerate(_as_vectors(shifts)):
            unit = torch.eye(self.numel, dtype=torch.float64)
            maps.append(as_isometry(unit, shift, f"translation {index}", max_denominator=max_order))
        table = IsometryTable.generated(maps, max_order=max_order)
        first = "" if self.group.order == 1 else f"{self.group} with "
        return TorusAction(table.named(f"{first}{len(table.pure_steps())} translations"))

    # -- the maps -----------------------------------------------------------------------------------------------------
    @property
    def matrices(self) -> Tensor:
        """M for each element of a finite group, float64, shape ``(|G|, d, d)``.

        Raises:
            ValueError: The group is infinite.
        """
        return self.matrix(self.elements())

    @property
    def shifts(self) -> Tensor:
        """The translation a for each element of a finite group, angles in [0, 2 pi) in float64, shape ``(|G|, d)``.

        Raises:
            ValueError: The group is infinite.
        """
        return self.shift(self.elements())

    def matrix(self, elements: Tensor) -> Tensor:
        """M for some elements, float64, shape ``batch_shape + (d, d)``."""
        return self.maps.matrix(elements)

    def shift(self, elements: Tensor) -> Tensor:
        """The translation a for some elements, angles in float64, shape ``batch_shape + (d,)``."""
        return self.maps.shift(elements)

    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        self.check_event(x)
        return self.maps.act(elements, x)

    # -- what layers ask ----------------------------------------------------------------------------------------------
    @made_once
    def linear_part(self) -> VectorAction:
        """The action of the same group by the matrices M alone, as it acts on displacements of angles."""
        if isinstance(self.maps, TorusTranslations) or self.group.order == 1:
            return VectorAction.trivial(self.group, copies=self.numel)
        return VectorAction(MatrixRepresentation(require_enumerable(self.group), self.matrices, name="linear part"))

    @property
    def fixed_combinations(self) -> tuple[tuple[int, ...], ...]:
        """A basis of the integer vectors k for which every pure translation of the group fixes k . x modulo 2 pi.

        A pure translation is an element with M = 1. The combinations are all integer vectors where there is none.

        Example:
            >>> TorusAction.translations([[torch.pi, torch.pi]]).fixed_combinations
            ((1, 1), (0, 2))
        """
        return self.maps.fixed

    @property
    def translation_order(self) -> tuple[int | float, ...]:
        """For each angle, by how many different amounts the pure translations shift it.

        An angle of order m is shifted by the multiples of 2 pi / m; the order is ``math.inf`` for a whole circle.

        Example:
            >>> TorusAction.translations([[torch.pi, torch.pi / 2]]).translation_order
            (2, 4)
        """
        return self.maps.coordinate_orders

    def without_symmetry(self) -> TorusAction:
        return TorusAction.trivial(self.numel)

    # -- values -------------------------------------------------------------------------------------------------------
    def _key(self) -> Any:
        return self.maps

    def __repr__(self) -> str:
        return f"TorusAction({self.group} on T^{self.numel})"

    @staticmethod
    def _derived() -> tuple[str, ...]:
        return ("linear_part",)


def _as_vectors(shifts: Sequence[Sequence[Any]] | Tensor) -> list[Sequence[Any]]:
    vectors = list(shifts)
    if any(not isinstance(vector, Sequence | Tensor | np.ndarray) or np.ndim(vector) != 1 for vector in vectors):
        raise ValueError(f"expected a list of translations, each a vector of angles, such as [[0.0, pi]], got {shifts}")
    return vectors
