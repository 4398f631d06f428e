"""Is a model's log-joint invariant? A numerical check that names what breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_gflows.actions import SitesAction

__all__ = ["LogJointReport", "log_joint_invariance"]


@dataclass(frozen=True)
class LogJointReport:
    """What :func:`log_joint_invariance` found.

    Attributes:
        error: the largest change of the log-joint, in nats.
        tolerance: what rounding explains.
        element: the group element that changed it most.
        site: the site whose own log-probability changed most then.
        is_random: two runs at one point differ: the model draws sites that the values do not fix.
    """

    error: float
    tolerance: float
    element: Tensor
    site: str
    is_random: bool = False

    @property
    def is_invariant(self) -> bool:
        return not self.is_random and self.error <= self.tolerance

    def __str__(self) -> str:
        if self.is_random:
            return (
                "the model's log-joint could not be checked for invariance: it changes from run to run at the same "
                "latent values, so the model draws sites that the guide does not see (discrete ones behind "
                "poutine.block, say); pass joint=, the same model with them summed out"
            )
        return (
            f"the model's log-joint is not invariant: group element {self.element.tolist()} changes it by "
            f"{self.error:.3g} nats (rounding: {self.tolerance:.1g}), most of all at site {self.site!r}; make the "
            f"model symmetric there, or leave that symmetry out of the action"
        )


def log_joint_invariance(
    model: Callable[..., Any],
    action: SitesAction,
    points: Sequence[Mapping[str, Tensor]],
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> LogJointReport:
    r"""Compare :math:`\log p(z, x)` with :math:`\log p(\rho(g)\,z, x)` at a few points and elements.

    Args:
        model: a Pyro model; minibatches of its plates are held fixed.
        action: how the group moves latent sites.
        points: values of all latent sites.
        args: arguments of the model.
        kwargs: its keyword arguments.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_gflows import VectorAction
        >>> def model():
        ...     pyro.sample("means", dist.Normal(torch.tensor([0.0, 0.0, 1.0]), 1.0).to_event(1))
        >>> action = SitesAction("S3", {"means": VectorAction.rows("S3")})
        >>> report = log_joint_invariance(model, action, [{"means": torch.randn(3)}])
        >>> report.is_invariant, report.site
        (False, 'means')
    """
    elements = torch.cat([action.generators(), action.sample((2,), torch.Generator().manual_seed(1))])
    worst = LogJointReport(-1.0, 0.0, elements[0], next(iter(action.sites)))

    def run(values: Mapping[str, Tensor], batches: Any = None) -> Any:
        conditioned = poutine.condition(model, data=dict(values))
        if batches is not None:
            conditioned = poutine.replay(conditioned, trace=batches)
        return poutine.block(poutine.trace(conditioned).get_trace)(*args, **(kwargs or {}))

    with torch.no_grad():
        for point in points:
            start = run(point)
            batches = start.copy()
            for name, site in start.nodes.items():
                if not (site["type"] == "sample" and site_is_subsample(site)):
                    batches.remove_node(name)
            before, again = _terms(start), _terms(run(point, batches))
            tolerance = _tolerance(before, point)
            if _change(sum(before.values()), sum(again.values())) > tolerance:
                return LogJointReport(float("inf"), tolerance, elements[0], worst.site, is_random=True)
            for element in elements:
                after = _terms(run(action.act(element, point), batches))
                error = _change(sum(before.values()), sum(after.values()))
                if not error - tolerance <= worst.error - worst.tolerance:
                    site = max(before, key=lambda name: _change(before[name], after[name]))
                    worst = LogJointReport(error, tolerance, element, site)
    return worst


def _terms(trace: Any) -> dict[str, float]:
    """The log-probability of each site."""
    trace.compute_log_prob()
    return {
        name: float(site["log_prob"].double().sum())
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    }


def _change(before: float, after: float) -> float:
    """In nats; nothing where both are impossible."""
    return 0.0 if before == after else abs(after - before)


def _tolerance(terms: Mapping[str, float], point: Mapping[str, Tensor]) -> float:
    eps = max(torch.finfo(value.dtype).eps for value in point.values())
    return 200 * eps * (1.0 + sum(abs(term) for term in terms.values() if math.isfinite(term)))
