"""ParticleAction: rotations and reflections of all particles together, and permutations of like particles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.row_layout import RowTables
from pyro_gflows.actions.rows import RowsAction
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.groups.base import Group
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.groups.structured_field import InnerField, StructuredField
from pyro_gflows.numerics.constants import as_constants, kept_in, made_once
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean, MeanFree, Space

__all__ = ["ParticleAction"]

_CENTERS = ("mean-free", "free")


@registered
class ParticleAction(Action):
    r"""Rotations and reflections of a configuration of particles, and permutations of the particles of each species.

    It is the symmetry of an energy that depends on the distances between particles. An event is a configuration: a
    tensor of shape ``(n, d)``, with the position of one particle in each row. The group is :math:`S_{n_1} \times \dots
    \times S_{n_s} \times H`, where :math:`S_{n_k}` permutes the particles of species k, and H acts on all positions
    alike. Translations are no elements: by default the center of mass stays at 0
    (:class:`~pyro_gflows.spaces.MeanFree`), so a density says nothing about where the configuration is.

    Layers that know nothing about particles read an event in orthonormal coordinates: :attr:`coordinates` is how the
    same group acts on them, and :class:`~pyro_gflows.transforms.InCoordinates` makes any layer on them one on
    particles.

    Args:
        particles: The number n of particles, or the numbers of particles of each species.
        d: The dimension of the space in which the particles are.
        group: The group H: the name of a group of the plane for d = 2 (``"O(2)"``, ``"SO(2)"``, ``"D6"``), of
            space for d = 3 (``"O(3)"``, ``"SO(3)"``), ``"C1"`` for no rotations in any d, or a VectorAction on R^d. By
            default O(d), for d = 1 the reflection.
        center: ``"mean-free"`` where the center of mass is 0, or ``"free"`` where events are all of R^(n d).

    Raises:
        TypeError: The number of particles or the group is of another type.
        ValueError: A number is not positive, the group does not act on R^d, or ``center`` is unknown.

    Example:
        >>> action = ParticleAction(4, 2)
        >>> action, action.space
        (ParticleAction(S4 x O(2) on 4 particles in R^2, mean-free), MeanFree(4 x 2))
        >>> x = action.space.project(torch.randn(4, 2))
        >>> action.act(action.sample(), x).shape
        torch.Size([4, 2])
        >>> ParticleAction((2, 3), 3, group="SO(3)").coordinates.numel
        12
    """

    def __init__(
        self,
        particles: int | Sequence[int],
        d: int,
        *,
        group: str | Group | VectorAction | None = None,
        center: str = "mean-free",
    ) -> None:
        if center not in _CENTERS:
            raise ValueError(f"expected center to be one of {list(_CENTERS)}, got {center!r}")
        self.center = center
        self.position = _position(d, group)
        self.rows = RowsAction(particles, self.position)
        self.species = self.rows.structure.sizes
        self.n, self.d = sum(self.species), d
        self.group = self.rows.group
        self.event_shape = torch.Size([self.n, d])
        if center == "mean-free" and self.n < 2:
            raise ValueError(f"expected at least 2 particles, got {self.n}; for one particle take center='free'")

    @made_once
    def space(self) -> Space:
        """The configurations: those with center of mass 0, or all of R^(n d)."""
        return MeanFree(self.n, self.d) if self.center == "mean-free" else Euclidean(self.event_shape)

    # -- acting on events ---------------------------------------------------------------------------------------------
    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        self.check_event(x)
        return self.rows.act_each(elements, x.flatten(-2)).unflatten(-1, self.event_shape)

    def matrix(self, elements: Tensor) -> Tensor:
        """The matrices that act on the flattened event, float64, shape ``batch + (n d, n d)``.

        Args:
            elements: Group elements.
        """
        return self.rows.matrix(elements)

    def canonical(self, x: Tensor) -> Tensor | None:
        self.check_event(x)
        return self.rows.canonical(x.flatten(-2))

    # -- orthonormal coordinates --------------------------------------------------------------------------------------
    @made_once
    def coordinates(self) -> RowsAction:
        """How the group acts on the orthonormal coordinates of an event, by orthogonal matrices.

        For several species these are the coordinates of the particles of each species relative to the center of the
        species, then those of the centers.
        """
        if self.center == "free":
            return self.rows
        structure, features = self.rows.structure, self.position.fields
        fields: list[StructuredField] = [
            RowField(structure, features, odd=[False] * len(features), mean_free=True, blocks=[block])
            for block, size in enumerate(self.species)
            if size > 1
        ]
        fields += [InnerField(structure, feature) for _ in self.species[1:] for feature in features]
        return RowsAction(fields)

    def to_coordinates(self, x: Tensor) -> Tensor:
        """The orthonormal coordinates of configurations, which leave the center of mass out where it is 0.

        Args:
            x: Configurations, shape ``batch_shape + (n, d)``.

        Returns:
            Shape ``batch_shape + (coordinates.numel,)``.
        """
        self.check_event(x)
        if self.center == "free":
            return x.flatten(-2)
        blocks = x.split(self.species, -2)
        even = tuple(block if block.shape[-2] > 1 else block[..., :0] for block in blocks)
        centers = torch.stack([block.mean(-2) for block in blocks], -2)
        return self.coordinates.pack(RowTables(even, _without(blocks), (self._to_centers(x) @ centers).flatten(-2)))

    def from_coordinates(self, z: Tensor) -> Tensor:
        """The configurations with these coordinates, which inverts :meth:`to_coordinates`.

        Args:
            z: Coordinates, shape ``batch_shape + (coordinates.numel,)``.
        """
        if self.center == "free":
            return z.unflatten(-1, self.event_shape)
        tables = self.coordinates.unpack(z)
        if len(self.species) == 1:
            return tables.even[0]
        centers = self._from_centers(z) @ tables.rest.unflatten(-1, (len(self.species) - 1, self.d))
        blocks = [
            centers[..., block : block + 1, :] + (even if size > 1 else 0)
            for block, (size, even) in enumerate(zip(self.species, tables.even, strict=True))
        ]
        return torch.cat(blocks, -2)

    def _to_centers(self, like: Tensor) -> Tensor:
        """The matrix of the coordinates of the centers, an isometry where a center counts once for each particle."""
        return kept_in(self._tables, ("to", like.dtype, like.device), lambda: self._directions(0.5).to(like))

    def _from_centers(self, like: Tensor) -> Tensor:
        return kept_in(self._tables, ("from", like.dtype, like.device), lambda: self._directions(-0.5).mT.to(like))

    @as_constants()
    def _directions(self, power: float) -> Tensor:
        """An orthonormal basis of the vectors orthogonal to (sqrt n_k), times n_k to a power."""
        sizes = torch.tensor(self.species, dtype=torch.float64)
        first = sizes.sqrt() / math.sqrt(self.n)
        unit = torch.zeros_like(first)
        unit[0] = 1.0
        mirror = first - unit  # the reflection that takes the first unit vector to the normalized roots
        basis = torch.eye(len(sizes), dtype=torch.float64)
        if len(sizes) > 1:
            basis = basis - 2 * mirror[:, None] * mirror / mirror.square().sum()
        return basis[1:] * sizes**power

    @made_once
    def _tables(self) -> dict[Any, Tensor]:
        return {}

    # -- values -------------------------------------------------------------------------------------------------------
    def without_symmetry(self) -> ParticleAction:
        return ParticleAction((1,) * self.n, self.d, group="C1", center=self.center)

    def _key(self) -> Any:
        return (self.species, self.position, self.center)

    def __repr__(self) -> str:
        return f"ParticleAction({self.group} on {self.n} particles in R^{self.d}, {self.center})"

    @staticmethod
    def _derived() -> tuple[str, ...]:
        return ("coordinates", "_tables")


def _position(d: int, group: str | Group | VectorAction | None) -> VectorAction:
    """How H acts on one position."""
    if isinstance(d, bool) or not isinstance(d, int) or d < 1:
        raise ValueError(f"expected a positive whole number of dimensions d, got {d!r}")
    if isinstance(group, VectorAction):
        if group.numel != d:
            raise ValueError(f"expected an action on one position in R^{d}, got {group}")
        return group
    if str(group) == "C1":
        return VectorAction.trivial("C1", copies=d)
    if d == 2:
        return VectorAction.plane("O(2)" if group is None else group)
    if d == 3:
        return VectorAction.space("O(3)" if group is None else group)
    if d == 1 and (group is None or str(group) in ("O(1)", "C2")):
        return VectorAction.signs(1)
    raise ValueError(
        f"expected the group of a ParticleAction in R^{d} to be 'C1'{' or O(1)' if d == 1 else ''}, or an action on "
        f"one position such as VectorAction.signs({d}), got {group!r}"
    )


def _without(blocks: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(block[..., :0] for block in blocks)
