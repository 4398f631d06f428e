"""Draws of particles with what the run that made them estimates, and their file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_gflows.serialization.files import read_tensors, write_tensors

__all__ = ["Estimate", "ParticleDraws", "SamplingReport", "read_draws", "write_draws"]


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error.

    Example:
        >>> print(Estimate(1.25, 0.01))
        1.2500 +- 0.0100
    """

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4f} +- {self.error:.4f}"


@dataclass(frozen=True)
class SamplingReport:
    """What a run of :class:`SequentialMonteCarlo` estimates, with standard errors from independent groups of chains.

    Attributes:
        target: The repr of the target.
        draws: The number of draws.
        log_z: The log of the integral of exp(-energy / temperature).
        energy: The mean energy.
        entropy: The differential entropy in nats, log_z + energy / temperature.
        virial: The mean of x . grad energy / temperature, which is ``dimension`` under the exact density.
        dimension: The dimension of the space, (n - 1) d with the center of mass at 0.
        smallest_ess: The smallest effective sample size between two resamplings, as a fraction of the chains.
        accepted: The accepted fractions of moves of all particles, and of one particle, at the end.
        seconds: How long it took.

    Example:
        >>> import torch
        >>> from pyro_gflows.targets import DoubleWell, SequentialMonteCarlo
        >>> quick = SequentialMonteCarlo(steps=20, final_sweeps=5, scale=2.0)
        >>> report = quick(DoubleWell(), 1000, torch.Generator().manual_seed(0)).report
        >>> report.dimension, report.log_z.error > 0
        (6, True)
    """

    target: str
    draws: int
    log_z: Estimate
    energy: Estimate
    entropy: Estimate
    virial: Estimate
    dimension: int
    smallest_ess: float
    accepted: tuple[float, float]
    seconds: float

    @property
    def virial_deviation(self) -> float:
        """By how many standard errors the virial differs from the dimension: about 1 if the draws are right."""
        return (self.virial.value - self.dimension) / self.virial.error

    def __str__(self) -> str:
        return (
            f"{self.draws} draws of {self.target} in {self.seconds:.1f} s\n"
            f"log Z {self.log_z}, mean energy {self.energy}, entropy {self.entropy}\n"
            f"virial {self.virial}, exactly {self.dimension} ({self.virial_deviation:+.1f} standard errors)\n"
            f"smallest ESS {self.smallest_ess:.2f}; accepted {self.accepted[0]:.2f} of the moves of all particles and "
            f"{self.accepted[1]:.2f} of those of one"
        )


@dataclass(frozen=True)
class ParticleDraws:
    """Draws of a target, and the report of the run that made them, which is what printing them shows.

    Attributes:
        x: Configurations, shape ``(count, n, d)``.
        report: The estimates.

    Example:
        >>> import torch
        >>> from pyro_gflows.targets import DoubleWell, SequentialMonteCarlo
        >>> quick = SequentialMonteCarlo(steps=20, final_sweeps=5, scale=2.0)
        >>> quick(DoubleWell(), 10, torch.Generator().manual_seed(0)).x.shape
        torch.Size([10, 4, 2])
    """

    x: Tensor
    report: SamplingReport

    def __str__(self) -> str:
        return str(self.report)


def write_draws(path: Path, draws: ParticleDraws, settings: Mapping[str, Any]) -> None:
    """Write draws to a safetensors file, with the settings of the run in its header.

    Args:
        path: The file.
        draws: The draws.
        settings: What tells the run from others, as JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"x": draws.x}, {"settings": settings, "report": dataclasses.asdict(draws.report)})


def read_draws(path: Path, settings: Mapping[str, Any]) -> ParticleDraws:
    """Read draws from a file of :func:`write_draws`.

    Args:
        path: The file.
        settings: The settings that the run of the file must have had.

    Raises:
        ValueError: If it had others, or the file is damaged or of another kind.
    """
    tensors, description = read_tensors(path)
    found = description.get("settings")
    if not isinstance(found, dict) or "report" not in description:
        raise ValueError(f"cannot read {path}: expected draws of particles, found {sorted(description)}")
    others = [key for key in {**found, **settings} if not _agree(found.get(key), settings.get(key))]
    if others:
        different = ", ".join(f"{key} is {found.get(key)!r}, not {settings.get(key)!r}" for key in others)
        raise ValueError(f"{path} holds draws of another run: {different}; choose another file, or delete this one")
    content = dict(description["report"])
    for name in ("log_z", "energy", "entropy", "virial"):
        content[name] = Estimate(**content[name])
    content["accepted"] = tuple(content["accepted"])
    return ParticleDraws(tensors["x"], SamplingReport(**content))


def _agree(one: Any, other: Any) -> bool:
    """Whether two settings are equal, lists of energies up to the rounding of another machine."""
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4) for a, b in pairs)
    return bool(one == other)
