"""What a fitted density is measured by: fresh exact draws, own draws, and the floors that no right figure is below."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.harness import cpu_seconds
from benchmarks.particles.cnf import ContinuousTransform
from pyro_gflows.evaluation import importance_report, mean_and_error
from pyro_gflows.flows import AugmentedFlow
from pyro_gflows.flows.learnable import learnable
from pyro_gflows.targets import ParticleTarget

__all__ = ["BOUND_DRAWS", "BelowFloor", "Model", "measure", "own_weights"]

BOUND_DRAWS = 32  # of the auxiliary vectors for each test draw, where log p is bounded by importance weights
ERRORS = 5.0  # standard errors by which a figure may be below its floor
ROUNDING = 1e-4  # nats, of log-densities in float32
TIMED_DRAWS = 100


class BelowFloor(RuntimeError):
    """A figure is better than that of the exact density: a density or the draws are wrong."""


@dataclass(frozen=True)
class Model:
    """A fitted flow or distribution, as it is measured.

    Attributes:
        fitted: An EquivariantFlow, a distribution with a module, or an AugmentedFlow, whose figures are bounds.
        at_once: How many events are drawn or scored at a time, which bounds the memory.
    """

    fitted: Any
    at_once: int = 500

    @property
    def module(self) -> torch.nn.Module:
        """The weights."""
        fitted = self.fitted
        return fitted if isinstance(fitted, AugmentedFlow) else learnable(fitted).module

    def draw(self, count: int, target: ParticleTarget) -> Tensor:
        """Log-weights log p - log q, up to log Z, of own draws; of an AugmentedFlow on the joint space."""

        def exact(x: Tensor) -> Tensor:
            return target.log_density(x.double())

        if isinstance(self.fitted, AugmentedFlow):
            density, exact = self.fitted.flow.dist, self.fitted.padded_log_density(exact)
        else:
            density = learnable(self.fitted).distribution
        x = density.sample(torch.Size([count]))
        return exact(x) - density.log_prob(x).double()

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-densities of events, or bounds of them; and one such value a draw of the padding, equal to it if none."""
        if isinstance(self.fitted, AugmentedFlow):
            bound = self.fitted.importance_bound(x, draws=BOUND_DRAWS)
            return bound.double(), self.fitted.log_weights(x, 1)[0].double()
        own = learnable(self.fitted).distribution.log_prob(x).double()
        return own, own

    def parts(self, count: int) -> Iterator[int]:
        """Sizes of the parts in which so many events are drawn."""
        for start in range(0, count, self.at_once):
            yield min(self.at_once, count - start)

    def evaluations(self) -> int:
        """How often velocity fields were evaluated so far; 0 of a finite flow."""
        return sum(m.evaluations for m in self.module.modules() if isinstance(m, ContinuousTransform))


@torch.no_grad()
def measure(
    model: Model, target: ParticleTarget, test: Tensor, *, draws: int, seed: int, kept: Path | None = None
) -> dict[str, Any]:
    """All figures of a fitted density.

    Args:
        model: The density.
        target: The exact one.
        test: Exact draws that the fit has not seen, shape ``(rows, n, d)``.
        draws: The number of own draws.
        seed: Of the own draws.
        kept: A file that keeps their weights, from which an interrupted measuring, or one of fewer draws, goes on.

    Raises:
        BelowFloor: If a figure is below what the exact density has, by more than five standard errors.
    """
    model.module.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scores = [model.score(part) for part in test.split(model.at_once)]
        own = torch.cat([score for score, _ in scores])
        weights = own_weights(model, target, draws, kept, own)
        before = model.evaluations()
        seconds = cpu_seconds(lambda: model.draw(TIMED_DRAWS, target), calls=1)
        evaluations = model.evaluations() - before or 1
    exact = target.log_density(test.double())
    figures = {
        "parameters": sum(weight.numel() for weight in model.module.parameters()),
        "bound_draws": BOUND_DRAWS if isinstance(model.fitted, AugmentedFlow) else 0,
        **data_figures(own, exact, target),
        "forward_ess": forward_ess(exact - torch.cat([single for _, single in scores])),
        **draw_figures(weights, target),
        "evaluations": evaluations,
        "seconds_100_draws": seconds,
    }
    check_floors(figures, target)
    return figures


