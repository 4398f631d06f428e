"""Presets: the layers and the training that suit the known data, from which the published figures come."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import ParticleAction, default_split
from pyro_gflows.datasets import EventFormat
from pyro_gflows.flows.families import build_action
from pyro_gflows.training import Adam, FitSettings, OneCycle, Ramp, Schedule, Validation

__all__ = ["DEMO", "PRESETS", "ByEnergy", "Preset", "own_preset", "preset_for"]


@dataclass(frozen=True)
class ByEnergy:
    """A training on the energy of a target alone, without draws of it.

    Attributes:
        annealing: The inverse temperature, from the start of the training to its end.
        above: The energy of a pair of particles above which it is softened in training, or None.

    Example:
        >>> ByEnergy(above=50.0).annealing(0.0)
        0.1
    """

    annealing: Schedule = field(default_factory=lambda: Ramp(start=0.1))
    above: float | None = None


@dataclass(frozen=True)
class Preset:
    """A recipe for a fit: the data, the symmetry, the layers and the training.

    Attributes:
        name: The name of the preset on the command line.
        data: The name of the data set that the preset is for, or "" for the user's own files.
        group: The name of the group under which the flow is invariant.
        flow: The name of the family of layers.
        size: Keyword arguments of the family.
        settings: The settings of the training.
        augment: The name of a group whose random elements act on every training event, for a flow without the symmetry;
            or "".
        logit: The margin of the logit preprocessing (``GSigmoid``) that follows a multi-scale flow of images; None for
            a flow without it.
        variational: Whether the noise of dequantized images is trained too.
        by_energy: How the flow is trained on the energy of the target; None for a training on its draws, by likelihood.
        shortened: Whether the preset trades quality for time, as in the demo; every report of the run says so.

    Example:
        >>> preset = Preset("mine", "rings", "O(2)", "radial", {"blocks": 2})
        >>> preset.seeded(3).settings.seed
        3
    """

    name: str
    data: str
    group: str
    flow: str
    size: Mapping[str, Any] = field(default_factory=dict)
    settings: FitSettings = field(default_factory=FitSettings)
    augment: str = ""
    logit: float | None = None
    variational: bool = False
    by_energy: ByEnergy | None = None
    shortened: bool = False

    def change(self, **changes: Any) -> Preset:
        """Return the same preset with some attributes changed.

        Args:
            **changes: New values of attributes, by name.
        """
        return dataclasses.replace(self, **changes)

    def with_flow(self, flow: str) -> Preset:
        """Return the same preset for another family of layers, at the default size of the family."""
        return self.change(flow=flow, size={}, logit=self.logit if flow.startswith("image-") else None)

    def seeded(self, seed: int) -> Preset:
        """Return the same preset with another seed."""
        return self.change(settings=dataclasses.replace(self.settings, seed=seed))


def _plane(steps: int, *, batch_size: int = 512, lr: float = 2e-2) -> FitSettings:
    """Return settings for densities, which draw new points at every step: a high rate and a short warm-up."""
    schedule = OneCycle(warmup=0.1, end=0.0)
    return FitSettings(steps=steps, batch_size=batch_size, optimizer=Adam(lr=lr), schedule=schedule)


def _images(steps: int, *, lr: float, every: int) -> FitSettings:
    """Return settings for sets of images, which are small: validation stops the run, and the best weights are kept."""
    return FitSettings(
        steps,
        batch_size=64,
        optimizer=Adam(lr=lr, clip_norm=50.0),
        schedule=OneCycle(warmup=0.1),
        validation=Validation(every, 10),
    )


def _digits(flow: str, size: Mapping[str, Any], settings: FitSettings, *, logit: float | None = None) -> Preset:
    return Preset(f"digits-{flow}", "digits", "C4", flow, size, settings, logit=logit)


def _clusters(
    name: str, group: str, size: Mapping[str, Any], *, batch_size: int, above: float | None = None
) -> tuple[Preset, Preset]:
    """The presets of a cluster: by likelihood on exact draws, and by energy alone."""
    draws = FitSettings(
        1000,
        batch_size=batch_size,
        optimizer=Adam(lr=1e-2, clip_norm=5.0),
        schedule=OneCycle(warmup=0.15),
        validation=Validation(100, 10),
        check_symmetry=False,  # of the target it is known; chains of the sampler rotate slowly
    )
    energy = dataclasses.replace(draws, validation=Validation(patience=None))
    by_energy = ByEnergy(Ramp(start=0.25, until=0.3), above=above)
    return (
        Preset(name, name, group, "placement", size, draws),
        Preset(f"{name}-energy", name, group, "placement", size, energy, by_energy=by_energy),
    )


_MOST_PLACED = 20  # particles that are placed one after another, each around all that are placed
_OWN_COUPLINGS = FitSettings(steps=3000, optimizer=Adam(lr=2e-3), validation=Validation(100, 10))

# on large grids 2e-3 can explode in the first steps, as the log-scales of all layers add up
_LARGE_IMAGES = _images(20_000, lr=1e-3, every=500)
_MULTI_SCALE = {"scales": 3, "blocks": 4, "width": 8}

# channels mixed by convolutions: benchmarks/results/channel_mixing.md; residual flows gain nothing by them
_COUPLING = {"scales": 2, "blocks": 2, "width": 8, "channel_mixing": "convolution"}
_RESIDUAL = {"scales": 2, "blocks": 3, "width": 8}
_RINGS_RADIAL = {"blocks": 2, "bins": 32}
_RINGS_RIDGES = {"blocks": 12, "terms": 2, "knots": 64, "limit": 3.0}

_ALL = [
    Preset("8gaussians", "8gaussians", "D8", "ridges", {"blocks": 10, "terms": 4, "knots": 16}, _plane(1500)),
    Preset("rings", "rings", "O(2)", "residual", {"blocks": 4}, _plane(1500)),
    Preset("rings-radial", "rings", "O(2)", "radial", _RINGS_RADIAL, _plane(1500, batch_size=1024, lr=5e-2)),
    Preset("rings-ridges", "rings", "D16", "ridges", _RINGS_RIDGES, _plane(1200)),
    *(
        Preset(name, name, "C1", "coupling", {"blocks": 2, "width": 8}, _plane(600, lr=1e-2))
        for name in ("torus-unimodal", "torus-multimodal", "torus-correlated")
    ),
    Preset("torus-square", "torus-square", "D4", "residual", {"blocks": 6, "width": 8}, _plane(600)),
    Preset("checkerboard", "checkerboard", "C2", "residual", {"blocks": 10}, FitSettings(steps=4000)),
    _digits("image-coupling", _COUPLING, _images(1800, lr=1e-2, every=100), logit=0.001),
    _digits("image-residual", _RESIDUAL, _images(1000, lr=3e-2, every=100), logit=0.01),
    _digits(
        "coupling",
        {"blocks": 8, "width": 16},
        FitSettings(
            steps=3000, batch_size=128, optimizer=Adam(lr=2e-3), ema_decay=0.995, validation=Validation(100, 10)
        ),
    ),
    _digits("residual", {"blocks": 8, "width": 4}, _images(2000, lr=1e-2, every=100)),
    *(
        Preset(name, name, group, "image-coupling", _MULTI_SCALE, _LARGE_IMAGES, logit=0.01)
        for name, group in (("rotated-mnist", "C4"), ("mnist", "C1"), ("cifar10-rot", "C4"), ("cifar10", "C1"))
    ),
    *_clusters("dw4", "S4 x O(2)", {"shortest": 1.0, "longest": 9.0}, batch_size=256),
    *_clusters("lj13", "S13 x O(3)", {"shortest": 0.65, "longest": 4.0}, batch_size=64, above=100.0),
    Preset("own", "", "C1", "residual", {"blocks": 8}, FitSettings(steps=3000, validation=Validation(100, 10))),
]


def _shortened(preset: Preset, group: str, *, steps: int, size: Mapping[str, Any], augment: str = "") -> Preset:
    settings = dataclasses.replace(preset.settings, steps=steps)
    name = f"{preset.name}-{group}-short"
    return preset.change(name=name, group=group, size=size, settings=settings, augment=augment, shortened=True)


_FULL: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}

# `pyro-gflows demo` runs each flow with its symmetry, then the same code without symmetry (C1) at about as many
# parameters; augmentation shows every rotation of the digits to the flow of C1. (A field of C4 is four channels at the
# price of one.)
DEMO: Sequence[Preset] = [
    _shortened(_FULL["8gaussians"], "D8", steps=800, size={"blocks": 10}),
    _shortened(_FULL["8gaussians"], "C1", steps=800, size={"blocks": 6}),
    _shortened(_FULL["rings"], "O(2)", steps=800, size={"blocks": 4}),
    # ridge and radial terms of C1 would keep the circular symmetry; a network of C1 has none
    _shortened(_FULL["rings"], "C1", steps=800, size={"blocks": 4, "width": 3}),
    _shortened(_FULL["digits-image-coupling"], "C4", steps=400, size=_COUPLING),
    _shortened(_FULL["digits-image-coupling"], "C1", steps=400, size={**_COUPLING, "width": 15}, augment="C4"),
    _shortened(_FULL["digits-image-residual"], "C4", steps=200, size=_RESIDUAL),
    _shortened(_FULL["digits-image-residual"], "C1", steps=200, size={**_RESIDUAL, "width": 10}, augment="C4"),
]

#: The presets of the command line and of the benchmarks, by name.
PRESETS: Mapping[str, Preset] = {**_FULL, **{preset.name: preset for preset in DEMO}}


def preset_for(data: str, *, flow: str | None = None) -> Preset:
    """Return the default preset for a data set, or for the user's own file.

    Args:
        data: The name of a data set, or the path of a file.
        flow: The name of a family of layers; by default the family of the first preset for the data. A family without a
            preset for these data has its default size, and the training settings of the first preset.

    Example:
        >>> preset_for("digits", flow="residual").name
        'digits-residual'
    """
    fitting = [preset for preset in _ALL if preset.data == data and not preset.shortened] or [PRESETS["own"]]
    return _of_flow(fitting, flow)


def own_preset(form: EventFormat, *, group: str, flow: str | None = None, events: Tensor | None = None) -> Preset:
    """Return the default preset for the events of the user's own file.

    Images get a multi-scale flow. The number of scales is at most 3, and such that the coarsest grid has at least 4
    pixels a side. Images of gray levels get logit preprocessing. The learning rate is low and falls with the number of
    pixels, since the log-scales of all couplings add up, so that images of any kind are fitted without a search for the
    rate. Up to 20 like particles in the plane or in space are placed one after another, other particles get pair
    potentials. Sets get couplings that split their features, if there are several, and angles
    if the group does not exchange them. All other events get residual layers.

    Args:
        form: The format of the events in the file.
        group: The name of the group under which the flow is invariant.
        flow: The name of another family of layers, at its default size.
        events: Some of the events, from which the shortest and the longest distances of particles are taken.

    Example:
        >>> preset = own_preset(EventFormat("images", (28, 28)), group="C4")
        >>> preset.size["scales"], preset.settings.optimizer.lr
        (3, 0.0003)
    """
    own = PRESETS["own"].change(group=group)
    if form.kind == "images":
        own = _own_images(form, group)
    elif form.kind == "angles":
        own = _own_angles(form, own)
    elif form.kind == "particles":
        own = _own_particles(form, own, events)
    elif form.kind == "sets" and form.shape[1] > 1:
        own = own.change(name="own-sets", flow="coupling", settings=_OWN_COUPLINGS)
    if flow is not None and flow.startswith("image-") and own.flow.startswith("image-"):
        return own.change(flow=flow)  # the number of scales suits any multi-scale flow
    return _of_flow([own], flow)


def _own_angles(form: EventFormat, own: Preset) -> Preset:
    try:
        default_split(build_action(own.group, form.space))
    except ValueError:  # no split is invariant
        return own.change(name="own-angles", size={"blocks": 6, "width": 8})
    return own.change(name="own-angles", flow="coupling", size={"blocks": 2, "width": 8}, settings=_OWN_COUPLINGS)


def _own_particles(form: EventFormat, own: Preset, events: Tensor | None) -> Preset:
    own = own.change(name="own-particles", flow="pair-potential", size={}, settings=_OWN_COUPLINGS)
    n, d = form.shape
    alike = build_action(own.group, form.space) == ParticleAction(n, d)
    if events is None or not alike or d not in (2, 3) or not 3 <= n <= _MOST_PLACED:
        return own
    settings = dataclasses.replace(_OWN_COUPLINGS, batch_size=64, optimizer=Adam(lr=1e-2, clip_norm=5.0))
    i, j = torch.triu_indices(n, n, 1)
    distances = (events[:, i] - events[:, j]).norm(dim=-1)
    longest = 1.3 * float(distances.max())
    # particles that touch: functions of distances do not resolve what is much shorter than the longest one
    ends = {"shortest": max(0.7 * float(distances.min()), longest / 30), "longest": longest}
    return own.change(flow="placement", size=ends, settings=settings)


def _own_images(form: EventFormat, group: str) -> Preset:
    channels, height, width = form.event_shape
    pixels = channels * height * width
    rate = float(f"{max(3e-4, min(3e-3, 0.2 / pixels)):.1g}")
    scales = 1
    while scales < 3 and all(side % 2**scales == 0 and side >= 4 * 2**scales for side in (height, width)):
        scales += 1
    size = {"scales": scales, "blocks": 2 if pixels <= 256 else 4, "width": 8}
    # the default schedule warms up for a quarter of the run, so that short runs do not diverge
    settings = dataclasses.replace(_images(3000, lr=rate, every=100), schedule=OneCycle())
    logit = None if form.gray is None else 0.01
    if group == "translations":  # a shift by one pixel swaps the colors of a checkerboard, and cannot be squeezed
        return Preset("own-images", "", group, "image-residual", {"blocks": 4}, settings, logit=logit)
    return Preset("own-images", "", group, "image-coupling", size, settings, logit=logit)


def _of_flow(presets: Sequence[Preset], flow: str | None) -> Preset:
    """Return the first preset of a family, or else the first preset with this family at its default size."""
    if flow is None:
        return presets[0]
    return next((preset for preset in presets if preset.flow == flow), presets[0].with_flow(flow))
