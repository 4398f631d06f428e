"""Exact draws of a Boltzmann density by sequential Monte Carlo, which also estimates its normalizer."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_gflows.targets.metropolis import Chains
from pyro_gflows.targets.particle_draws import Estimate, ParticleDraws, SamplingReport, read_draws, write_draws

if TYPE_CHECKING:
    from pyro_gflows.targets.particles import ParticleTarget

__all__ = ["SequentialMonteCarlo", "identity"]

_GROUPS = 10  # independent populations, whose spread gives the standard errors
_FEWEST = 1000  # chains, however few draws are asked for: the estimate of log Z and with it the weights need them
_REFRESHED = 50  # sweeps, after which energies are computed anew, and virials
_BATCH = 10_000  # draws of which the virial is computed at a time


@dataclass(frozen=True)
class SequentialMonteCarlo:
    r"""A sampler of :class:`ParticleTarget`, whose draws are exact up to what its printed checks resolve.

    Chains start at draws of a Gaussian, and the inverse temperature b goes from 0 to 1 in steps, under the densities
    proportional to :math:`\exp(-b U(x)/T - (1 - b) |x|^2 / 2 s^2)`. At each step the chains are weighted by the ratio
    of two successive densities, resampled where the effective sample size of the weights falls below a limit, and
    carried on by Metropolis sweeps. The mean weights multiply to an estimate of Z, and the chains at the end are draws
    of the target, which further sweeps make independent of one another. Ten groups of chains are weighted and resampled
    each by itself until b is 1, and then once all together. The spread of the ten estimates of log Z is its standard
    error. Those of the energy and the virial are the spread of ten parts of the chains at the end, and leave out what
    one group with most of the weight would have in common: look at the error of log Z first.

    Draws are right if their virial agrees with the dimension, and estimates from other seeds with this one's; many more
    ``steps`` make a stricter check. A run takes time in proportion to the draws, from about 1,000 draws on.

    Args:
        steps: The number of inverse temperatures.
        curve: The k-th of K inverse temperatures is (k / K)^curve. Steep energies need small first steps.
        sweeps: The sweeps at each of them.
        final_sweeps: The sweeps at the end.
        scale: The standard deviation s of the Gaussian; about that of a coordinate of the target.
        resample_below: The effective sample size, as a fraction of the chains, below which they are resampled.

    Raises:
        ValueError: If an argument is out of range.

    Source: Sequential Monte Carlo samplers, Del Moral et al. (2006).

    Example:
        >>> from pyro_gflows.targets import DoubleWell
        >>> quick = SequentialMonteCarlo(steps=60, final_sweeps=20, scale=2.0)
        >>> draws = quick(DoubleWell(), 2000, torch.Generator().manual_seed(0))
        >>> draws.x.shape, abs(draws.report.log_z.value - 29.66) < 0.5
        (torch.Size([2000, 4, 2]), True)
    """

    steps: int = 600
    curve: float = 2.0
    sweeps: int = 3
    final_sweeps: int = 600
    scale: float = 1.0
    resample_below: float = 0.5

    def __post_init__(self) -> None:
        if min(self.steps, self.sweeps) < 1 or self.final_sweeps < 0:
            raise ValueError(f"expected at least one step and one sweep at each, got {self}")
        if not (self.curve >= 1 and self.scale > 0 and 0 <= self.resample_below <= 1):
            raise ValueError(f"expected curve >= 1, scale > 0 and resample_below in [0, 1], got {self}")

    def __call__(
        self,
        target: ParticleTarget,
        n: int,
        generator: torch.Generator | None = None,
        *,
        cache: str | Path | None = None,
        progress: bool = False,
    ) -> ParticleDraws:
        """Draw configurations, in the default dtype and on the device of the generator.

        Args:
            target: The target.
            n: The number of draws.
            generator: The random generator; torch's global one by default.
            cache: A file. If it is there, the draws are read from it, and the generator is left as it is; else they are
                written to it.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: If n is below 1, or the file holds another target, other settings, another count or draws from
                another state of the generator.
        """
        if n < 1:
            raise ValueError(f"expected at least one draw, got n={n}")
        generator = torch.default_generator if generator is None else generator
        if cache is None:
            return self._run(target, n, generator, progress=progress)
        settings = {
            **identity(target, generator.device),
            "sampler": dataclasses.asdict(self),
            "draws": n,
            "dtype": str(torch.get_default_dtype()),
            "random_state": hashlib.sha256(bytes(generator.get_state().tolist())).hexdigest()[:16],
        }
        if Path(cache).exists():
            found = read_draws(Path(cache), settings)
            return dataclasses.replace(found, x=found.x.to(generator.device))
        draws = self._run(target, n, generator, progress=progress)
        write_draws(Path(cache), draws, settings)
        return draws

    @torch.no_grad()
    def _run(self, target: ParticleTarget, n: int, generator: torch.Generator, *, progress: bool) -> ParticleDraws:
        began = time.perf_counter()
        size = -(-max(n, _FEWEST) // _GROUPS)
        chains = Chains(target, self.scale, groups=_GROUPS, size=size, generator=generator)
        with tqdm(total=self.steps + self.final_sweeps, disable=not progress, desc="draws", unit="step") as bar:
            logs, log_z, smallest = self._anneal(chains, generator, bar)
            total = (logs + log_z.unsqueeze(-1)).flatten()
            chains.choose(_systematic(total.unsqueeze(0), generator)[0])
            energies, virials, accepted = self._go_on(chains, bar)
        x = chains.x.permute(2, 0, 1).contiguous()
        log_zs = log_z + logs.logsumexp(-1) - math.log(size)
        constant = target.space.dimension * math.log(self.scale * math.sqrt(2 * math.pi))
        estimated = float(log_zs.logsumexp(0)) - math.log(_GROUPS) + constant
        by_group = energies.reshape(_GROUPS, -1).mean(-1) + log_zs
        report = SamplingReport(
            target=repr(target),
            draws=n,
            log_z=Estimate(estimated, _error(log_zs)),
            energy=_grouped(target.temperature * energies),
            entropy=Estimate(estimated + float(energies.mean()), _error(by_group)),
            virial=_grouped(virials),
            dimension=target.space.dimension,
            smallest_ess=smallest,
            accepted=(float(accepted[0]), float(accepted[1])),
            seconds=time.perf_counter() - began,
        )
        if n < len(x):
            x = x[torch.randperm(len(x), generator=generator, device=x.device)[:n]]
        return ParticleDraws(x, report)

    def _anneal(self, chains: Chains, generator: torch.Generator, bar: tqdm[None]) -> tuple[Tensor, Tensor, float]:
        """Raise the inverse temperature to 1; returns log-weights, log Z up to them by group, and the smallest ESS."""
        count = len(chains.energy)
        logs = chains.energy.new_zeros(_GROUPS, count // _GROUPS, dtype=torch.float64)
        log_z = logs.new_zeros(_GROUPS)
        smallest = log_z.new_ones(())
        for k in range(self.steps):
            before, power = ((j / self.steps) ** self.curve for j in (k, k + 1))
            step = (power - before) * (chains.square / (2 * self.scale**2) - chains.energy)
            logs = logs + step.double().reshape(logs.shape)
            weights = logs.softmax(-1)
            ess = 1 / (weights.square().sum(-1) * logs.shape[-1])
            smallest = torch.minimum(smallest, ess.min())
            few = ess < self.resample_below
            if bool(few.any()):
                rows = _systematic(logs, generator)
                same = torch.arange(count, device=rows.device).reshape(logs.shape)
                chains.choose(torch.where(few.unsqueeze(-1), rows, same).flatten())
                means = logs.logsumexp(-1) - math.log(logs.shape[-1])
                log_z = log_z + torch.where(few, means, 0.0)
                logs = torch.where(few.unsqueeze(-1), 0.0, logs)
            for _ in range(self.sweeps):
                chains.sweep(power, tune=0.3)
            chains.refresh()
            bar.update()
        return logs, log_z, float(smallest)

    def _go_on(self, chains: Chains, bar: tqdm[None]) -> tuple[Tensor, Tensor, Tensor]:
        """The sweeps at the end; returns means over them of energies and virials, and the accepted fractions."""
        virials = [_virials(chains)]
        accepted = torch.zeros(2, device=chains.x.device)
        total = chains.energy.double()
        for k in range(1, self.final_sweeps + 1):
            accepted += chains.sweep(1.0).mean(-1) / self.final_sweeps
            if k % _REFRESHED == 0 or k == self.final_sweeps:
                chains.refresh()
                virials.append(_virials(chains))
            total = total + chains.energy
            bar.update()
        return total / (self.final_sweeps + 1), torch.stack(virials).mean(0), accepted


def identity(target: ParticleTarget, device: torch.device) -> dict[str, Any]:
    """What tells a target from others: its description, and energies, as two functions may have one name.

    Args:
        target: The target.
        device: Where the energies are computed.
    """
    points = torch.arange(4 * target.n * target.d, device=device).sin().reshape(4, target.n, target.d)
    energies = target.energy(target.space.project(3 * points))
    return {
        "target": f"{target.action}, {target._about()}, temperature {target.temperature:g}",
        "energies": [float(energy) for energy in energies],
    }


def _systematic(logs: Tensor, generator: torch.Generator) -> Tensor:
    """Rows in proportion to weights exp(logs), each group by itself: evenly spaced points with one random offset."""
    groups, size = logs.shape
    ends = logs.softmax(-1).cumsum(-1)
    offset = torch.rand(groups, 1, generator=generator, device=logs.device, dtype=logs.dtype)
    points = (torch.arange(size, device=logs.device, dtype=logs.dtype) + offset) / size * ends[:, -1:]
    rows = torch.searchsorted(ends, points).clamp_max(size - 1)
    return rows + size * torch.arange(groups, device=logs.device).unsqueeze(-1)


def _virials(chains: Chains) -> Tensor:
    """x . grad energy / temperature of the chains."""
    parts = []
    for part in chains.x.split(_BATCH, -1):
        with torch.enable_grad():
            x = part.detach().requires_grad_()
            (slope,) = torch.autograd.grad(chains.target.chain_energies(x).sum(), x)
        parts.append((x * slope).sum((0, 1)).detach().double() / chains.target.temperature)
    return torch.cat(parts)


def _error(by_group: Tensor) -> float:
    return float(by_group.std()) / math.sqrt(len(by_group))


def _grouped(values: Tensor) -> Estimate:
    """The mean of values of chains that are in the order of their groups."""
    return Estimate(float(values.mean()), _error(values.reshape(_GROUPS, -1).mean(-1)))
