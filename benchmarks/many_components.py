"""Posteriors of mixtures with 5 to 20 components in the plane: guides beside long Hamiltonian chains.

    python -m benchmarks.many_components [--only NAME ...] [--seeds 1]

The chains are run once for each posterior and kept in the folder ``runs``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoNormal
from sklearn.cluster import KMeans
from torch import Tensor

from benchmarks.c2st import c2st
from benchmarks.harness import CPU_SECONDS, PARAMETERS, SEEDS, Benchmark, Column, RowRuns, Seeds, columns, main
from benchmarks.planar_mixtures import SETTINGS, PlanarMixture, Reference, reference_draws
from benchmarks.posterior_guides import (
    BOUND_DRAWS,
    FIT,
    Fitted,
    SviSettings,
    bound,
    canonicalized_flow,
    fit_flow,
    fit_pyro_guide,
    orbit_flow,
    plain_flow,
)
from benchmarks.recipes import training_text
from pyro_gflows.guides import find_mode
from pyro_gflows.training import FitSettings

CACHE = Path(__file__).parent.parent / "runs" / "many_components"
DRAWS = 5000  # of each side, for the classifier
AGREE = 1.01  # chains whose R-hat is above it do not count as a reference
# separated modes are close to normal, and Laplace's approximation, from which flows start, is good there
FITS = {"separated": dataclasses.replace(FIT, steps=300), "overlapping": FIT}
SVI = {"AutoNormal": SviSettings(steps=500, lr=2e-2), "AutoIAFNormal": SviSettings(steps=800, lr=5e-3)}


@dataclass(frozen=True)
class Row:
    """One guide for one posterior."""

    posterior: str
    guide: str

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.posterior}, {self.guide}"

    @property
    def fit(self) -> FitSettings:
        """How flows are fitted to it."""
        return FITS[self.posterior.split("-")[1]]

    def labels(self) -> Mapping[str, Any]:
        """Posterior, guide and training."""
        recipe = repr(SVI[self.guide]) if self.guide in SVI else training_text(self.fit)
        return {"name": self.posterior, "guide": self.guide, "recipe": recipe}


def start_values(mixture: PlanarMixture, x: Tensor) -> dict[str, Tensor]:
    """Values of the sites from k-means, as one would start any guide for a mixture."""
    found = KMeans(mixture.components, n_init=10, random_state=0).fit(x.numpy())
    means, labels = torch.as_tensor(found.cluster_centers_).to(x), torch.as_tensor(found.labels_).long()
    sizes = torch.bincount(labels, minlength=mixture.components).to(x)
    squares = (x - means[labels]).square().sum(-1)
    scales = (torch.zeros_like(sizes).index_add(0, labels, squares) / (2 * sizes)).sqrt().clamp_min(0.1)
    return {"weights": sizes / sizes.sum(), "means": means, "scales": scales}


def start_at_mode(mixture: PlanarMixture, x: Tensor) -> tuple[Tensor, Tensor]:
    """The mode near the clusters of k-means, and Laplace's factor there."""
    center = mixture.unconstrained(start_values(mixture, x))
    torch.manual_seed(0)
    starts = center + 0.1 * torch.randn(4, len(center), dtype=x.dtype) * torch.arange(4)[:, None]
    return find_mode(mixture.log_density(x), starts, lr=0.02, steps=200, candidates=1)


def reference(mixture: PlanarMixture, *, quick: bool) -> Reference:
    """The reference draws, made once."""
    if quick:
        return reference_draws(mixture, particles=16, count=8, draws=10, warmup=6, share=0.1)
    path = CACHE / f"{mixture.name}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dataclasses.asdict(reference_draws(mixture)), path)
    return Reference(**torch.load(path))


def told_apart(draws: Tensor, other: Tensor, *, seed: int) -> float:
    """How well a classifier of canonical forms tells draws from reference draws."""
    return c2st(draws, other, seed=seed, hidden=64, early_stopping=True)


def widened(mixture: PlanarMixture, z: Tensor) -> Tensor:
    """Canonical forms of draws whose variances about their mean are doubled, as a guide would give that is too wide."""
    canonical = mixture.canonical(z)
    center = canonical.mean(0)
    return mixture.canonical(center + 2**0.5 * (canonical - center))


