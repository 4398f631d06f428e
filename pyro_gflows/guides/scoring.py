"""Scores a trace such that data outside of a support have density 0 instead of raising an error."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeVar

import pyro
import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.infer.util import is_validation_enabled
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor

__all__ = ["score", "unless_out_of_support"]

_T = TypeVar("_T")


def score(trace: Any, latent: Container[str] = ()) -> bool:
    """Computes the log-probabilities of all sites, with -inf for data outside of a support if validation is off.

    With validation, Pyro raises an error for such data. Without it, many distributions return a finite log-probability
    that has no meaning.

    Args:
        trace: The trace of a model, whose sites get their ``log_prob``.
        latent: Sites that need no check, since ``biject_to`` of their support made their values.

    Returns:
        Whether any data were outside of their support.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro import poutine
        >>> def model():
        ...     pyro.sample("x", dist.Exponential(1.0), obs=torch.tensor([-1.0, 2.0]))
        >>> with pyro.validation_enabled(False):
        ...     trace = poutine.trace(model).get_trace()
        ...     outside = score(trace)
        >>> outside, trace.nodes["x"]["log_prob"].tolist()
        (True, [-inf, -2.0])
    """
    trace.compute_log_prob()
    if is_validation_enabled():
        return False
    outside = []
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or not site["is_observed"] or name in latent:
            continue
        inside = None if site_is_subsample(site) or site_is_factor(site) else _inside(site)
        if inside is not None:
            site["log_prob"] = torch.where(inside, site["log_prob"], -torch.inf)
            outside.append(~inside.all())
    return any(map(_holds, outside))


def unless_out_of_support(run: Callable[[], tuple[_T, bool]]) -> _T:
    """The result of a run that scores a trace; repeated without validation if data outside of a support made it fail.

    Args:
        run: Runs the model and returns a result together with the return value of :func:`score`.

    Raises:
        ValueError: The run failed for another reason.
    """
    if not is_validation_enabled():
        return run()[0]
    try:
        return run()[0]
    except ValueError as error:
        with pyro.validation_enabled(False):
            result, outside = run()
        if not outside:
            raise error
        return result


def _inside(site: Any) -> Tensor | None:
    """Where a site's value is in its support or masked; None if this is not known for each log-probability."""
    fn, mask = site["fn"], site["mask"]
    if mask is False or _is_masked(fn):
        return None
    try:
        inside: Tensor = fn.support.check(site["value"])
    except (AttributeError, NotImplementedError):
        return None
    if isinstance(mask, Tensor):
        inside = inside | ~mask  # missing data may be filled with any value
    shape = site["log_prob"].shape
    # the support of a mixture may have an additional dimension for its components
    return inside if inside.ndim <= len(shape) and torch.broadcast_shapes(inside.shape, shape) == shape else None


def _is_masked(fn: Any) -> bool:
    while fn is not None and not isinstance(fn, MaskedDistribution):
        fn = getattr(fn, "base_dist", None)
    return fn is not None


def _holds(value: Tensor) -> bool:
    try:
        return bool(value)
    except RuntimeError:  # vmap forbids it, and under vmap the result is not used
        return False
