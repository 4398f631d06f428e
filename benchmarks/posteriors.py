"""Two moons and SLCP of sbibm: an invariant guide beside AutoIAFNormal and a mean-field guide, by C2ST.

    python -m benchmarks.posteriors [--only two_moons ...] [--guides AutoGFlow ...] [--observations 10]

The guides know the likelihood (``sbibm_tasks``) and never see a reference draw. Every fit is one line of
``results/posteriors.jsonl``; runs that are there already are not repeated. The table in ``results/posteriors.md`` is
made anew after every run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoNormal, init_to_uniform
from torch import Tensor
from torch.distributions import biject_to

from benchmarks.c2st import c2st
from benchmarks.sbibm_tasks import TASKS, Task
from pyro_gflows import (
    CoordinateSplit,
    ElementwiseSpline,
    EquivariantTransform,
    GActNorm,
    InvariantNormal,
    IrrepSplit,
    LinearAction,
    Split,
    Symmetrized,
    VectorAction,
    g_autoregressive,
)
from pyro_gflows.evaluation import importance_report
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.training import Adam, FitSettings, OneCycle, OwnDraws, fit

RESULTS = Path(__file__).parent / "results"
DRAWS, FEW = 10_000, 1_000
TARGETS = {"two_moons": 0.53, "slcp": 0.55}
WEIGHT_DRAWS = 50_000
SVI_STEPS = 1000


@dataclass(frozen=True)
class Recipe:
    """The flow of one task, and how it is trained.

    Attributes:
        splits: Makes the blocks of one autoregressive layer after the other, in the order in which they are drawn.
        normed: A scale for each field after each layer.
        bins: Of each spline.
        width: Hidden fields of the conditioner for each block.
        settings: Of ``fit``.
        pool: Draws in a pool of OwnDraws.
    """

    splits: Callable[[VectorAction], list[Split]]
    normed: bool
    bins: int
    width: int
    settings: FitSettings
    pool: int

    def transforms(self, action: VectorAction) -> list[EquivariantTransform]:
        """Autoregressive layers of splines, fast to score."""
        layers: list[EquivariantTransform] = []
        for split in self.splits(action):
            layers.append(g_autoregressive(action, split=split, transformer=self._spline, width=self.width))
            if self.normed:
                layers.append(GActNorm(action))
        return layers

    def _spline(self, part: LinearAction) -> ElementwiseSpline:
        return ElementwiseSpline(part, bins=self.bins)

    def __str__(self) -> str:
        steps, batch, lr = self.settings.steps, self.settings.batch_size, self.settings.optimizer.lr
        return f"bins {self.bins}, width {self.width}, {steps} steps of {batch}, lr {lr}, pool {self.pool}"


RECIPES = {
    # z1, which the swap leaves alone, and z0, which changes sign; then the other way round
    "two_moons": Recipe(
        splits=lambda action: [IrrepSplit(action, [[0], [1]]), IrrepSplit(action, [[1], [0]])],
        normed=True,  # a moon is small beside the prior
        bins=16,
        width=16,
        settings=FitSettings(
            steps=1000, batch_size=1000, optimizer=Adam(lr=1e-2, clip_norm=20.0), schedule=OneCycle(warmup=0.1)
        ),
        pool=10_000,
    ),
    "slcp": Recipe(
        splits=lambda action: [CoordinateSplit(action, [[2], [3], [4], [0], [1]])],
        normed=False,
        bins=8,
        width=8,
        settings=FitSettings(
            steps=1000, batch_size=500, optimizer=Adam(lr=1.5e-2, clip_norm=20.0), schedule=OneCycle(warmup=0.1)
        ),
        pool=5_000,
    ),
}


def images_of_a_normal(action: VectorAction) -> Symmetrized:
    """A unit normal, two standard deviations off what the group leaves alone, and its images; the mean is learned."""
    normal = InvariantNormal(VectorAction.trivial("C1", copies=action.numel), mean=True)
    moved = (action.matrix(action.generators()) - torch.eye(action.numel)).abs().sum((0, 1)) > 0
    with torch.no_grad():
        normal.module.mean.coordinates.copy_(2.0 * moved)
    return Symmetrized(normal, action)


def fit_invariant(task: Task, x: Tensor, *, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """Draws of an AutoGFlow that was fitted by its own draws, and figures of the fit."""
    torch.manual_seed(seed)
    guide = AutoGFlow(
        task.model,
        task.action,
        transforms=RECIPES[task.name].transforms,
        base=images_of_a_normal,
        args=(x,),
        check="raise",
        joint=task.sloped_model,  # at random points two moons is -inf, and so are its images: that shows nothing
    )
    flow, to_box = guide.flow, biject_to(task.prior.support)

    def log_density(z: Tensor) -> Tensor:
        theta = to_box(z)
        return task.log_likelihood(theta, x) + to_box.log_abs_det_jacobian(z, theta)

    settings = dataclasses.replace(RECIPES[task.name].settings, seed=seed)
    own = OwnDraws(flow, log_density, pool=RECIPES[task.name].pool)
    result = fit(flow, own, settings=settings, progress=False)
    with torch.no_grad():
        z = flow.dist.sample((WEIGHT_DRAWS,))
        log_weights = log_density(z) - flow(z)
    report = importance_report(log_weights)
    # E_q max(0, 1 - p / q): half of it is all by which the best classifier could beat 0.5
    variation = float((1 - (log_weights - report.log_mean_weight).exp()).clamp_min(0).mean())
    figures = {"ess": report.ess, "pareto_k": report.pareto_k, "total_variation": variation, "seconds": result.seconds}
    return to_box(z[:DRAWS]), {**figures, "parameters": sum(p.numel() for p in flow.parameters())}


def fit_svi(
    make: Callable[[Any], Any], *, lr: float, steps: int = SVI_STEPS
) -> Callable[..., tuple[Tensor, dict[str, Any]]]:
    """A guide of Pyro's, by Trace_ELBO; where the likelihood is 0, two moons gets a steep slope in its place."""

    def run(task: Task, x: Tensor, *, seed: int) -> tuple[Tensor, dict[str, Any]]:
        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        guide = make(task.sloped_model)
        elbo = Trace_ELBO(num_particles=32, vectorize_particles=True, max_plate_nesting=0)
        decay = 0.02 ** (1 / steps)
        svi = SVI(task.sloped_model, guide, pyro.optim.ClippedAdam({"lr": lr, "lrd": decay, "clip_norm": 10.0}), elbo)
        began = time.perf_counter()
        for _ in range(steps):
            svi.step(x)
        seconds = time.perf_counter() - began
        with torch.no_grad(), pyro.plate("draws", DRAWS, dim=-1):
            theta = guide(x)["theta"]
        return theta.reshape(DRAWS, task.dim), {"seconds": seconds}

    return run


