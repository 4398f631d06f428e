"""Families of flows by name: what commands, presets and experiments build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pyro_gflows.actions import ContinuousGroup, GroupAction, ImageAction, OffGridAction, VectorAction, parse_group
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.image_flows import g_coupling_image_flow, g_residual_image_flow
from pyro_gflows.nn import LipschitzNetwork, LipschitzSum, Ridges
from pyro_gflows.transforms import EquivariantTransform, GActNorm, g_coupling, g_radial, g_residual

__all__ = ["FAMILIES", "build_action", "build_flow"]


def build_action(group: str, event_shape: Sequence[int]) -> GroupAction:
    """The usual action of a named group on events of a shape.

    Args:
        group: "C4", "D8", "SO(2)", ...; "C1" is no symmetry; "translations" are all shifts of a periodic grid.
        event_shape: (d,) for vectors: copies of the plane (C_n, D_n, SO(2), O(2)) or of space (SO(3), O(3));
            (channels, n, n) for images, which a group that the grid carries only partly moves by an OffGridAction.

    Raises:
        ValueError: The group does not act on such events.

    Example:
        >>> build_action("D8", (2,))
        VectorAction(D8 on R^2: defining)
    """
    shape = tuple(event_shape)
    if len(shape) == 3:
        return _image_action(group, shape)
    if len(shape) != 1:
        raise ValueError(f"expected events of shape (d,) or (channels, n, n), got {shape}")
    if group == "C1":
        return VectorAction.from_generators([torch.eye(shape[0], dtype=torch.float64)])
    parsed = parse_group(group)
    size = parsed.dimension if isinstance(parsed, ContinuousGroup) else 2
    if shape[0] % size:
        raise ValueError(f"{group} turns vectors of {size} numbers, got events of {shape[0]}; choose another --group")
    make = VectorAction.space if size == 3 else VectorAction.plane
    return make(parsed, copies=shape[0] // size)


def _image_action(group: str, shape: tuple[int, ...]) -> GroupAction:
    if group == "translations":
        return ImageAction.translations(shape[0], size=shape[1:])
    try:
        return ImageAction(group, shape[0], size=shape[1:])
    except ValueError:
        return OffGridAction(group, shape[0], size=shape[1:])


def _residual(action: GroupAction, *, blocks: int = 10, width: int | None = None) -> EquivariantFlow:
    """``width``: hidden fields of a LipschitzNetwork branch; None takes the action's default branch."""
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        branch = None if width is None else LipschitzNetwork(action, width=width)
        layers += [GActNorm(action), g_residual(action, branch=branch)]
    return _over_normal(action, layers)


def _coupling(action: GroupAction, *, blocks: int = 8, width: int = 16) -> EquivariantFlow:
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        layers += [GActNorm(action), g_coupling(action, width=width)]
    return _over_normal(action, layers)


def _ridges(
    action: GroupAction, *, blocks: int = 10, terms: int = 4, knots: int = 16, limit: float = 4.0
) -> EquivariantFlow:
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        branch = LipschitzSum([Ridges(action, terms, knots=knots, limit=limit)])
        layers += [GActNorm(action), g_residual(action, branch=branch)]
    return _over_normal(action, layers)


def _radial(action: GroupAction, *, blocks: int = 2, bins: int = 32) -> EquivariantFlow:
    return _over_normal(action, [g_radial(action, bins=bins) for _ in range(blocks)])


def _over_normal(action: GroupAction, layers: Sequence[EquivariantTransform]) -> EquivariantFlow:
    return EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)])


FAMILIES: Mapping[str, Callable[..., EquivariantFlow]] = {
    "coupling": _coupling,
    "image-coupling": g_coupling_image_flow,
    "image-residual": g_residual_image_flow,
    "radial": _radial,
    "residual": _residual,
    "ridges": _ridges,
}


def build_flow(family: str, action: GroupAction, *, size: Mapping[str, Any] | None = None) -> EquivariantFlow:
    """A flow of one family over the isotropic invariant normal distribution.

    Args:
        family: "residual", "ridges" (residual layers of ridge terms only), "coupling" or "radial"; multi-scale flows of
            images: "image-residual" or "image-coupling".
        action: How the group moves events.
        size: Keywords of the family, such as ``blocks`` and ``width``.

    Raises:
        ValueError, TypeError: The family is not known, or cannot be built for this action (the message says which can).
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown flow {family!r}: expected one of {sorted(FAMILIES)}")
    return FAMILIES[family](action, **(size or {}))
