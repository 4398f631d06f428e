"""The pictures of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_gflows import plots
from pyro_gflows.actions import ParticleAction
from pyro_gflows.datasets import DataSet
from pyro_gflows.evaluation import log_probs
from pyro_gflows.experiments.measuring import draw
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.spaces import Torus
from pyro_gflows.targets import Density, ParticleTarget

if TYPE_CHECKING:
    from pyro_gflows.experiments.runs import Outcome

__all__ = ["PICTURES", "write_pictures"]

#: The names of the files that a run may write.
PICTURES = (
    "density.png",
    "samples.png",
    "loss.png",
    "latent.png",
    "distances.png",
    "energies.png",
    "configurations.png",
)

_DRAWS = 2000


def write_pictures(outcome: Outcome, data: DataSet, folder: str | Path) -> None:
    """Write ``density.png``, ``samples.png`` and ``loss.png``, and for images also ``latent.png``.

    For particles ``distances.png`` and, in the plane and in space, ``configurations.png`` take the place of
    ``samples.png``; where the energy is known, there is ``energies.png``.

    Args:
        outcome: The result of a run.
        data: The data set of the run.
        folder: The folder of the pictures.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    folder, flow = Path(folder), outcome.flow
    samples = draw(flow, 64 if len(data.event_shape) == 3 else _DRAWS)
    test = data.test[: len(samples)].to(samples)
    circle = (0.0, 2 * math.pi) if isinstance(data.space, Torus) else None
    if tuple(data.event_shape) == (2,):
        reach = circle or 1.2 * float(test.abs().max())
        plots.plot_density(flow, folder / "density.png", reach=reach, target=data.target)
    else:
        plots.plot_log_probs(log_probs(flow, samples), log_probs(flow, test), folder / "density.png")
    if isinstance(flow.action, ParticleAction):
        _of_particles(flow, samples, test, target=data.target, folder=folder)
    else:
        plots.plot_samples(samples, test, folder / "samples.png", scaling=data.scaling, reach=circle)
    if len(data.event_shape) == 3:
        plots.plot_latent_rotations(flow, folder / "latent.png", scaling=data.scaling)
    floor = None if data.target is None else data.target.floor
    plots.plot_loss(outcome.result.train_curve, outcome.result.validation_curve, folder / "loss.png", floor=floor)


def _of_particles(
    flow: EquivariantFlow, samples: Tensor, test: Tensor, *, target: Density | None, folder: Path
) -> None:
    assert isinstance(flow.action, ParticleAction)
    weights = None
    if isinstance(target, ParticleTarget):
        logs = target.log_density(samples.double()) - log_probs(flow, samples).double()
        weights = torch.softmax(logs, 0)
        plots.plot_energies(samples, test, folder / "energies.png", energy=target.energy, weights=weights)
    plots.plot_pair_distances(samples, test, folder / "distances.png", weights=weights)
    if flow.action.d in (2, 3):
        species = flow.action.species
        plots.plot_configurations(samples, test, folder / "configurations.png", species=species)
