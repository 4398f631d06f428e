"""NUTS on a funnel with a symmetry: as it is, and through an equivariant flow (NeuTra).

    python -m benchmarks.funnel [--seeds 3] [--only NAME ...]

Every run is one line of ``results/funnel.jsonl``; runs that are there already are not repeated, so the command may be
stopped and started at will. The table in ``results/funnel.md`` is made anew after every run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.reparam import NeuTraReparam
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from benchmarks.harness import Benchmark, Run, Seeds, Stopwatch, grouped, main, markdown
from pyro_gflows import SitesAction, VectorAction
from pyro_gflows.actions import CoordinateSplit
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy
from pyro_gflows.transforms import EquivariantTransform, GActNorm, GCoupling, IrrepScale

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
    """The effects are scaled as v says; v, which the group leaves alone, by one constant."""
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

    def labels(self) -> Mapping[str, Any]:
        """Name and settings."""
        return {"name": self.name, "recipe": asdict(self)}


ROWS: Sequence[Row] = [
    Row("plain"),
    *(Row(f"neutra-{symmetry}", symmetry) for symmetry in SYMMETRIES),
]


def moments(v: Tensor, x: Tensor) -> dict[str, tuple[Tensor, float]]:
    """Functions of the draws with known means and moderate tails.

    The square of x_1 is left out: its standard deviation is sqrt(3 e^9) = 156 times its mean, so that no run of this
    length would see the mean.
    """
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
    """For each moment its mean, effective sample size, R-hat and distance to the truth in standard errors.

    These are None where a moment is the same in all draws (no v below -3).
    """
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


@contextmanager
def double_precision() -> Iterator[None]:
    """New tensors are in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@double_precision()
def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train the guide of a row, if it has one, and sample."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    figures: dict[str, Any] = {}
    with Stopwatch() as watch:
        if row.symmetry:
            with Stopwatch() as training:
                guide = train(row, seed=seed, steps=10 if quick else row.steps)
                figures["kl"] = reverse_kl(guide)
            figures["parameters"] = sum(p.numel() for p in guide.parameters())
            figures["training_seconds"] = round(training.cpu_seconds, 1)
            neutra = NeuTraReparam(guide)
            warped, divergences, step_size = sample(neutra.reparam(model), row, seed=seed, quick=quick)
            with torch.no_grad():
                draws = neutra.transform_sample(next(iter(warped.values())))
        else:
            draws, divergences, step_size = sample(model, row, seed=seed, quick=quick)
        figures |= {"divergences": divergences, "step_size": step_size, "moments": summary(draws)}
    return {**figures, "cpu_seconds": watch.figures()["cpu_seconds"]}


@torch.no_grad()
def reverse_kl(guide: AutoGFlow) -> float:
    """KL(guide, funnel), by draws of the guide."""
    z = guide.flow.dist.sample((20_000,))
    v, x = z[:, 0], z[:, 1:]
    target = dist.Normal(0.0, SPREAD).log_prob(v) + dist.Normal(0.0, (v / 2).exp()[:, None]).log_prob(x).sum(-1)
    return float((guide.flow(z) - target).mean())


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """The worst over seeds, below a line of the true means."""
    head = ["sampler", "seeds", "KL of the guide", "divergences", "worst R-hat", "least ESS", "worst distance, SE"]
    known = {name: truth for name, (_, truth) in moments(torch.zeros(1), torch.ones(1, EFFECTS)).items()}
    lines = [["the truth", *[""] * 6, *(f"{truth:.3f}" for truth in known.values()), ""]]
    for found in grouped(rows, runs):
        every = [moment for run in found.runs for moment in run["moments"].values() if moment["z"] is not None]
        worst = max(every, key=lambda moment: abs(moment["z"]))
        cells = [
            f"NeuTra, {found.row.symmetry}" if found.row.symmetry else found.row.name,
            f"{len(found.runs)}",
            " ".join(f"{kl:.4f}" for kl in found.values("kl")) if found.row.symmetry else "-",
            " ".join(f"{count}" for count in found.values("divergences")),
            f"{max(moment['r_hat'] for moment in every):.4f}",
            f"{min(moment['ess'] for moment in every):.0f}",
            f"{abs(worst['z']):.1f}",
            *(" ".join(f"{run['moments'][name]['mean']:.2f}" for run in found.runs) for name in known),
            " ".join(f"{seconds:.0f}" for seconds in found.values("cpu_seconds")),
        ]
        lines.append(cells)
    return markdown([*head, *(f"E[{name}]" for name in known), "CPU seconds"], lines)


BENCHMARK = Benchmark("funnel", __doc__, ROWS, run, table, seeds=Seeds(3))

if __name__ == "__main__":
    main(BENCHMARK)
