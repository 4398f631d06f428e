"""Is a model's log-joint invariant? A numerical check that names what breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import SitesAction
from pyro_gflows.guides.joint_model import JointModel
from pyro_gflows.guides.minibatch import Minibatch

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
        fault: why there is no log-joint to check: the model hides its observed sites, say; "" where there is one.
        is_empty: the log-joint is -inf or NaN at all points and all their images, so that nothing was compared.
    """

    error: float
    tolerance: float
    element: Tensor
    site: str
    is_random: bool = False
    fault: str = ""
    is_empty: bool = False

    @property
    def is_invariant(self) -> bool:
        return not (self.is_random or self.fault or self.is_empty) and self.error <= self.tolerance

    def __str__(self) -> str:
        unchecked = "the model's log-joint could not be checked for invariance"
        if self.is_random or self.fault:
            return f"{unchecked}: {self.fault}"
        if self.is_empty:
            return (
                f"{unchecked}: it is -inf or NaN at all points that were tried (at site {self.site!r}); give "
                "init_loc_fn=, which says where the posterior's mass is"
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

    Raises:
        ValueError: no points.

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
    if not points:
        raise ValueError("expected at least one point, got none")
    joint = JointModel(model, points[0], args, kwargs)
    elements = torch.cat([action.generators(), action.sample((2,), torch.Generator().manual_seed(1))])
    worst = LogJointReport(-1.0, 0.0, elements[0], next(iter(action.sites)))
    if fault := joint.fault():
        return replace(worst, error=math.inf, fault=fault)
    compared, site = False, worst.site
    with torch.no_grad():
        for point in points:
            batch = joint.minibatch()  # one for all images

            def terms(values: Mapping[str, Tensor], batch: Minibatch = batch) -> dict[str, float]:
                return {name: float(term.double()) for name, term in joint.terms(values, batch).items()}

            before, again = terms(point), terms(point)
            site = next((name for name, term in before.items() if not math.isfinite(term)), site)
            tolerance = _tolerance(before, point)
            if _change(sum(before.values()), sum(again.values())) > tolerance:
                return replace(
                    worst, error=math.inf, tolerance=tolerance, is_random=True, fault=f"it {joint.why_random()}"
                )
            for element in elements:
                after = terms(action.act(element, point))
                compared = compared or math.isfinite(sum(before.values())) or math.isfinite(sum(after.values()))
                error = _change(sum(before.values()), sum(after.values()))
                if not error - tolerance <= worst.error - worst.tolerance:
                    changed = max(before, key=lambda name: _change(before[name], after.get(name, math.nan)))
                    worst = LogJointReport(error, tolerance, element, changed)
    return worst if compared else replace(worst, site=site, is_empty=True)


def _change(before: float, after: float) -> float:
    """In nats; nothing where both are impossible."""
    return 0.0 if before == after else abs(after - before)


def _tolerance(terms: Mapping[str, float], point: Mapping[str, Tensor]) -> float:
    eps = max(torch.finfo(value.dtype).eps for value in point.values())
    return 200 * eps * (1.0 + sum(abs(term) for term in terms.values() if math.isfinite(term)))
