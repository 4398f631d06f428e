"""The flows whose training is shared among devices, by devices.py and scaling_out.py: one of each family."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    ImageAction,
    InvariantNormal,
    RowsAction,
    VectorAction,
    g_autoregressive,
    g_coupling,
    g_coupling_image_flow,
    g_residual,
    g_residual_image_flow,
)
from pyro_gflows.actions import LinearAction
from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.training import Energy, FitSettings, Likelihood, Objective
from pyro_gflows.transforms import ElementwiseSpline

__all__ = ["FAMILIES", "Family"]

ROWS = 8192


@dataclass(frozen=True)
class Family:
    """A flow, and how it is trained.

    Attributes:
        name: Its name in tables.
        about: Its action and size in words.
        make: A function that makes it.
        batches: The sizes of batches that are measured.
        components: The components of an event that are read from a file.
        is_energy: Whether it is fitted to an energy, by draws of its own.
    """

    name: str
    about: str
    make: Callable[[], EquivariantFlow]
    batches: tuple[int, ...] = (512, 4096)
    components: int = 32
    is_energy: bool = False

    def objective(self, batch: int, *, steps: int) -> Objective:
        """The objective, of weights and data that are the same in all processes."""
        torch.manual_seed(0)
        flow = self.make().train()
        settings = FitSettings(steps=steps, batch_size=batch, check_symmetry=False)
        if self.is_energy:
            return Energy(flow, _well, settings=settings)
        x = torch.randn(max(ROWS, batch) if flow.action.numel < 200 else 512, *flow.action.event_shape)
        return Likelihood(flow, as_rows(x), settings=settings)


def _well(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


def _layers(action: LinearAction, make: Callable[[LinearAction], Any], *, blocks: int) -> EquivariantFlow:
    return EquivariantFlow(
        InvariantNormal(action), [t for _ in range(blocks) for t in (GActNorm(action), make(action))]
    )


def _vectors(make: Callable[[LinearAction], Any], *, copies: int = 8, blocks: int = 4) -> Callable[[], EquivariantFlow]:
    return lambda: _layers(VectorAction.regular("C4", copies=copies), make, blocks=blocks)


def _images(make: Callable[..., EquivariantFlow], channels: int, size: int) -> Callable[[], EquivariantFlow]:
    return lambda: make(ImageAction("C4", channels, size=size))


_WIDE = functools.partial(g_coupling, width=32)
FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("coupling", "C4 on 32 coordinates, 4 affine couplings of width 32", _vectors(_WIDE)),
        Family(
            "spline coupling",
            "C4 on 32 coordinates, 4 spline couplings of width 16",
            _vectors(functools.partial(g_coupling, transformer=ElementwiseSpline)),
        ),
        Family(
            "autoregressive",
            "C4 on 32 coordinates, 4 layers of width 16",
            _vectors(functools.partial(g_autoregressive, width=16)),
        ),
        Family("residual", "C4 on 16 coordinates, 4 residual layers", _vectors(g_residual, copies=4), components=16),
        Family(
            "rows",
            "16 rows of 2 features, 4 couplings of width 32",
            lambda: _layers(RowsAction(16, 2), _WIDE, blocks=4),
        ),
        Family(
            "image coupling",
            "C4 on 1 x 16 x 16 pixels, 2 scales of 4 blocks",
            _images(g_coupling_image_flow, 1, 16),
            (16, 64),
            components=256,
        ),
        Family(
            "image residual",
            "C4 on 1 x 16 x 16 pixels, 1 scale of 4 blocks",
            _images(functools.partial(g_residual_image_flow, blocks=4), 1, 16),
            (64, 256),
            components=256,
        ),
        Family(
            "energy",
            "C4 on 16 coordinates, 4 residual layers, fit_energy",
            _vectors(functools.partial(g_residual, fast="sample"), copies=4),
            components=0,
            is_energy=True,
        ),
    )
}
