"""Named recipes: which layers and which training suit the known data. The numbers that are printed come from these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pyro_gflows.actions import ContinuousGroup, GroupAction, ImageAction, VectorAction, parse_group
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.infer import Adam, FitSettings, HeldOut, OneCycle
from pyro_gflows.nn import LipschitzNetwork, LipschitzSum, Ridges
from pyro_gflows.transforms import EquivariantTransform, GActNorm, g_coupling, g_radial, g_residual

__all__ = ["DEMO", "FAMILIES", "PRESETS", "Preset", "build_action", "build_flow", "preset_for"]


def build_action(group: str, event_shape: Sequence[int]) -> GroupAction:
    """The usual action of a named group on events of a shape.

    Args:
        group: "C4", "D8", "SO(2)", ...; "C1" is no symmetry.
        event_shape: (d,) for vectors: copies of the plane (C_n, D_n, SO(2), O(2)) or of space (SO(3), O(3));
            (channels, n, n) for images.

    Raises:
        ValueError: The group does not act on such events.

    Example:
        >>> build_action("D8", (2,))
        VectorAction(D8 on R^2: defining)
    """
    shape = tuple(event_shape)
    if len(shape) == 3:
        return ImageAction(group, shape[0], size=shape[1:])
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


def _residual(action: GroupAction, *, blocks: int = 10, width: int | None = None) -> list[EquivariantTransform]:
    """``width``: hidden fields of a LipschitzNetwork branch; None takes the action's default branch."""
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        branch = None if width is None else LipschitzNetwork(action, width=width)
        layers += [GActNorm(action), g_residual(action, branch=branch)]
    return [*layers, GActNorm(action)]


def _coupling(action: GroupAction, *, blocks: int = 8, width: int = 16) -> list[EquivariantTransform]:
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        layers += [GActNorm(action), g_coupling(action, width=width)]
    return [*layers, GActNorm(action)]


def _ridges(
    action: GroupAction, *, blocks: int = 10, terms: int = 4, knots: int = 16, limit: float = 4.0
) -> list[EquivariantTransform]:
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        branch = LipschitzSum([Ridges(action, terms, knots=knots, limit=limit)])
        layers += [GActNorm(action), g_residual(action, branch=branch)]
    return [*layers, GActNorm(action)]


def _radial(action: GroupAction, *, blocks: int = 2, bins: int = 32) -> list[EquivariantTransform]:
    return [*(g_radial(action, bins=bins) for _ in range(blocks)), GActNorm(action)]


FAMILIES: Mapping[str, Callable[..., list[EquivariantTransform]]] = {
    "coupling": _coupling,
    "radial": _radial,
    "residual": _residual,
    "ridges": _ridges,
}


def build_flow(family: str, action: GroupAction, *, size: Mapping[str, float] | None = None) -> EquivariantFlow:
    """A flow of one family over the isotropic invariant normal distribution.

    Args:
        family: "residual", "ridges" (residual layers of ridge terms only), "coupling" or "radial".
        action: How the group moves events.
        size: Keywords of the family, such as ``blocks`` and ``width``.

    Raises:
        ValueError: The family is not known, or cannot be built for this action (the message says which can).
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown flow {family!r}: expected one of {sorted(FAMILIES)}")
    return EquivariantFlow(InvariantNormal(action), FAMILIES[family](action, **(size or {})))


@dataclass(frozen=True)
class Preset:
    """One recipe.

    Attributes:
        name: What the command line calls it.
        data: The data set it is for, or "" for the user's own files.
        group: The symmetry.
        flow: The family of layers.
        size: Keywords of the family.
        settings: How to train.
        augment: Group whose random elements move every training event (for a flow without the symmetry), or "".
        shortened: Whether it trades quality for time, as the demo does; it is labelled so wherever it is reported.
    """

    name: str
    data: str
    group: str
    flow: str
    size: Mapping[str, float] = field(default_factory=dict)
    settings: FitSettings = field(default_factory=FitSettings)
    augment: str = ""
    shortened: bool = False

    def change(self, **changes: Any) -> Preset:
        """The same recipe with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def seeded(self, seed: int) -> Preset:
        """The same recipe from another seed."""
        return self.change(settings=dataclasses.replace(self.settings, seed=seed))


