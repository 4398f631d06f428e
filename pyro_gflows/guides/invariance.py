"""A numerical check of whether a model's log-joint is invariant, which names the site that breaks the symmetry."""

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
    """The result of :func:`log_joint_invariance`: how much the group changes a model's log-joint, and at which site.

    Printing the report gives the result as a sentence.

    Attributes:
        error: The largest change of the log-joint, in nats.
        tolerance: The change that rounding explains, in nats.
        element: The group element that changed the log-joint most.
        site: The site whose log-probability changed most under that element.
        is_random: Whether two runs at the same point differ, since the model draws sites that the point does not fix.
        fault: The reason why there is no log-joint to check, for example that the model hides its observed sites; empty
            if there is one.
        unnamed: The latent sites that the action does not name, so that the group leaves them as they are.
        is_empty: Whether the log-joint is -inf or NaN at all points and all their images, so that nothing was compared.

    Example:
        >>> report = LogJointReport(error=0.5, tolerance=1e-6, element=torch.tensor(1), site="means")
        >>> report.is_invariant
        False
        >>> print(str(report)[:75])
        the model's log-joint is not invariant: group element 1 changes it by 0.5 n
    """

    error: float
    tolerance: float
    element: Tensor
    site: str
    is_random: bool = False
    fault: str = ""
    is_empty: bool = False
    unnamed: tuple[str, ...] = ()

    @property
    def is_invariant(self) -> bool:
        """Whether the log-joint could be compared and changed by no more than rounding explains."""
        return not (self.is_random or self.fault or self.is_empty) and self.error <= self.tolerance

    def __str__(self) -> str:
        unchecked = "the model's log-joint could not be checked for invariance"
        if self.is_random or self.fault:
            return f"{unchecked}: {self.fault}"
        if self.is_empty:
            return (
                f"{unchecked}: it is -inf or NaN at all points that were tried (at site {self.site!r}); pass "
                "init_loc_fn= with values at which the posterior has mass"
            )
        together = (
            "; or name the sites that are permuted together with these; not in the action: " + ", ".join(self.unnamed)
            if self.unnamed
            else ""
        )
        return (
            f"the model's log-joint is not invariant: group element {self.element.tolist()} changes it by "
            f"{self.error:.3g} nats (rounding: {self.tolerance:.1g}), most of all at site {self.site!r}; make the "
            f"model symmetric at this site, or leave this symmetry out of the action{together}"
        )


def log_joint_invariance(
    model: Callable[..., Any],
    action: SitesAction,
    points: Sequence[Mapping[str, Tensor]],
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> LogJointReport:
    r"""Checks numerically whether a group action leaves a model's log-joint unchanged.

    An invariant guide fits only a posterior that has the symmetry. This check finds a prior or a likelihood that breaks
    it: it compares :math:`\log p(z, x)` with :math:`\log p(\rho(g)\,z, x)` at a few points z, for the generators of the
    group and two random elements g.

    Args:
        model: A Pyro model. A minibatch stays the same for a point and its images.
        action: How the group acts on the latent sites.
        points: Values of all latent sites, one mapping for each point.
        args: Arguments of the model.
        kwargs: Keyword arguments of the model.

    Raises:
        ValueError: There are no points.

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
    unnamed = tuple(name for name in points[0] if name not in action.sites)
    worst = LogJointReport(-1.0, 0.0, elements[0], next(iter(action.sites)), unnamed=unnamed)
    if fault := joint.fault():
        return replace(worst, error=math.inf, fault=fault)
    compared, site = False, worst.site
    with torch.no_grad():
        for point in points:
            batch = joint.minibatch()  # the same rows for all images

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
                    worst = LogJointReport(error, tolerance, element, changed, unnamed=unnamed)
    return worst if compared else replace(worst, site=site, is_empty=True)


def _change(before: float, after: float) -> float:
    """The change in nats; 0 if both values are -inf."""
    return 0.0 if before == after else abs(after - before)


def _tolerance(terms: Mapping[str, float], point: Mapping[str, Tensor]) -> float:
    eps = max(torch.finfo(value.dtype).eps for value in point.values())
    return 200 * eps * (1.0 + sum(abs(term) for term in terms.values() if math.isfinite(term)))
