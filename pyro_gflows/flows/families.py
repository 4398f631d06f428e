"""Families of flows by name, for commands, presets and experiments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pyro_gflows.actions import (
    Action,
    ImageAction,
    LinearAction,
    OffGridAction,
    ParticleAction,
    RowsAction,
    TorusAction,
    VectorAction,
)
from pyro_gflows.distributions import InvariantNormal, InvariantUniform
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.image_coupling import g_coupling_image_flow, g_soft_coupling_image_flow
from pyro_gflows.flows.image_residual import g_residual_image_flow
from pyro_gflows.flows.placement import g_placement_flow
from pyro_gflows.groups import SO2, ContinuousGroup, parse_group
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, EnumerableGroup
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.nn import LipschitzNetwork, LipschitzSum, PeriodicNetwork, Ridges, TorusPotential
from pyro_gflows.nn.placement_grids import PlacementGrids
from pyro_gflows.spaces import Space, Torus
from pyro_gflows.transforms import (
    EquivariantTransform,
    Fast,
    GActNorm,
    GGradient,
    GPairPotential,
    InCoordinates,
    g_coupling,
    g_radial,
    g_residual,
)

__all__ = ["FAMILIES", "UnsuitableFamily", "build_action", "build_flow"]

Vectors = LinearAction | ParticleAction


class UnsuitableFamily(ValueError):
    """A family of flows that cannot be built for an action.

    Args:
        family: The name of the family.
        action: How the group acts on the events.
        reason: The error that the constructor of the family raised.
    """

    def __init__(self, family: str, action: Action, reason: Exception) -> None:
        super().__init__(str(reason))
        self.family, self.action = family, action


def build_action(group: str, event_shape: Sequence[int] | Space) -> Action:
    """The usual action of a named group on events of a shape.

    Args:
        group: "C4", "D8", "SO(2)", ...; "C1" is no symmetry; "translations" are all shifts of a periodic grid.
        event_shape: (d,) for vectors, which are copies of the plane (C_n, D_n, SO(2), O(2)) or of space (SO(3), O(3)),
            or the n rows of a set, one after the other, which S_n permutes; (channels, n, n) for images. A group of
            which the grid carries only a part acts on images by an OffGridAction. A Torus is that of angles, on two of
            which C_n and D_n act by exchanges and sign flips; S_n permutes n angles. A space of events of shape (n, d)
            is that of n particles: "S4 x O(2)" permutes 4 of them and rotates all, and "S2 x S3 x O(3)" has species of
            2 and 3; without such factors all particles are different.

    Raises:
        ValueError: The group does not act on such events.

    Example:
        >>> from pyro_gflows.spaces import MeanFree
        >>> build_action("D8", (2,)), build_action("S4 x O(2)", MeanFree(4, 2))
        (VectorAction(D8 on R^2: defining), ParticleAction(S4 x O(2) on 4 particles in R^2, mean-free))
    """
    if isinstance(event_shape, Torus):
        return _torus_action(group, event_shape)
    if isinstance(event_shape, Space) and len(event_shape.event_shape) == 2:
        return _particle_action(group, event_shape)
    shape = tuple(event_shape.event_shape if isinstance(event_shape, Space) else event_shape)
    if len(shape) == 3:
        return _image_action(group, shape)
    if len(shape) != 1:
        raise ValueError(f"expected events of shape (d,) or (channels, n, n), got {shape}")
    if group == "translations":
        raise ValueError(
            f"translations shift the pixels of images, got events of {shape[0]} components; choose another --group"
        )
    parsed = parse_group(group)
    if isinstance(parsed, EnumerableGroup) and parsed.order == 1:
        return VectorAction.from_generators([torch.eye(shape[0], dtype=torch.float64)])
    if isinstance(parsed, SymmetricGroup):
        if shape[0] % parsed.n:
            raise ValueError(
                f"{parsed} permutes {parsed.n} rows of one length, got events of {shape[0]} components, no multiple of "
                f"{parsed.n}; choose another --group"
            )
        features = shape[0] // parsed.n
        if isinstance(parsed, EnumerableGroup):
            return VectorAction.rows(parsed, features=features)
        return RowsAction(parsed.n, features)
    if not isinstance(parsed, ContinuousGroup | CyclicGroup | DihedralGroup):
        raise ValueError(
            f"expected C_n, D_n, SO(2), O(2), SO(3), O(3) or S_n (which permutes rows) for events of {shape[0]} "
            f"components, got {parsed}; choose another --group"
        )
    size = parsed.dimension if isinstance(parsed, ContinuousGroup) else 2
    if shape[0] % size:
        raise ValueError(
            f"{group} acts on vectors of {size} components, got events of {shape[0]}; choose another --group"
        )
    make = VectorAction.space if size == 3 else VectorAction.plane
    return make(parsed, copies=shape[0] // size)


def _torus_action(group: str, space: Torus) -> TorusAction:
    parsed, dimension = parse_group("C1" if group == "translations" else group), space.dimension
    if group != "translations" and isinstance(parsed, EnumerableGroup):
        if parsed.order == 1:
            return TorusAction.trivial(dimension)
        if isinstance(parsed, SymmetricGroup) and parsed.n == dimension:
            return TorusAction.point_group(VectorAction.rows(parsed))
        if isinstance(parsed, CyclicGroup | DihedralGroup) and dimension == 2:
            return TorusAction.point_group(parsed)
    raise ValueError(
        f"expected C1, or C2, C4, D1, D2 or D4 for 2 angles, or S_n for n angles, got {group} for {dimension} angles; "
        "choose another --group"
    )


def _particle_action(group: str, space: Space) -> ParticleAction:
    n, d = space.event_shape
    if group == "translations":
        raise ValueError("translations shift the pixels of images, got particles; choose another --group")
    parsed = parse_group(group)
    factors = list(parsed.factors) if isinstance(parsed, ProductGroup) else [parsed]
    species = tuple(factor.n for factor in factors if isinstance(factor, SymmetricGroup))
    others = [factor for factor in factors if not isinstance(factor, SymmetricGroup)]
    if len(others) > 1 or sum(species) not in (0, n):
        raise ValueError(
            f"expected the group of {n} particles to be that of a space of {d} dimensions, such as O({d}), after the "
            f"permutations of each species, such as S{n} x O({d}) or S1 x S{n - 1} x O({d}), got {group}; choose "
            "another --group"
        )
    acts = others[0] if others and others[0].order != 1 else "C1"
    center = "free" if space.dimension == n * d else "mean-free"
    try:
        return ParticleAction(species or (1,) * n, d, group=acts, center=center)
    except ValueError as error:
        raise ValueError(f"{group} does not act on particles of {d} coordinates; choose another --group") from error


def _image_action(group: str, shape: tuple[int, ...]) -> Action:
    if group == "translations":
        return ImageAction.translations(shape[0], size=shape[1:])
    parsed = parse_group(group)
    try:
        return ImageAction(parsed, shape[0], size=shape[1:])
    except ValueError as error:
        if not isinstance(parsed, CyclicGroup | DihedralGroup | SO2):
            raise ValueError(
                f"expected C_n, D_n, SO(2), O(2) or translations for images, got {parsed}; choose another --group"
            ) from error
        return OffGridAction(parsed, shape[0], size=shape[1:])


def _residual(action: Vectors | TorusAction, *, blocks: int = 10, width: int | None = None) -> EquivariantFlow:
    """Residual layers; ``width`` is that of the networks in branches, None takes the default branch of the action."""
    if isinstance(action, TorusAction):
        network = functools.partial(PeriodicNetwork, width=8 if width is None else width)
        return EquivariantFlow(InvariantUniform(action), [g_residual(action, branch=network) for _ in range(blocks)])
    branch = None if width is None else functools.partial(LipschitzNetwork, width=width)
    return _over_normal(action, functools.partial(g_residual, branch=branch), blocks=blocks)


def _gradient(
    action: TorusAction, *, blocks: int = 6, frequencies: int = 4, waves: int = 4, fast: Fast = "score"
) -> EquivariantFlow:
    """Gradient maps of trigonometric potentials, on angles."""
    potentials = [TorusPotential(action, frequencies=frequencies, waves=waves) for _ in range(blocks)]
    layers = [GGradient(action, potential, fast=fast) for potential in potentials]
    return EquivariantFlow(InvariantUniform(action), layers)


def _coupling(action: Vectors | TorusAction, *, blocks: int = 8, width: int = 16) -> EquivariantFlow:
    if isinstance(action, TorusAction):
        return EquivariantFlow(InvariantUniform(action), [g_coupling(action, width=width) for _ in range(blocks)])
    return _over_normal(action, functools.partial(g_coupling, width=width), blocks=blocks)


def _ridges(
    action: Vectors, *, blocks: int = 10, terms: int = 4, knots: int = 16, limit: float = 4.0
) -> EquivariantFlow:
    def branch(action: LinearAction) -> LipschitzSum:
        return LipschitzSum([Ridges(action, terms, knots=knots, limit=limit)])

    return _over_normal(action, functools.partial(g_residual, branch=branch), blocks=blocks)


def _radial(action: Vectors, *, blocks: int = 2, bins: int = 32) -> EquivariantFlow:
    return _over_normal(action, functools.partial(g_radial, bins=bins), blocks=blocks, scales_between=False)


def _pair_potential(
    action: ParticleAction, *, blocks: int = 8, knots: int = 32, limit: float = 8.0, fast: Fast = "score"
) -> EquivariantFlow:
    """Layers in which particles attract and repel each other; ``limit`` is in units of the scale of the data."""
    if not isinstance(action, ParticleAction):
        raise TypeError(f"pair potentials are for particles, got {action}")
    scale = functools.partial(GActNorm, action.coordinates)
    layers: list[EquivariantTransform] = [InCoordinates(scale(), action)]
    for _ in range(blocks):
        pairs = GPairPotential(action, knots=knots, limit=limit, fast=fast)
        layers += [pairs, InCoordinates(scale(), action)]
    return EquivariantFlow(InvariantNormal(action), layers)


def _placement(
    action: ParticleAction,
    *,
    shortest: float | None = None,
    longest: float | None = None,
    width: int = 24,
    grids: Mapping[str, int] | None = None,
) -> EquivariantFlow:
    """Particles placed one after another; ``grids`` are keywords of PlacementGrids."""
    if shortest is None or longest is None:
        raise ValueError("it takes distances from data of like particles under all of O(2) or O(3)")
    chosen = None if grids is None else PlacementGrids(**grids)
    return g_placement_flow(action, shortest=shortest, longest=longest, width=width, grids=chosen)


def _over_normal(
    action: Vectors,
    layer: Callable[[LinearAction], EquivariantTransform],
    *,
    blocks: int,
    scales_between: bool = True,
) -> EquivariantFlow:
    """Layers over the normal base, each after a scale, and a scale at the end; on particles in their coordinates."""
    own = action.coordinates if isinstance(action, ParticleAction) else action
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        layers += [*([GActNorm(own)] if scales_between else []), layer(own)]
    layers += [GActNorm(own)]
    if isinstance(action, ParticleAction):
        layers = [InCoordinates(one, action) for one in layers]
    return EquivariantFlow(InvariantNormal(action), layers)


#: The families of flows that the command line offers, by name; each makes a flow from an action and its size.
FAMILIES: Mapping[str, Callable[..., EquivariantFlow]] = {
    "coupling": _coupling,
    "gradient": _gradient,
    "image-coupling": g_coupling_image_flow,
    "image-soft": g_soft_coupling_image_flow,
    "image-residual": g_residual_image_flow,
    "pair-potential": _pair_potential,
    "placement": _placement,
    "radial": _radial,
    "residual": _residual,
    "ridges": _ridges,
}


def build_flow(family: str, action: Action, *, size: Mapping[str, Any] | None = None) -> EquivariantFlow:
    """A flow of one family over the isotropic invariant normal distribution, or the uniform distribution of angles.

    Args:
        family: "residual", "ridges" (residual layers of ridge terms only), "coupling" or "radial"; "gradient" (gradient
            maps) on angles; "pair-potential" or "placement" on particles; or a multi-scale flow of images:
            "image-residual", "image-coupling", or "image-soft", in which only the networks carry the group, so that
            rotations by other angles than 90 degrees are possible.
        action: How the group acts on events.
        size: Keywords of the family, such as ``blocks`` and ``width``.

    Raises:
        ValueError: The family is not known.
        UnsuitableFamily: The family cannot be built for this action, or not in this size; it is a ValueError.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown flow {family!r}: expected one of {sorted(FAMILIES)}")
    try:
        return FAMILIES[family](action, **(size or {}))
    except (ValueError, TypeError) as error:
        raise UnsuitableFamily(family, action, error) from error