def _plane(steps: int, *, batch_size: int = 512, lr: float = 2e-2) -> FitSettings:
    """Densities give fresh points for ever: a high rate, a short warm-up, and no averaging."""
    schedule = OneCycle(warmup=0.1, end=0.0)
    return FitSettings(steps=steps, batch_size=batch_size, optimizer=Adam(lr=lr), schedule=schedule)


_RINGS_RADIAL = {"blocks": 2, "bins": 32}
_RINGS_RIDGES = {"blocks": 12, "terms": 2, "knots": 64, "limit": 3.0}

_ALL = [
    Preset("8gaussians", "8gaussians", "D8", "ridges", {"blocks": 10, "terms": 4, "knots": 16}, _plane(1500)),
    Preset("rings", "rings", "O(2)", "residual", {"blocks": 4}, _plane(1500)),
    Preset("rings-radial", "rings", "O(2)", "radial", _RINGS_RADIAL, _plane(1500, batch_size=1024, lr=5e-2)),
    Preset("rings-ridges", "rings", "D16", "ridges", _RINGS_RIDGES, _plane(1200)),
    Preset("checkerboard", "checkerboard", "C2", "residual", {"blocks": 10}, FitSettings(steps=4000)),
    Preset(
        "digits-coupling",
        "digits",
        "C4",
        "coupling",
        {"blocks": 8, "width": 16},
        FitSettings(steps=3000, batch_size=128, optimizer=Adam(lr=2e-3), ema_decay=0.995, held_out=HeldOut(100, 10)),
    ),
    Preset(
        "digits-residual",
        "digits",
        "C4",
        "residual",
        {"blocks": 8, "width": 4},
        FitSettings(
            steps=2000,
            batch_size=64,
            optimizer=Adam(lr=1e-2, clip_norm=50.0),
            schedule=OneCycle(warmup=0.1),
            held_out=HeldOut(100, 10),
        ),
    ),
    Preset("own", "", "C1", "residual", {"blocks": 8}, FitSettings(steps=3000, held_out=HeldOut(100, 10))),
]


def _shortened(preset: Preset, group: str, *, steps: int, size: Mapping[str, float], augment: str = "") -> Preset:
    settings = dataclasses.replace(preset.settings, steps=steps)
    name = f"{preset.name}-{group}-short"
    return preset.change(name=name, group=group, size=size, settings=settings, augment=augment, shortened=True)


_FULL: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}

# What `pyro-gflows demo` runs: each flow with its symmetry, then the same code without (C1) at about as many
# parameters, shown every pose of the digits by augmentation. (A field of C4 is four channels at the price of one.)
DEMO: Sequence[Preset] = [
    _shortened(_FULL["8gaussians"], "D8", steps=800, size={"blocks": 10}),
    _shortened(_FULL["8gaussians"], "C1", steps=800, size={"blocks": 6}),
    _shortened(_FULL["rings"], "O(2)", steps=800, size={"blocks": 4}),
    # ridge and radial terms of C1 would still hold the circular symmetry; a network of C1 holds none
    _shortened(_FULL["rings"], "C1", steps=800, size={"blocks": 4, "width": 3}),
    _shortened(_FULL["digits-coupling"], "C4", steps=600, size={"blocks": 4, "width": 8}),
    _shortened(_FULL["digits-coupling"], "C1", steps=600, size={"blocks": 4, "width": 16}, augment="C4"),
    _shortened(_FULL["digits-residual"], "C4", steps=250, size={"blocks": 8, "width": 4}),
    _shortened(_FULL["digits-residual"], "C1", steps=250, size={"blocks": 8, "width": 4}, augment="C4"),
]

PRESETS: Mapping[str, Preset] = {**_FULL, **{preset.name: preset for preset in DEMO}}


def preset_for(data: str, *, flow: str | None = None) -> Preset:
    """The default recipe for a data set, or for the user's own file.

    Args:
        data: A known name or a path.
        flow: Prefer the recipe of this family; without one, another family gets its default size and the training
            settings of the data's first recipe.

    Example:
        >>> preset_for("digits", flow="residual").name
        'digits-residual'
    """
    fitting = [preset for preset in _ALL if preset.data == data and not preset.shortened] or [PRESETS["own"]]
    for preset in fitting:
        if flow in (None, preset.flow):
            return preset
    return fitting[0].change(flow=flow, size={})