def asymmetry(fitted: Fitted, mixture: PlanarMixture, z: Tensor, *, elements: int = 1000) -> float:
    """The largest change of the log-density of a few draws under random permutations, as many as ``elements``."""
    images = mixture.relabeled(z.repeat(elements // len(z), 1))
    return float((fitted.log_prob(images) - fitted.log_prob(z).repeat(elements // len(z))).abs().max())


def flow_guide(make: Callable[..., Any]) -> Callable[..., Fitted]:
    """A guide that is a flow made from the mode, fitted by energy."""

    def fit(row: Row, mixture: PlanarMixture, x: Tensor, *, seed: int, quick: bool) -> Fitted:
        torch.manual_seed(seed)
        flow = make(mixture, *start_at_mode(mixture, x))
        settings = dataclasses.replace(row.fit, steps=5) if quick else row.fit
        return fit_flow(flow, mixture.log_density(x), fit=settings, seed=seed)

    return fit


def pyro_guide(make: Callable[..., Any], settings: SviSettings) -> Callable[..., Fitted]:
    """One of Pyro's guides, fitted by SVI."""

    def fit(row: Row, mixture: PlanarMixture, x: Tensor, *, seed: int, quick: bool) -> Fitted:
        chosen = dataclasses.replace(settings, steps=5) if quick else settings
        values = start_values(mixture, x)
        return fit_pyro_guide(make, mixture.model, (x,), values=values, settings=chosen, seed=seed)

    return fit


GUIDES: dict[str, Callable[..., Fitted]] = {
    "Canonicalized": flow_guide(lambda mixture, *mode: canonicalized_flow(mixture.action, *mode)),
    "OrbitFlow": flow_guide(lambda mixture, *mode: orbit_flow(mixture.action, *mode)),
    "plain flow": flow_guide(lambda mixture, *mode: plain_flow(*mode)),
    "AutoNormal": pyro_guide(lambda model, start: AutoNormal(model, init_loc_fn=start), SVI["AutoNormal"]),
    "AutoIAFNormal": pyro_guide(lambda model, _: AutoIAFNormal(model, num_transforms=2), SVI["AutoIAFNormal"]),
}


# K = 20, overlapping, has no reference: its chains do not agree
COMPARED = {
    "k5-separated": ("Canonicalized", "OrbitFlow"),
    "k5-overlapping": ("Canonicalized",),
    "k8-separated": ("Canonicalized", "AutoNormal", "AutoIAFNormal"),
    "k8-overlapping": ("Canonicalized", "AutoNormal", "AutoIAFNormal"),
    "k12-separated": ("Canonicalized", "AutoNormal", "AutoIAFNormal"),
    "k12-overlapping": ("Canonicalized",),
    "k20-separated": ("Canonicalized", "plain flow", "AutoNormal"),
}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train one guide and measure it."""
    mixture = SETTINGS[row.posterior]
    x = mixture.data()[: 10 * mixture.components if quick else None]
    fitted = GUIDES[row.guide](row, mixture, x, seed=seed, quick=quick)
    exact = reference(mixture, quick=quick)
    half = len(exact.draws) // 2
    torch.manual_seed(seed)
    draws = min(half, DRAWS)
    reference_half, other_half = (part[torch.randperm(half)[:draws]] for part in exact.draws.split(half))
    z = fitted.draw(draws)[0]
    controls = {}
    if row.guide == "Canonicalized":
        controls = {
            "c2st_doubled": told_apart(reference_half, widened(mixture, z), seed=seed),
            "c2st_reference": told_apart(reference_half, other_half, seed=seed),
        }
    return {
        **fitted.figures,
        **bound(fitted, mixture.log_density(x), seed=seed, draws=200 if quick else BOUND_DRAWS),
        "c2st": told_apart(reference_half, mixture.canonical(z), seed=seed),
        **controls,
        "asymmetry": asymmetry(fitted, mixture, z[:10], elements=10 if quick else 1000),
        "draws": draws,
        "r_hat": round(exact.r_hat, 4),
        "chains": exact.chains,
    }


def _judged(found: RowRuns[Row]) -> str:
    return "" if found["r_hat"] <= AGREE else " (reported only)"


def _known(found: RowRuns[Row], figure: str) -> str:
    return f"{found.median(figure):.3f}" if figure in found.runs[0] else ""


BENCHMARK = Benchmark(
    "many_components",
    __doc__,
    [Row(posterior, guide) for posterior, guides in COMPARED.items() for guide in guides],
    run,
    columns(
        Column("posterior", lambda found: found.row.posterior, left=True),
        Column("guide", lambda found: found.row.guide, left=True),
        SEEDS,
        PARAMETERS,
        Column("ELBO", lambda found: f"{found.median('elbo'):.2f}"),
        Column("ESS", lambda found: f"{found.median('ess'):.3f}"),
        Column("C2ST on canonical forms", lambda found: f"{found.median('c2st'):.3f}{_judged(found)}"),
        Column("its variances doubled", lambda found: _known(found, "c2st_doubled")),
        Column("reference against itself", lambda found: _known(found, "c2st_reference")),
        Column("change of log q, 1,000 permutations", lambda found: f"{found.largest('asymmetry'):.1e}"),
        Column("R-hat of the reference", lambda found: f"{found['r_hat']:.3f}"),
        CPU_SECONDS,
    ),
    seeds=Seeds(1),
)

if __name__ == "__main__":
    main(BENCHMARK)
