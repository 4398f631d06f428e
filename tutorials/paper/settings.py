"""How large each experiment is: seconds (smoke), minutes on two cores (small, shortened), or a GPU (full)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyro_gflows.training import Adam, FitSettings, OneCycle, Validation
from pyro_gflows.transforms import ElementwiseAffine

__all__ = ["SETTINGS", "Setting"]


def training(steps: int, *, batch_size: int, lr: float, every: int = 250) -> FitSettings:
    """One-cycle Adam; the held-out curve is looked at every so many steps and decides nothing."""
    return FitSettings(
        steps,
        batch_size=batch_size,
        optimizer=Adam(lr=lr, clip_norm=50.0),
        schedule=OneCycle(warmup=0.1),
        validation=Validation(every),
        checkpoint_every=250,
    )


@dataclass(frozen=True)
class Setting:
    """One size of all experiments.

    Attributes:
        note: What a reader of the figures must know of it.
        data: Data sets of the table.
        residual, coupling: Keywords of ``g_residual_image_flow`` and ``g_coupling_image_flow``.
        train_residual, train_coupling: How to train them.
        logit: Margin of the logit preprocessing.
        test_images: How many test images are scored; None: all.
        groups: Of the table.
        compared: Groups of the ablation; None: all of the paper's.
    """

    note: str
    data: tuple[str, ...]
    residual: Mapping[str, Any]
    coupling: Mapping[str, Any]
    train_residual: FitSettings
    train_coupling: FitSettings
    logit: float = 0.01
    test_images: int | None = None
    groups: tuple[str, ...] = ("C4", "D4")
    compared: tuple[str, ...] | None = None


# The log-scales of all couplings add up: with the usual bound of 3 for each, the first steps on larger grids can explode.
_CALM = functools.partial(ElementwiseAffine, max_log_scale=1.0)

SETTINGS: Mapping[str, Setting] = {
    "smoke": Setting(
        note="a few steps, to see that it runs",
        data=("digits",),
        residual={"blocks": 1, "width": 1},
        coupling={"scales": 2, "blocks": 1, "width": 2},
        train_residual=training(2, batch_size=4, lr=1e-3, every=1),
        train_coupling=training(2, batch_size=4, lr=1e-3, every=1),
        test_images=4,
        groups=("C4",),
        compared=("C1", "C4", "C8"),
    ),
    "small": Setting(
        note="8 x 8 digits, minutes on two cores",
        data=("digits",),
        residual={"scales": 2, "blocks": 3, "width": 8},
        coupling={"scales": 2, "blocks": 2, "width": 8},
        train_residual=training(400, batch_size=64, lr=3e-2, every=100),
        train_coupling=training(400, batch_size=64, lr=1e-2, every=20),
    ),
    "shortened": Setting(
        note="subsets of MNIST (turned by any angle) and CIFAR-10 (by quarter-turns), far from converged: for a CPU",
        data=("rotated-mnist", "cifar10-rot"),
        residual={"scales": 2, "blocks": 2, "width": 4, "bound": 0.9},
        coupling={"scales": 2, "blocks": 2, "width": 8, "transformer": _CALM},
        train_residual=training(100, batch_size=32, lr=1e-2, every=1000),
        train_coupling=training(100, batch_size=32, lr=1e-3, every=1000),
        test_images=32,
        groups=("C4",),
    ),
    "full": Setting(
        note="MNIST (turned by any angle) and CIFAR-10 (by quarter-turns), for a GPU",
        data=("rotated-mnist", "cifar10-rot"),
        residual={"scales": 3, "blocks": 8, "width": 32, "bound": 0.98, "memory": "constant"},
        coupling={"scales": 3, "blocks": 8, "width": 32, "transformer": _CALM},
        train_residual=training(50_000, batch_size=64, lr=2e-3, every=2500),
        train_coupling=training(50_000, batch_size=128, lr=1e-3, every=2500),
    ),
}
