"""Label switching: guides for Gaussian mixtures beside long-run NUTS.

    python -m benchmarks.label_switching [--seeds 1] [--only NAME ...] [--guides NAME ...] [--draws 10000]

Every run is one line of ``results/label_switching.jsonl``; runs that are there already are not repeated, so the command
may be stopped and started at will. The table in ``results/label_switching.md`` is made anew after every run. Draws of
NUTS are made once for each posterior and kept in the folder ``runs``.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoNormal
from torch import Tensor

from benchmarks.c2st import c2st
from benchmarks.harness import (
    CPU_SECONDS,
    SEEDS,
    Benchmark,
    Column,
    Seeds,
    Stopwatch,
    columns,
    main,
)
from benchmarks.mixtures import SETTINGS, Mixture, nuts_draws
from benchmarks.recipes import training_text
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy

CACHE = Path(__file__).parent.parent / "runs" / "label_switching"
# one recipe for all settings
FIT = FitSettings(steps=800, batch_size=128, optimizer=Adam(lr=5e-3), schedule=OneCycle(warmup=0.1))
SVI_STEPS = 2000
DRAWS = 10_000


class Fitted:
    """A trained guide: draws of the unconstrained vector, and their scores."""

    def __init__(self, sample: Callable[[int], Tensor], score: Callable[[Tensor], Tensor], **figures: float) -> None:
        self.sample, self.score, self.figures = sample, score, figures


def auto_gflow(mixture: Mixture, x: Tensor, *, seed: int, steps: int | None = None) -> Fitted:
    """AutoGFlow from an OrbitFlow, by energy fitting."""
    pyro.set_rng_seed(seed)
    guide = AutoGFlow(mixture.model, mixture.action, args=(x,), base=OrbitFlow, check="raise")
    settings = dataclasses.replace(FIT, seed=seed, steps=steps or FIT.steps)
    report = fit_energy(guide.flow, guide.log_density(x), settings=settings, progress=False)
    return Fitted(
        lambda n: guide.flow.dist.sample((n,)).clone(),
        guide.flow,
        ess=report.ess,
        reverse_kl=report.reverse_kl,
    )


def pyro_guide(
    make: Callable[[Any], Any], mixture: Mixture, x: Tensor, *, seed: int, steps: int | None = None
) -> Fitted:
    """One of Pyro's automatic guides, by SVI."""
    pyro.set_rng_seed(seed)
    guide = make(mixture.model)
    guide(x)
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=1)
    steps = steps or SVI_STEPS
    optimizer = pyro.optim.ClippedAdam({"lr": 1e-2, "lrd": 0.02 ** (1 / steps)})
    svi = SVI(mixture.model, guide, optimizer, elbo)
    for _ in range(steps):
        svi.step(x)

    def sample(n: int) -> Tensor:
        with torch.no_grad(), pyro.plate("draws", n, dim=-2):
            values = guide(x)
        return mixture.unconstrained({name: value.reshape(n, -1) for name, value in values.items()})

    posterior = guide.get_posterior(x) if isinstance(guide, AutoIAFNormal) else mean_field_density(guide)
    return Fitted(sample, posterior.log_prob)


def mean_field_density(guide: AutoNormal) -> torch.distributions.Distribution:
    """The normal of the unconstrained vector that an AutoNormal is."""
    names = ("weights", "means", "scales")
    loc = torch.cat([getattr(guide.locs, name).detach().reshape(-1) for name in names])
    scale = torch.cat([getattr(guide.scales, name).detach().reshape(-1) for name in names])
    return torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)


GUIDES: dict[str, Callable[..., Fitted]] = {
    "AutoGFlow": auto_gflow,
    "AutoNormal": lambda *arguments, **options: pyro_guide(AutoNormal, *arguments, **options),
    "AutoIAFNormal": lambda *arguments, **options: pyro_guide(
        lambda model: AutoIAFNormal(model, num_transforms=2), *arguments, **options
    ),
}


def asymmetry(score: Callable[[Tensor], Tensor], mixture: Mixture, z: Tensor) -> float:
    """The largest change of the log-density under any of the K! permutations."""
    orders = torch.tensor(list(itertools.permutations(range(mixture.components))))
    images = mixture.permuted(z.expand(len(orders), *z.shape), orders[:, None].expand(-1, len(z), -1))
    with torch.no_grad():
        return float((score(images) - score(z)).abs().max())


def reference(mixture: Mixture, *, quick: bool) -> tuple[Tensor, float]:
    """Draws of NUTS, made once."""
    if quick:
        return nuts_draws(mixture, chains=2, draws=20, warmup=10, copies=5)
    path = CACHE / f"{mixture.name}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(nuts_draws(mixture), path)
    draws, r_hat = torch.load(path)
    return draws, r_hat


@dataclass(frozen=True)
class Row:
    """One guide for one posterior, and how many draws of it are compared with the reference."""

    posterior: str
    guide: str
    draws: int = DRAWS

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.posterior}, {self.guide}"

    def labels(self) -> Mapping[str, str]:
        """Posterior, guide and training."""
        recipe = f"{training_text(FIT)}; SVI {SVI_STEPS} steps"
        return {"name": self.posterior, "guide": self.guide, "recipe": recipe}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train one guide and measure it."""
    pyro.clear_param_store()
    mixture = SETTINGS[row.posterior]
    x = mixture.data()
    with Stopwatch() as watch:
        fitted = GUIDES[row.guide](mixture, x, seed=seed, steps=5 if quick else None)
    exact, r_hat = reference(mixture, quick=quick)
    exact = exact[torch.randperm(len(exact))[: row.draws]]
    z = fitted.sample(len(exact)).detach()
    return {
        "c2st": c2st(exact, z, seed=seed),
        "draws": len(exact),
        "asymmetry": asymmetry(fitted.score, mixture, z[:100]),
        "cpu_seconds": watch.figures()["cpu_seconds"],
        "nuts_r_hat": round(r_hat, 4),
        **fitted.figures,
    }


def more_options(parser: argparse.ArgumentParser) -> None:
    """Which guides, and how many draws."""
    parser.add_argument("--guides", nargs="+", choices=list(GUIDES), default=list(GUIDES), metavar="NAME")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"of each side, for the C2ST (default: {DRAWS})")


def choose(options: argparse.Namespace) -> Sequence[Row]:
    """The rows of these guides."""
    return [Row(posterior, guide, options.draws) for guide, posterior in itertools.product(options.guides, SETTINGS)]


BENCHMARK = Benchmark(
    "label_switching",
    __doc__,
    [Row(posterior, guide) for posterior, guide in itertools.product(SETTINGS, GUIDES)],
    run,
    columns(
        Column("posterior", lambda found: found.row.posterior, left=True),
        Column("guide", lambda found: found.row.guide, left=True),
        SEEDS,
        Column("draws", lambda found: f"{found.least('draws')}"),
        Column("C2ST, median (worst)", lambda found: f"{found.median('c2st'):.3f} ({found.largest('c2st'):.3f})"),
        Column("largest change of log q over K! permutations", lambda found: f"{found.largest('asymmetry'):.1e}"),
        Column("ESS, median", lambda found: f"{found.median('ess'):.3f}" if "ess" in found.runs[0] else "-"),
        CPU_SECONDS,
        Column("R-hat of NUTS", lambda found: f"{found['nuts_r_hat']:.3f}"),
    ),
    seeds=Seeds(1),
    more_options=more_options,
    choose=choose,
)

if __name__ == "__main__":
    main(BENCHMARK)
