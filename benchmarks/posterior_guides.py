"""What the benchmarks of posteriors share: fitting a guide from a mode, its bound and its importance weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide.guides import AutoContinuous, AutoGuide
from pyro.infer.autoguide.initialization import init_to_value
from torch import Tensor

from benchmarks.harness import Stopwatch
from pyro_gflows import EquivariantFlow, VectorAction, training
from pyro_gflows.evaluation import importance_report
from pyro_gflows.flows import Canonicalized, OrbitFlow
from pyro_gflows.guides.default_flow import identity_transforms
from pyro_gflows.training import Adam, FitSettings, OneCycle, OwnDraws, fit_energy

__all__ = [
    "FIT",
    "Fitted",
    "SviSettings",
    "bound",
    "canonicalized_flow",
    "fit_flow",
    "fit_own_draws",
    "fit_pyro_guide",
    "orbit_flow",
    "plain_flow",
    "pyro_density",
]

LogDensity = Callable[[Tensor], Tensor]

FIT = FitSettings(steps=800, batch_size=64, optimizer=Adam(lr=3e-3), schedule=OneCycle(warmup=0.1))
BOUND_DRAWS = 10_000
_AT_ONCE = 1000


@dataclass(frozen=True)
class SviSettings:
    """How Pyro's own guides are trained: steps of ClippedAdam whose rate falls to a fiftieth, and draws a step."""

    steps: int = 1000
    draws: int = 8
    lr: float = 1e-2


@dataclass(frozen=True)
class Fitted:
    """A trained guide: its density of the unconstrained vector, and what training took."""

    distribution: Any
    figures: Mapping[str, Any]

    @torch.no_grad()
    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws of shape ``(n, d)`` with their log-density, scored on the way: an IAF is slow and rough elsewhere."""
        drawn, scores = [], []
        for part in torch.arange(n).split(_AT_ONCE):
            z = self.distribution.sample((len(part),))
            scores.append(self.distribution.log_prob(z).clone())
            drawn.append(z.clone())
        return torch.cat(drawn), torch.cat(scores)

    @torch.no_grad()
    def log_prob(self, z: Tensor) -> Tensor:
        """The log-density at vectors of shape ``(n, d)``."""
        return torch.cat([self.distribution.log_prob(part) for part in z.split(_AT_ONCE)])


def plain_flow(location: Tensor, factor: Tensor, *, steps: int = 8, width: int = 32) -> EquivariantFlow:
    """The flow that OrbitFlow takes the images of, alone: coupling steps on a normal, placed at a mode."""
    return orbit_flow(VectorAction.trivial("C1", copies=len(location)), location, factor, steps=steps, width=width)


def canonicalized_flow(
    action: VectorAction, location: Tensor, factor: Tensor, *, steps: int = 8, width: int = 32
) -> EquivariantFlow:
    """One such flow about a mode, for all images of the mode under a group of any size."""
    return _placed(Canonicalized(action, steps=steps, width=width), location, factor)


def orbit_flow(
    action: VectorAction, location: Tensor, factor: Tensor, *, steps: int = 8, width: int = 32
) -> EquivariantFlow:
    """The mixture of all images of one such flow."""
    return _placed(OrbitFlow(action, steps=steps, width=width), location, factor)


def _placed(base: Canonicalized | OrbitFlow, location: Tensor, factor: Tensor) -> EquivariantFlow:
    assert isinstance(base.action, VectorAction)
    flow = EquivariantFlow(base, identity_transforms(base.action)).to(location)
    base.start_at(location, factor)
    return flow


def fit_flow(flow: EquivariantFlow, log_density: LogDensity, *, fit: FitSettings = FIT, seed: int = 0) -> Fitted:
    """Fit a flow, in place, by its energy."""
    with Stopwatch() as watch:
        fit_energy(flow, log_density, settings=dataclasses.replace(fit, seed=seed), progress=False)
    weights = sum(parameter.numel() for parameter in flow.parameters())
    return Fitted(flow.dist, {**watch.figures(), "parameters": weights})


def fit_own_draws(
    flow: EquivariantFlow, log_density: LogDensity, *, fit: FitSettings, before: Fitted, seed: int = 0
) -> Fitted:
    """Fit a flow further, in place, by the forward divergence, which widens tails that an energy fit leaves thin."""
    own = OwnDraws(flow, log_density, pool=20_000, ess=0.2)
    with Stopwatch() as watch:
        training.fit(flow, own, settings=dataclasses.replace(fit, seed=seed), progress=False)
    spent = {name: round(before.figures[name] + value, 1) for name, value in watch.figures().items()}
    return Fitted(flow.dist, {**before.figures, **spent, "power": own.power})


def fit_pyro_guide(
    make: Callable[..., AutoGuide],
    model: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    values: Mapping[str, Tensor],
    settings: SviSettings,
    seed: int = 0,
) -> Fitted:
    """Fit one of Pyro's automatic guides, made from a model and a start, by SVI.

    The start is the values of the sites at the same mode, which AutoIAFNormal does not use.
    """
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    guide = make(model, init_to_value(values=dict(values)))
    guide(*args)
    elbo = Trace_ELBO(num_particles=settings.draws, vectorize_particles=True, max_plate_nesting=1)
    optimizer = pyro.optim.ClippedAdam({"lr": settings.lr, "lrd": 0.02 ** (1 / settings.steps)})
    svi = SVI(model, guide, optimizer, elbo)
    with Stopwatch() as watch:
        for _ in range(settings.steps):
            svi.step(*args)
    weights = sum(parameter.numel() for parameter in guide.parameters())
    return Fitted(pyro_density(guide, *args), {**watch.figures(), "parameters": weights})


def pyro_density(guide: AutoGuide, *args: Any) -> Any:
    """The density of the unconstrained vector that a guide of Pyro is, sites side by side in the model's order."""
    if isinstance(guide, AutoContinuous):
        return guide.get_posterior(*args)
    names = [name for name, _ in guide.prototype_trace.iter_stochastic_nodes()]
    loc, scale = (
        torch.cat([getattr(owner, name).detach().reshape(-1) for name in names]) for owner in (guide.locs, guide.scales)
    )
    return torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)


def bound(fitted: Fitted, log_density: LogDensity, *, seed: int = 0, draws: int = BOUND_DRAWS) -> dict[str, Any]:
    """The evidence lower bound with its standard error, and what importance weights say, from fresh draws."""
    torch.manual_seed(seed + 1000)
    z, log_q = fitted.draw(draws)
    with torch.no_grad():
        log_joint = torch.cat([log_density(part) for part in z.split(_AT_ONCE)])
    log_weights = (log_joint - log_q).double()
    report = importance_report(log_weights)
    return {
        "elbo": float(log_weights.mean()),
        "elbo_error": float(log_weights.std()) / len(z) ** 0.5,
        "ess": report.ess,
        "pareto_k": report.pareto_k,
        "log_evidence": report.log_mean_weight,
        "log_evidence_error": report.standard_error,
        "reliable": report.is_reliable,
    }