def run_nuts(task: Task, x: Tensor, *, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """A chain of NUTS in one orthant, moved by random elements: a check of the reference draws of SLCP."""
    pyro.set_rng_seed(seed)
    kernel = NUTS(task.model, init_strategy=init_to_uniform, jit_compile=True, ignore_jit_warnings=True)
    chain = MCMC(kernel, num_samples=2 * FEW, warmup_steps=500, disable_progbar=True)
    began = time.perf_counter()
    chain.run(x)
    theta, action = chain.get_samples()["theta"][::2], task.action.sites["theta"]
    return action.act_each(action.sample((FEW,)), theta), {"seconds": time.perf_counter() - began}


GUIDES: dict[str, Callable[..., tuple[Tensor, dict[str, Any]]]] = {
    "AutoGFlow": fit_invariant,
    "AutoIAFNormal": fit_svi(lambda model: AutoIAFNormal(model, hidden_dim=[64], num_transforms=2), lr=5e-3),
    "AutoNormal": fit_svi(lambda model: AutoNormal(model, init_loc_fn=init_to_uniform), lr=2e-2),
    "NUTS": run_nuts,
}


def run(task: Task, guide: str, index: int) -> dict[str, Any]:
    """Fit one guide to one observation and compare its draws with the reference."""
    x = task.observation(index)
    reference = task.exact(x, DRAWS, torch.Generator().manual_seed(index)).float()
    draws, figures = GUIDES[guide](task, x.float(), seed=index)
    # where two sets differ much the classifier trains for long; fewer draws only make it milder
    count = DRAWS if guide == "AutoGFlow" else FEW
    return {
        "task": task.name,
        "guide": guide,
        "observation": index + 1,
        "recipe": recipe(task.name, guide),
        "c2st": c2st(reference[:count], draws[:count]),
        "draws": count,
        "load": round(os.getloadavg()[0], 1),
        **figures,
    }


def recipe(task: str, guide: str) -> str:
    """Changes when the guide or its training does."""
    if guide == "AutoGFlow":
        return str(RECIPES[task])
    return f"{2 * FEW} draws" if guide == "NUTS" else f"Trace_ELBO, {SVI_STEPS} steps"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """C2ST over the observations, as Markdown."""
    lines = [
        "| posterior | guide | observations | draws | C2ST, mean | lowest to highest | target | ESS, mean | "
        "total variation, mean | seconds, mean |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for task in TASKS:
        for guide in GUIDES:
            found = [
                r for r in rows if r["task"] == task and r["guide"] == guide and r["recipe"] == recipe(task, guide)
            ]
            if not found:
                continue

            def mean(key: str, found: list[dict[str, Any]] = found) -> str:
                values = [row[key] for row in found if key in row]
                return f"{statistics.mean(values):.3f}" if values else ""

            scores = [row["c2st"] for row in found]
            cells = [
                task.replace("_", " "),
                guide,
                str(len(found)),
                f"{found[0]['draws']:,}",
                mean("c2st"),
                f"{min(scores):.3f} to {max(scores):.3f}",
                f"{TARGETS[task]:.2f}" if guide == "AutoGFlow" else "",
                mean("ess"),
                mean("total_variation"),
                f"{statistics.mean(row['seconds'] for row in found):.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--guides", nargs="+", choices=list(GUIDES), default=list(GUIDES))
    parser.add_argument("--observations", type=int, default=10, help="the first so many of the ten")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = RESULTS / "posteriors.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {(row["task"], row["guide"], row["observation"], row["recipe"]) for row in done}
    for index in range(arguments.observations):
        for guide in arguments.guides:
            for name in arguments.only:
                if guide == "NUTS" and name != "slcp":  # the draws of two moons are exact in closed form
                    continue
                if (name, guide, index + 1, recipe(name, guide)) in known:
                    continue
                row = run(TASKS[name], guide, index)
                done.append(row)
                print(json.dumps(row), flush=True)
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                path.with_suffix(".md").write_text(table(done))
    print(table(done))


if __name__ == "__main__":
    main()
