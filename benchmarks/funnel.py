"""NUTS on a funnel with a symmetry: as it is, and through an equivariant flow (NeuTra).

    python -m benchmarks.funnel [--seeds 3] [--only NAME ...] [--quick]

Every run is one line of ``results/funnel.jsonl``; runs that are there already are not repeated, so the command may be
stopped and started at will. The table in ``results/funnel.md`` is made anew from these lines after every run. With
``--quick`` nothing is kept.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.reparam import NeuTraReparam
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from pyro_gflows import SitesAction, VectorAction
from pyro_gflows.actions import CoordinateSplit
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy
from pyro_gflows.transforms import EquivariantTransform, GActNorm, GCoupling, IrrepScale

RESULTS = Path(__file__).parent / "results"
EFFECTS = 4
SPREAD = 3.0
SYMMETRIES: Mapping[str, VectorAction] = {
    "signs": VectorAction.signs(EFFECTS),
    "permutations": VectorAction.rows(f"S{EFFECTS}"),
    "O(2)": VectorAction.plane("O(2)", copies=EFFECTS // 2),
}


def model() -> None:
    """v ~ N(0, 3), x_i ~ N(0, e^(v/2)): Neal's funnel, standard deviations as the second arguments."""
    v = pyro.sample("v", dist.Normal(torch.zeros((), dtype=torch.float64), SPREAD))
    pyro.sample("x", dist.Normal(0.0, (v / 2).exp()[..., None].expand(*v.shape, EFFECTS)).to_event(1))


def effects_given_scale(action: VectorAction) -> list[EquivariantTransform]:
    """The effects are scaled as v says; v, which the group leaves alone, only by a number."""
    split = CoordinateSplit(action, [[0], list(range(1, action.numel))])
    # log-scales up to v / 2 = 5 or 6, which the usual cap of 3 would bend
    scale = functools.partial(IrrepScale, max_log_scale=30.0)
    return [GCoupling(action, split=split, transformer=scale, width=8), GActNorm(action)]


@dataclass(frozen=True)
class Row:
    """One line of the table: a symmetry ("" for plain NUTS), and the training of the flow that has it."""

    name: str
    symmetry: str = ""
    steps: int = 600
    particles: int = 256
    lr: float = 1e-2
    warmup: int = 300
    draws: int = 1000
    chains: int = 4


ROWS: Sequence[Row] = [
    Row("plain"),
    *(Row(f"neutra-{symmetry}", symmetry) for symmetry in SYMMETRIES),
]


def moments(v: Tensor, x: Tensor) -> dict[str, tuple[Tensor, float]]:
    """Functions of the draws whose means are known, and which have moderate tails. (The square of x_1 has not: its
    standard deviation is sqrt(3 e^9) = 156 times its mean, so that no run of this length would see the mean.)"""
    log_normal = 0.5 * (math.log(2.0) + float(torch.digamma(torch.tensor(0.5, dtype=torch.float64))))
    log_chi = 0.5 * (math.log(2.0) + float(torch.digamma(torch.tensor(EFFECTS / 2, dtype=torch.float64))))
    return {
        "v": (v, 0.0),
        "v^2": (v.square(), SPREAD**2),
        "v < -3": ((v < -3.0).double(), 0.5 * math.erfc(1.0 / math.sqrt(2.0))),
        "log abs x_1": (x[..., 0].abs().log(), log_normal),
        "log norm x": (x.norm(dim=-1).log(), log_chi),
        "x_1 > 0": ((x[..., 0] > 0).double(), 0.5),
    }


def summary(draws: Mapping[str, Tensor]) -> dict[str, dict[str, float | None]]:
    """For each moment its mean, effective sample size, R-hat and distance to the truth in standard errors; None where
    it is the same in all draws (no v below -3)."""
    figures: dict[str, dict[str, float | None]] = {}
    for name, (values, truth) in moments(draws["v"], draws["x"]).items():
        ess = float(effective_sample_size(values, chain_dim=0, sample_dim=1))
        mean, error = float(values.mean()), float(values.std()) / ess**0.5
        moment = {
            "mean": mean,
            "truth": truth,
            "ess": ess,
            "r_hat": float(split_gelman_rubin(values, chain_dim=0, sample_dim=1)),
            "z": (mean - truth) / error,
        }
        figures[name] = {key: value if math.isfinite(value) else None for key, value in moment.items()}
    return figures


def train(row: Row, *, seed: int, steps: int) -> AutoGFlow:
    """The guide, fitted by path gradients."""
    action = SYMMETRIES[row.symmetry]
    sites = SitesAction(action.group, {"x": action})
    guide = AutoGFlow(model, sites, transforms=effects_given_scale, check="raise")
    schedule = OneCycle(warmup=0.05, end=0.0)
    settings = FitSettings(
        steps=steps, batch_size=row.particles, seed=seed, optimizer=Adam(lr=row.lr), schedule=schedule
    )
    fit_energy(guide.flow, guide.log_density(), settings=settings, progress=False)
    guide.eval().requires_grad_(False)
    return guide