def own_weights(model: Model, target: ParticleTarget, draws: int, kept: Path | None, scores: Tensor) -> Tensor:
    """Log-weights of own draws, the same whether or not the work was interrupted.

    Args:
        model: The density.
        target: The exact one.
        draws: The number of draws.
        kept: A file that keeps them, or None.
        scores: Log-densities of some events, by which a file of another density is known and not used.
    """
    weights = torch.zeros(0, dtype=torch.float64)
    if kept is not None and kept.exists():
        found = torch.load(kept, weights_only=True)
        if torch.equal(found["scores"], scores):
            weights = found["weights"][:draws]
            torch.set_rng_state(found["generator"])
    for count in tqdm(list(model.parts(draws - len(weights))), desc="own draws", disable=None, leave=False):
        weights = torch.cat([weights, model.draw(count, target)])
        if kept is not None:
            unfinished = kept.with_suffix(".unfinished")
            torch.save({"weights": weights, "generator": torch.get_rng_state(), "scores": scores}, unfinished)
            unfinished.replace(kept)
    return weights


def data_figures(own: Tensor, exact: Tensor, target: ParticleTarget) -> dict[str, float]:
    """NLL over exact draws and the paired gap, the mean of true log p - model log p, with standard errors."""
    nll, error = mean_and_error(-own)
    if target.log_z is None:
        raise ValueError(f"expected a target whose log Z is known, got {target}")
    gap, gap_error = mean_and_error(exact - target.log_z - own)
    return {"nll": nll, "nll_error": error, "gap": gap, "gap_error": gap_error, "test_draws": len(own)}


def draw_figures(weights: Tensor, target: ParticleTarget) -> dict[str, float]:
    """Untrimmed ESS of own draws, log Z and the reverse divergence, from log-weights up to log Z."""
    report = importance_report(weights)
    assert target.log_z is not None
    divergence, error = mean_and_error(target.log_z - weights)
    return {
        "ess": report.ess,
        "pareto_k": report.pareto_k,
        "log_z": report.log_mean_weight,
        "log_z_error": report.standard_error,
        "reverse_kl": divergence,
        "reverse_kl_error": error,
    }


def forward_ess(log_weights: Tensor) -> float:
    r"""The effective sample size from exact draws, :math:`1 / (E_p[w]\, E_p[1/w])` with w = p / q up to a factor.

    It equals :math:`(E_q w)^2 / E_q w^2` where q is positive wherever p is, and shows modes that q misses.
    """
    count = 2 * math.log(len(log_weights))
    return math.exp(count - float(log_weights.logsumexp(0)) - float((-log_weights).logsumexp(0)))


def check_floors(figures: dict[str, Any], target: ParticleTarget) -> None:
    """Raise BelowFloor where a figure is better than that of the exact density.

    NLL is at least the entropy, both divergences are at least 0, log Z is not above the known one, and no effective
    sample size is above 1.
    """
    excess = {
        "gap": (figures["gap"], figures["gap_error"], target.log_z_error),
        "reverse_kl": (figures["reverse_kl"], figures["reverse_kl_error"], target.log_z_error),
        "log_z": (float(target.log_z or 0.0) - figures["log_z"], figures["log_z_error"], target.log_z_error),
        "ess": (1 - figures["ess"], 0.0, 1e-9),
        "forward_ess": (1 - figures["forward_ess"], 0.0, 1e-9),
    }
    if target.floor is not None:
        excess["nll"] = (figures["nll"] - target.floor, figures["nll_error"], target.floor_error)
    for name, (above, error, known) in excess.items():
        if not above >= -ERRORS * math.hypot(error, known) - ROUNDING:
            raise BelowFloor(
                f"expected {name} no better than that of {target}, but it is by {-above:.4g}, with standard errors of "
                f"{error:.2g} and, of the known figure, {known:.2g}; a log-det, a normalizer or the draws are wrong"
            )
