"""The targets, and exact draws of them: those a design is fitted to, and fresh ones on which it is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_gflows.actions import ParticleAction
from pyro_gflows.targets import DoubleWell, LennardJones, ParticleTarget

__all__ = ["TARGETS", "TEST", "TEST_STREAM", "TRAINING", "Problem", "exact_draws", "problem"]

TARGETS: Mapping[str, type[DoubleWell | LennardJones]] = {"dw4": DoubleWell, "lj13": LennardJones}
TRAINING = 10_000
TEST: Mapping[str, int] = {"dw4": 100_000, "lj13": 20_000}
AT_ONCE = 10_000  # draws of one run of the sampler
ERRORS = 7.0  # standard errors, from ten groups of chains, by which a virial may differ from the dimension
TRAINING_STREAM = 1000  # plus the seed of a run
TEST_STREAM = 1_000_000_007  # of the test draws, which training never sees
# sweeps of the sampler for exact draws of a benchmark, more than by default
SWEEPS: Mapping[str, Mapping[str, int]] = {"dw4": {}, "lj13": {"steps": 1500, "final_sweeps": 600}}
QUICK = {"steps": 40, "final_sweeps": 20}  # of the sampler, where nothing is measured
QUICK_DRAWS = 200


@dataclass(frozen=True)
class Problem:
    """A target with exact draws.

    Attributes:
        target: The density.
        training: Draws to fit to, shape ``(rows, n, d)``.
        test: Draws of another run of the sampler.
    """

    target: ParticleTarget
    training: Tensor
    test: Tensor

    @property
    def action(self) -> ParticleAction:
        """The symmetry of the target."""
        return self.target.action

    @property
    def scale(self) -> float:
        """The root mean square of the (n - 1) d orthonormal coordinates of the training draws."""
        square = self.training.double().square().sum((-2, -1)).mean() / self.action.space.dimension
        return float(square.sqrt())


def exact_draws(target: ParticleTarget, count: int, *, stream: int, folder: Path, quick: bool = False) -> Tensor:
    """Draws by sequential Monte Carlo, in float32; they are written to the folder and read from it the next time.

    They come from independent runs of 10,000, which fit into the cache of a processor. With ``quick`` there are few of
    them, from a short run, and nothing is written.
    """
    if quick:
        sampler = dataclasses.replace(target.sampler, **QUICK)
        return sampler(target, min(count, QUICK_DRAWS), torch.Generator().manual_seed(stream)).x.float()
    sampler, runs = dataclasses.replace(target.sampler, **SWEEPS[target.name]), []
    for number in range(-(-count // AT_ONCE)):
        size, cache = min(AT_ONCE, count - number * AT_ONCE), folder / f"{target.name}-{stream}-{number}.safetensors"
        generator = torch.Generator().manual_seed(stream + number)
        found = sampler(target, size, generator, cache=cache, progress=True)
        if not abs(found.report.virial_deviation) < ERRORS:
            raise RuntimeError(f"expected exact draws, but their virial is {found.report.virial}: {found.report}")
        runs.append(found.x.float())
    return torch.cat(runs)


def problem(name: str, *, seed: int, folder: Path, quick: bool = False) -> Problem:
    """The target of that name, with training draws of the seed and the test draws, which are the same for all seeds."""
    target = TARGETS[name]()
    return Problem(
        target,
        training=exact_draws(target, TRAINING, stream=TRAINING_STREAM + seed, folder=folder, quick=quick),
        test=exact_draws(target, TEST[name], stream=TEST_STREAM, folder=folder, quick=quick),
    )
