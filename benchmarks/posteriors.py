"""Two moons and SLCP of sbibm: an invariant guide beside AutoIAFNormal and a mean-field guide, by C2ST.

    python -m benchmarks.posteriors [--observations 10] [--only two_moons ...] [--guides AutoGFlow ...]

The guides know the likelihood (``sbibm_tasks``) and never see a reference draw. Every fit is one line of
``results/posteriors.jsonl``; runs that are there already are not repeated. The table in ``results/posteriors.md`` is
made anew after every run.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoNormal, init_to_uniform
from torch import Tensor
from torch.distributions import biject_to

from benchmarks.c2st import c2st
from benchmarks.harness import Benchmark, Column, RowRuns, Seeds, Stopwatch, columns, main
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

DRAWS, FEW, QUICK_DRAWS = 10_000, 1_000, 20
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
    changed = (action.matrix(action.generators()) - torch.eye(action.numel)).abs().sum((0, 1)) > 0
    with torch.no_grad():
        normal.module.mean.coordinates.copy_(2.0 * changed)
    return Symmetrized(normal, action)


def fit_invariant(task: Task, x: Tensor, *, seed: int, quick: bool) -> tuple[Tensor, dict[str, Any]]:
    """Draws of an AutoGFlow that was fitted by its own draws, and figures of the fit."""
    recipe = RECIPES[task.name]
    settings, pool = dataclasses.replace(recipe.settings, seed=seed), recipe.pool
    if quick:
        settings, pool = dataclasses.replace(settings, steps=3, batch_size=50), 1000
    torch.manual_seed(seed)
    guide = AutoGFlow(
        task.model,
        task.action,
        transforms=recipe.transforms,
        base=images_of_a_normal,
        args=(x,),
        check="raise",
        joint=task.sloped_model,  # at random points two moons is -inf, and so are its images: that shows nothing
    )
    flow, to_box = guide.flow, biject_to(task.prior.support)

    def log_density(z: Tensor) -> Tensor:
        theta = to_box(z)
        return task.log_likelihood(theta, x) + to_box.log_abs_det_jacobian(z, theta)

    own = OwnDraws(flow, log_density, pool=pool)
    result = fit(flow, own, settings=settings, progress=False)
    with torch.no_grad():
        z = flow.dist.sample((1000 if quick else WEIGHT_DRAWS,))
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

    def run(task: Task, x: Tensor, *, seed: int, quick: bool) -> tuple[Tensor, dict[str, Any]]:
        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        guide = make(task.sloped_model)
        elbo = Trace_ELBO(num_particles=32, vectorize_particles=True, max_plate_nesting=0)
        decay = 0.02 ** (1 / steps)
        svi = SVI(task.sloped_model, guide, pyro.optim.ClippedAdam({"lr": lr, "lrd": decay, "clip_norm": 10.0}), elbo)
        with Stopwatch() as watch:
            for _ in range(3 if quick else steps):
                svi.step(x)
        with torch.no_grad(), pyro.plate("draws", DRAWS, dim=-1):
            theta = guide(x)["theta"]
        return theta.reshape(DRAWS, task.dim), {"seconds": watch.seconds}

    return run


def run_nuts(task: Task, x: Tensor, *, seed: int, quick: bool) -> tuple[Tensor, dict[str, Any]]:
    """A chain of NUTS in one orthant, its draws acted on by random elements: a check of the reference of SLCP."""
    few, warmup = (QUICK_DRAWS, 5) if quick else (FEW, 500)
    pyro.set_rng_seed(seed)
    kernel = NUTS(task.model, init_strategy=init_to_uniform, jit_compile=True, ignore_jit_warnings=True)
    chain = MCMC(kernel, num_samples=2 * few, warmup_steps=warmup, disable_progbar=True)
    with Stopwatch() as watch:
        chain.run(x)
    theta, action = chain.get_samples()["theta"][::2], task.action.sites["theta"]
    return action.act_each(action.sample((few,)), theta), {"seconds": watch.seconds}


GUIDES: dict[str, Callable[..., tuple[Tensor, dict[str, Any]]]] = {
    "AutoGFlow": fit_invariant,
    "AutoIAFNormal": fit_svi(lambda model: AutoIAFNormal(model, hidden_dim=[64], num_transforms=2), lr=5e-3),
    "AutoNormal": fit_svi(lambda model: AutoNormal(model, init_loc_fn=init_to_uniform), lr=2e-2),
    "NUTS": run_nuts,
}


@dataclass(frozen=True)
class Row:
    """One guide for one task."""

    task: str
    guide: str

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.task}, {self.guide}"

    def labels(self) -> Mapping[str, str]:
        """Task, guide, and how it is trained."""
        recipes = {"AutoGFlow": str(RECIPES[self.task]), "NUTS": f"{2 * FEW} draws"}
        recipe = recipes.get(self.guide, f"Trace_ELBO, {SVI_STEPS} steps")
        return {"task": self.task, "guide": self.guide, "recipe": recipe}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Fit one guide to an observation, 1 to 10, and compare its draws with the reference."""
    task, index = TASKS[row.task], seed - 1
    x = task.observation(index)
    draws, figures = GUIDES[row.guide](task, x.float(), seed=index, quick=quick)
    # where two sets differ much the classifier trains for long; fewer draws only make it milder
    count = QUICK_DRAWS if quick else DRAWS if row.guide == "AutoGFlow" else FEW
    reference = task.exact(x, DRAWS, torch.Generator().manual_seed(index)).float()
    return {"c2st": c2st(reference[:count], draws[:count]), "draws": count, **figures}


def more_options(parser: argparse.ArgumentParser) -> None:
    """Which guides."""
    parser.add_argument("--guides", nargs="+", choices=list(GUIDES), default=list(GUIDES), metavar="NAME")


# no NUTS for two moons, whose reference draws are exact in closed form
ROWS = [Row(*pair) for pair in itertools.product(TASKS, GUIDES) if pair != ("two_moons", "NUTS")]


def choose(options: argparse.Namespace) -> Sequence[Row]:
    """The rows of these guides."""
    return [row for guide in options.guides for row in ROWS if row.guide == guide]


def _mean(figure: str) -> Callable[[RowRuns[Row]], str]:
    """A column of means over the observations; empty for guides that have no such figure."""
    return lambda found: f"{found.mean(figure):.3f}" if figure in found.runs[0] else ""


BENCHMARK = Benchmark(
    "posteriors",
    __doc__,
    ROWS,
    run,
    columns(
        Column("posterior", lambda found: found.row.task.replace("_", " "), left=True),
        Column("guide", lambda found: found.row.guide, left=True),
        Column("observations", lambda found: f"{len(found.runs)}"),
        Column("draws", lambda found: f"{found['draws']:,}"),
        Column("C2ST, mean", _mean("c2st")),
        Column("lowest to highest", lambda found: f"{found.least('c2st'):.3f} to {found.largest('c2st'):.3f}"),
        Column("target", lambda found: f"{TARGETS[found.row.task]:.2f}" if found.row.guide == "AutoGFlow" else ""),
        Column("ESS, mean", _mean("ess")),
        Column("total variation, mean", _mean("total_variation")),
        Column("seconds, mean", lambda found: f"{found.mean('seconds'):.0f}"),
    ),
    seeds=Seeds(10, first=1, word="observation"),
    more_options=more_options,
    choose=choose,
)

if __name__ == "__main__":
    main(BENCHMARK)
