"""Label switching: guides for Gaussian mixtures beside long-run NUTS.

    python -m benchmarks.label_switching [--seeds 1] [--only NAME ...] [--guides NAME ...] [--draws 10000] [--quick]

Every run is one line of ``results/label_switching.jsonl``; runs that are there already are not repeated, so the command
may be stopped and started at will. The table in ``results/label_switching.md`` is made anew after every run. Draws of
NUTS are made once for each setting and kept in the folder ``runs``. With ``--quick`` nothing is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoNormal
from torch import Tensor

from benchmarks.c2st import c2st
from benchmarks.mixtures import SETTINGS, Mixture, nuts_draws
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy

RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parent.parent / "runs" / "label_switching"
# one recipe for all settings
FIT = FitSettings(steps=800, batch_size=128, optimizer=Adam(lr=5e-3), schedule=OneCycle(warmup=0.1))
SVI_STEPS = 2000


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


def run(mixture: Mixture, name: str, seed: int, *, draws: int, quick: bool) -> dict[str, Any]:
    """Train one guide and measure it."""
    pyro.clear_param_store()
    x = mixture.data()
    began = time.process_time()
    fitted = GUIDES[name](mixture, x, seed=seed, steps=5 if quick else None)
    seconds = time.process_time() - began
    exact, r_hat = reference(mixture, quick=quick)
    exact = exact[torch.randperm(len(exact))[:draws]]
    z = fitted.sample(len(exact)).detach()
    return {
        "name": mixture.name,
        "guide": name,
        "seed": seed,
        "recipe": recipe(),
        "c2st": c2st(exact, z, seed=seed),
        "draws": len(exact),
        "asymmetry": asymmetry(fitted.score, mixture, z[:100]),
        "cpu_seconds": round(seconds, 1),
        "nuts_r_hat": round(r_hat, 4),
        "load": round(os.getloadavg()[0], 1),
        **fitted.figures,
    }


def recipe() -> str:
    """Changes when the training does."""
    return f"{FIT}; SVI {SVI_STEPS} steps"


def read(path: Path) -> list[dict[str, Any]]:
    """All finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(done: Sequence[dict[str, Any]]) -> str:
    """Medians over seeds, as Markdown."""
    lines = [
        "| posterior | guide | seeds | draws | C2ST, median (worst) | largest change of log q over K! permutations | "
        "ESS, median | CPU seconds | R-hat of NUTS |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for mixture, name in itertools.product(SETTINGS, GUIDES):
        runs = [row for row in done if (row["name"], row["guide"], row["recipe"]) == (mixture, name, recipe())]
        if not runs:
            continue
        c2sts = [row["c2st"] for row in runs]
        ess = f"{statistics.median(row['ess'] for row in runs):.3f}" if "ess" in runs[0] else "-"
        cells = [
            mixture,
            name,
            str(len(runs)),
            str(min(row["draws"] for row in runs)),
            f"{statistics.median(c2sts):.3f} ({max(c2sts):.3f})",
            f"{max(row['asymmetry'] for row in runs):.1e}",
            ess,
            f"{statistics.median(row['cpu_seconds'] for row in runs):.0f}",
            f"{runs[0]['nuts_r_hat']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of every row")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--guides", nargs="+", choices=list(GUIDES), default=list(GUIDES), metavar="NAME")
    parser.add_argument("--draws", type=int, default=10_000, help="of each side, for the C2ST")
    parser.add_argument("--quick", action="store_true", help="a few steps and draws, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = RESULTS / "label_switching.jsonl"
    done = [] if arguments.quick else read(path)
    for seed, guide, name in itertools.product(range(arguments.seeds), arguments.guides, arguments.only):
        if any((r["name"], r["guide"], r["seed"], r["recipe"]) == (name, guide, seed, recipe()) for r in done):
            continue
        figures = run(SETTINGS[name], guide, seed, draws=arguments.draws, quick=arguments.quick)
        done.append(figures)
        print(json.dumps(figures), flush=True)
        if not arguments.quick:
            with path.open("a") as file:
                file.write(json.dumps(figures) + "\n")
            path.with_suffix(".md").write_text(table(done))
    print(table(done))


if __name__ == "__main__":
    main()
