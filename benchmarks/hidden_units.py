"""Posteriors of Bayesian networks with 3, 20 and 50 hidden units, which may be permuted and change sign.

    python -m benchmarks.hidden_units [--only NAME ...] [--seeds 1]

The evidence of the smallest network by sequential Monte Carlo is computed once and kept in the folder ``runs``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor

from benchmarks.bayesian_networks import SETTINGS, Network
from benchmarks.harness import Benchmark, Run, Seeds, grouped, main, markdown
from benchmarks.posterior_guides import (
    BOUND_DRAWS,
    FIT,
    Fitted,
    SviSettings,
    bound,
    canonicalized_flow,
    fit_flow,
    fit_own_draws,
    fit_pyro_guide,
    plain_flow,
)
from benchmarks.recipes import training_text
from benchmarks.sampling import tempered
from pyro_gflows.guides import find_mode
from pyro_gflows.training import FitSettings

CACHE = Path(__file__).parent.parent / "runs" / "hidden_units"
FITS = {
    "h3": dataclasses.replace(FIT, steps=1000, batch_size=128),
    "h20": dataclasses.replace(FIT, steps=600),
    "h50": dataclasses.replace(FIT, steps=600),
}
# a shorter fit by energy, and then one by the forward divergence, for the importance weights
BEFORE = dataclasses.replace(FIT, steps=400, batch_size=128)
OWN = dataclasses.replace(FIT, steps=1200, batch_size=256)
SVI = {"AutoNormal": SviSettings(lr=1e-2), "AutoMultivariateNormal": SviSettings(lr=5e-3)}
THEN = "Canonicalized, then its own draws"
PARTICLES, MONTE_CARLO_SEEDS = 8192, 4
SMALL = "h3"  # the network whose group is small enough for sums


@dataclass(frozen=True)
class Row:
    """One guide for one network."""

    network: str
    guide: str

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.network}, {self.guide}"

    def labels(self) -> Mapping[str, Any]:
        """Network, guide and training."""
        if self.guide in SVI:
            return {"name": self.network, "guide": self.guide, "recipe": repr(SVI[self.guide])}
        recipe = training_text(FITS[self.network])
        if self.guide == THEN:
            recipe = f"{training_text(BEFORE)}; own draws {training_text(OWN)}"
        return {"name": self.network, "guide": self.guide, "recipe": recipe}


def start_at_mode(network: Network) -> tuple[Tensor, Tensor]:
    """The best mode that ascents from the prior find, and a factor of the covariance there."""
    torch.manual_seed(0)
    return find_mode(network.log_density(), network.prior_draws(16))


def monte_carlo(network: Network, *, quick: bool) -> list[float]:
    """The log-evidence by sequential Monte Carlo, from several seeds; computed once."""
    path = CACHE / f"{network.name}.pt"
    if not quick and path.exists():
        kept: list[float] = torch.load(path)
        return kept
    found = []
    for seed in range(1 if quick else MONTE_CARLO_SEEDS):
        torch.manual_seed(seed)
        draws = network.prior_draws(32 if quick else PARTICLES)
        share = 0.5 if quick else 0.95
        run = tempered(network.log_prior, network.log_likelihood(), draws, share=share, moves=3, leaps=10)
        found.append(run.log_evidence)
    if not quick:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, path)
    return found


@torch.no_grad()
def symmetrized_bound(fitted: Fitted, network: Network, *, draws: int) -> float:
    """The evidence lower bound of the mean of a density over all elements of a small group."""
    z, _ = fitted.draw(draws)
    scores = torch.stack([fitted.log_prob(images) for images in network.all_images(z)])
    return float((network.log_density()(z) - (scores.logsumexp(0) - network.log_order)).mean())


@torch.no_grad()
def largest_gain(fitted: Fitted, network: Network, *, draws: int) -> float:
    """An upper bound of what the mean of a density over the group gains over the density itself, in nats.

    The gain is log |G| - E_q log(sum over g of q(g x) / q(x)); of the sum, only the unit, the transpositions and the
    single changes of sign are kept.
    """
    z, scores = fitted.draw(draws)
    ratios = [
        fitted.log_prob(network.near_images(one[None])[:, 0]) - score for one, score in zip(z, scores, strict=True)
    ]
    near = torch.stack([torch.cat([ratio.new_zeros(1), ratio]).logsumexp(0) for ratio in ratios])
    return network.log_order - float(near.mean())


def flow_guide(make: Callable[..., Any]) -> Callable[..., Fitted]:
    """A guide that is a flow made from the mode, fitted by energy."""

    def fit(row: Row, network: Network, *, seed: int, quick: bool) -> Fitted:
        torch.manual_seed(seed)
        flow = make(network, *start_at_mode(network))
        first = BEFORE if row.guide == THEN else FITS[row.network]
        fitted = fit_flow(flow, network.log_density(), fit=_shortened(first, quick), seed=seed)
        if row.guide != THEN:
            return fitted
        return fit_own_draws(flow, network.log_density(), fit=_shortened(OWN, quick), seed=seed, before=fitted)

    return fit


def pyro_guide(make: Callable[..., Any], settings: SviSettings) -> Callable[..., Fitted]:
    """One of Pyro's guides, fitted by SVI from the same mode."""

    def fit(row: Row, network: Network, *, seed: int, quick: bool) -> Fitted:
        chosen = dataclasses.replace(settings, steps=5) if quick else settings
        values = network.values(start_at_mode(network)[0])
        return fit_pyro_guide(make, network.model, network.data()[0], values=values, settings=chosen, seed=seed)

    return fit


