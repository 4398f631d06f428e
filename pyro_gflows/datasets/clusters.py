"""Exact draws of particles, split into training, validation and test events."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from pyro_gflows.datasets.image_sets import FOLDER_VARIABLE
from pyro_gflows.datasets.splits import Splits
from pyro_gflows.targets import ParticleTarget
from pyro_gflows.targets.sequential_monte_carlo import identity

__all__ = ["particle_draws"]

_VALIDATION = 0.1  # of the pool


def particle_draws(
    target: ParticleTarget, *, seed: int = 1, folder: str | Path | None = None, progress: bool = True
) -> Splits:
    """Draw configurations of a target to train on, for validation and to test.

    The training and the validation events are the pool of the target, whose seed is its own. The test events are of
    another run of the sampler, so that no chain has a common ancestor with one of the pool.

    Args:
        target: The target.
        seed: The seed of the test events; another one than that of the pool.
        folder: The folder in which the draws are kept, and from which they are read the next time; by default the one
            that the environment variable ``PYRO_GFLOWS_DATA`` names, else they are drawn anew.
        progress: Whether to show progress bars.

    Raises:
        ValueError: If the seed is that of the pool, or a file in the folder holds other draws.

    Example:
        >>> from pyro_gflows.actions import ParticleAction
        >>> from pyro_gflows.targets import ParticleEnergy, Pool, SequentialMonteCarlo
        >>> quick, energy = SequentialMonteCarlo(steps=5, final_sweeps=5), lambda x: x.square().sum((-2, -1))
        >>> target = ParticleEnergy(ParticleAction(3, 2), energy, sampler=quick, pool=Pool(2000, progress=False))
        >>> target.test_points = 1000
        >>> parts = particle_draws(target, progress=False)
        >>> len(parts.train), len(parts.validation), len(parts.test)
        (1800, 200, 1000)
    """
    if seed == target.pool.seed:
        raise ValueError(
            f"expected a seed of the test events that is not that of the pool, {seed}: they could be the events that "
            "are trained on"
        )
    named = folder or os.environ.get(FOLDER_VARIABLE)
    at = None if not named else Path(named)
    pool = target.pooled().x if at is None else _drawn(target, target.pool.size, target.pool.seed, at, progress)
    test = _drawn(target, target.test_points, seed, at, progress)
    fewer = max(1, round(_VALIDATION * len(pool)))
    return Splits(train=pool[fewer:], validation=pool[:fewer], test=test)


def _drawn(target: ParticleTarget, count: int, seed: int, folder: Path | None, progress: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    cache = None if folder is None else folder / f"{_file_name(target)}-{count}-{seed}.safetensors"
    return target.sampler(target, count, generator, cache=cache, progress=progress).x


def _file_name(target: ParticleTarget) -> str:
    """A name that targets of other sizes, conventions or energies do not have."""
    about = identity(target, torch.device("cpu"))
    about["energies"] = [f"{energy:.3g}" for energy in about["energies"]]
    name = "".join(c if c.isalnum() or c in "-_" else "" for c in target.name)
    return f"{name}-{hashlib.sha256(str(about).encode()).hexdigest()[:8]}"