def sample(target: Callable[[], None], row: Row, *, seed: int, quick: bool) -> tuple[dict[str, Tensor], int, float]:
    """Draws of each site (chains, draws, ...), the number of divergences, and the step size of the last chain."""
    warmup, draws = (20, 20) if quick else (row.warmup, row.draws)
    collected: list[dict[str, Tensor]] = []
    divergences, step_size = 0, 0.0
    for chain in range(row.chains):
        pyro.set_rng_seed(1000 * (seed + 1) + chain)
        kernel = NUTS(target, jit_compile=True, ignore_jit_warnings=True)
        mcmc = MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True)
        mcmc.run()
        collected.append(mcmc.get_samples())
        divergences += sum(len(found) for found in mcmc.diagnostics()["divergences"].values())
        step_size = float(kernel.step_size)
    return {name: torch.stack([c[name] for c in collected]) for name in collected[0]}, divergences, step_size


def run(row: Row, seed: int, *, quick: bool) -> dict[str, Any]:
    """Train the guide of a row, if it has one, and sample."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    figures: dict[str, Any] = {"name": row.name, "seed": seed, "quick": quick, "recipe": asdict(row)}
    began = time.process_time()
    if row.symmetry:
        guide = train(row, seed=seed, steps=10 if quick else row.steps)
        with torch.no_grad():
            z = guide.flow.dist.sample((20_000,))
            v, x = z[:, 0], z[:, 1:]
            target = dist.Normal(0.0, SPREAD).log_prob(v) + dist.Normal(0.0, (v / 2).exp()[:, None]).log_prob(x).sum(-1)
            figures["kl"] = float((guide.flow(z) - target).mean())
        figures["parameters"] = sum(p.numel() for p in guide.parameters())
        figures["training_seconds"] = round(time.process_time() - began, 1)
        neutra = NeuTraReparam(guide)
        warped, divergences, step_size = sample(neutra.reparam(model), row, seed=seed, quick=quick)
        with torch.no_grad():
            draws = neutra.transform_sample(next(iter(warped.values())))
    else:
        draws, divergences, step_size = sample(model, row, seed=seed, quick=quick)
    figures |= {"divergences": divergences, "step_size": step_size, "moments": summary(draws)}
    figures |= {"cpu_seconds": round(time.process_time() - began, 1), "load": round(os.getloadavg()[0], 1)}
    return figures


def read(path: Path) -> list[dict[str, Any]]:
    """All finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: Sequence[Row], done: Sequence[dict[str, Any]]) -> str:
    """The worst over seeds, as Markdown."""
    head = ["sampler", "seeds", "KL of the guide", "divergences", "worst R-hat", "least ESS", "worst distance, SE"]
    names = list(moments(torch.zeros(1), torch.ones(1, EFFECTS)))
    head += [*(f"E[{name}]" for name in names), "CPU seconds"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    truths = [""] * 6 + [f"{truth:.3f}" for _, truth in moments(torch.zeros(1), torch.ones(1, EFFECTS)).values()] + [""]
    lines.append("| the truth | " + " | ".join(truths) + " |")
    for row in rows:
        runs = [figures for figures in done if figures["recipe"] == asdict(row)]
        if not runs:
            continue
        every = [moment for figures in runs for moment in figures["moments"].values() if moment["z"] is not None]
        worst = max(every, key=lambda moment: abs(moment["z"]))
        cells = [
            row.name if not row.symmetry else f"NeuTra, {row.symmetry}",
            str(len(runs)),
            " ".join(f"{figures['kl']:.4f}" for figures in runs) if row.symmetry else "-",
            " ".join(str(figures["divergences"]) for figures in runs),
            f"{max(moment['r_hat'] for moment in every):.4f}",
            f"{min(moment['ess'] for moment in every):.0f}",
            f"{abs(worst['z']):.1f}",
            *(" ".join(f"{figures['moments'][name]['mean']:.2f}" for figures in runs) for name in names),
            " ".join(f"{figures['cpu_seconds']:.0f}" for figures in runs),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of every row")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a few steps and draws, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    path = RESULTS / "funnel.jsonl"
    done = [] if arguments.quick else read(path)
    chosen = [row for row in ROWS if row.name in arguments.only]
    for seed in range(arguments.seeds):
        for row in chosen:
            if any(figures["recipe"] == asdict(row) and figures["seed"] == seed for figures in done):
                continue
            figures = run(row, seed, quick=arguments.quick)
            done.append(figures)
            print(json.dumps(figures), flush=True)
            if not arguments.quick:
                with path.open("a") as file:
                    file.write(json.dumps(figures) + "\n")
                path.with_suffix(".md").write_text(table(ROWS, done))
    print(table(chosen, done))


if __name__ == "__main__":
    main()