def _shortened(settings: FitSettings, quick: bool) -> FitSettings:
    return dataclasses.replace(settings, steps=3) if quick else settings


GUIDES: dict[str, Callable[..., Fitted]] = {
    "Canonicalized": flow_guide(lambda network, *mode: canonicalized_flow(network.action, *mode)),
    THEN: flow_guide(lambda network, *mode: canonicalized_flow(network.action, *mode)),
    "plain flow": flow_guide(lambda network, *mode: plain_flow(*mode)),
    "AutoNormal": pyro_guide(lambda model, start: AutoNormal(model, init_loc_fn=start), SVI["AutoNormal"]),
    "AutoMultivariateNormal": pyro_guide(
        lambda model, start: AutoMultivariateNormal(model, init_loc_fn=start), SVI["AutoMultivariateNormal"]
    ),
}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train one guide and measure it."""
    network = SETTINGS[row.network]
    fitted = GUIDES[row.guide](row, network, seed=seed, quick=quick)
    draws = 200 if quick else BOUND_DRAWS
    more = 10 if row.guide == THEN and not quick else 1
    figures = {**fitted.figures, **bound(fitted, network.log_density(), seed=seed, draws=more * draws)}
    z = fitted.draw(draws // 5)[0]
    figures["log_predictive"] = [round(value, 5) for value in network.log_predictive(z).tolist()]
    images = network.random_images(z[:10].repeat(100, 1))
    figures["asymmetry"] = float((fitted.log_prob(images) - fitted.log_prob(z[:10]).repeat(100)).abs().max())
    if row.guide == "plain flow":
        figures["largest_gain"] = largest_gain(fitted, network, draws=3 if quick else 100)
        if row.network == SMALL:
            figures["symmetrized_elbo"] = symmetrized_bound(fitted, network, draws=draws // 2)
    if row.network == SMALL:
        evidences = monte_carlo(network, quick=quick)
        figures["monte_carlo"] = statistics.mean(evidences)
        figures["monte_carlo_spread"] = statistics.stdev(evidences) if len(evidences) > 1 else math.nan
    return figures


HEAD = [
    "hidden units",
    "guide",
    "parameters",
    "ELBO",
    "gain over the plain flow",
    "its upper bound",
    "ESS",
    "log-evidence by importance",
    "by sequential Monte Carlo",
    "test log predictive density",
    "difference from the plain flow",
    "change of log q, 1,000 elements",
    "CPU seconds",
]


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """A line for each guide, beside the plain flow for the same network and, for few units, its mean over the group."""
    groups = grouped(rows, runs)
    plain = {found.row.network: found for found in groups if found.row.guide == "plain flow"}
    lines = []
    for found in groups:
        network, first = found.row.network, found.runs[0]
        beside = plain[network].runs[0] if network in plain else None
        gain = bounded = difference = ""
        if beside is not None and found.row.guide != "plain flow":
            gain = f"{first['elbo'] - beside['elbo']:.2f}"
            bounded = f"{beside['largest_gain']:.2f}" if "Canonicalized" in found.row.guide else ""
            difference = _difference(first["log_predictive"], beside["log_predictive"])
        evidence = monte_carlo_text = ""
        if network == SMALL:
            doubt = "" if first["reliable"] else ", Pareto k above 0.7"
            evidence = f"{first['log_evidence']:.3f} +- {first['log_evidence_error']:.3f}{doubt}"
            monte_carlo_text = f"{first['monte_carlo']:.3f} +- {first['monte_carlo_spread']:.3f}"
        predictive = f"{statistics.mean(first['log_predictive']):.4f}"
        figures = [f"{found['parameters']}", f"{first['elbo']:.2f}", gain, bounded, f"{first['ess']:.3f}"]
        last = [f"{first['asymmetry']:.1e}", f"{first['cpu_seconds']:.0f}"]
        lines.append(
            [network[1:], found.row.guide, *figures, evidence, monte_carlo_text, predictive, difference, *last]
        )
        if "symmetrized_elbo" in first:
            summed = f"{first['symmetrized_elbo']:.2f}"
            gained = f"{first['symmetrized_elbo'] - first['elbo']:.2f}"
            name = "plain flow, mean over all elements"
            lines.append([network[1:], name, figures[0], summed, gained, f"{first['largest_gain']:.2f}", *[""] * 7])
    return markdown(HEAD, lines, left=(0, 1))


def _difference(ours: Sequence[float], others: Sequence[float]) -> str:
    """The mean difference over test rows, and its standard error."""
    each = [a - b for a, b in zip(ours, others, strict=True)]
    return f"{statistics.mean(each):+.4f} +- {statistics.stdev(each) / math.sqrt(len(each)):.4f}"


def more_options(parser: argparse.ArgumentParser) -> None:
    """The rows that take longest."""
    parser.add_argument("--all", action="store_true", help="also 50 units, and the fit by the guide's own draws")


def choose(options: argparse.Namespace) -> Sequence[Row]:
    """The rows of the table, or all there are."""
    every = [Row(network, guide) for network in SETTINGS for guide in GUIDES if guide != THEN or network == SMALL]
    return every if options.all else BENCHMARK.rows


BENCHMARK = Benchmark(
    "hidden_units",
    __doc__,
    [Row(network, guide) for network in ("h3", "h20") for guide in GUIDES if guide != THEN],
    run,
    table,
    seeds=Seeds(1),
    more_options=more_options,
    choose=choose,
)

if __name__ == "__main__":
    main(BENCHMARK)
