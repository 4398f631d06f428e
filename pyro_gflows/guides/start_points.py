"""Initial values of a model's latent sites, and starting points for finding its modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide.guides import AutoContinuous
from pyro.infer.autoguide.initialization import InitMessenger, init_to_feasible
from torch import Tensor
from torch.distributions import biject_to

__all__ = ["init_or_zero", "mode_starts"]

_TRIES = 10  # draws for each start whose log-density is not finite
_SPREADS = (0.0, 0.1, 0.3, 1.0)  # around the point of init_loc_fn, in unconstrained coordinates


def init_or_zero(init: Callable[..., Any] = init_to_feasible) -> Callable[[Any], Tensor]:
    """Extends an ``init_loc_fn`` to sites whose prior cannot be sampled, such as ImproperUniform.

    Pyro's own functions draw a value, even if they only need its shape. Here a site that cannot be drawn starts at the
    value whose unconstrained coordinates are all 0.

    Args:
        init: A function from a site to a value, such as those of ``pyro.infer.autoguide.initialization``.

    Example:
        >>> import pyro.distributions as dist
        >>> from torch.distributions import constraints
        >>> site = {"name": "scale", "fn": dist.ImproperUniform(constraints.positive, (), (2,))}
        >>> init_or_zero()(site)
        tensor([1., 1.])
    """

    def value(site: Any) -> Tensor:
        try:
            return init(site)
        except NotImplementedError:
            transform = biject_to(site["fn"].support)  # raises NotImplementedError for a discrete site
            return transform(torch.zeros(transform.inverse_shape(site["fn"].shape())))

    return value


@torch.no_grad()
def mode_starts(
    guide: AutoContinuous,
    model: Callable[..., Any],
    *,
    log_density: Callable[[Tensor], Tensor],
    count: int,
    about_start: bool,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Tensor:
    """Starting points for finding a mode of a model's log-joint.

    They are prior draws of the model's sites. If a site cannot be drawn, or the model fails at its own draws, random
    points around the guide's initial values take their place. Points at which the log-density is not finite are drawn
    again a few times.

    Args:
        guide: A guide that has already run the model.
        model: The same model, without the initial values of the guide.
        log_density: The log-joint as a function of unconstrained latent vectors.
        count: The number of points.
        about_start: Whether half of the points lie at and around the guide's initial values, since the user chose them.
        args: Arguments of the model.
        kwargs: Keyword arguments of the model.

    Returns:
        Unconstrained latent vectors, shape ``(count, latent_dim)``.
    """
    start = guide._init_loc()
    near = count // 2 if about_start else 0
    spreads = torch.tensor([_SPREADS[index % len(_SPREADS)] for index in range(near)]).to(start)
    about = start + spreads[:, None] * torch.randn(near, len(start)).to(start)
    drawn = _draws(guide, model, count - near, (args, kwargs or {}))
    for _ in range(_TRIES):
        lacking = ~log_density(drawn).isfinite()
        if not bool(lacking.any()):
            break
        drawn[lacking] = _draws(guide, model, int(lacking.sum()), (args, kwargs or {}))
    return torch.cat([about, drawn])


_Call = tuple[Sequence[Any], Mapping[str, Any]]


def _draws(guide: AutoContinuous, model: Callable[..., Any], count: int, call: _Call) -> Tensor:
    return torch.stack([_draw(guide, model, call) for _ in range(count)])


def _draw(guide: AutoContinuous, model: Callable[..., Any], call: _Call) -> Tensor:
    start = guide._init_loc()
    latent = list(guide.prototype_trace.iter_stochastic_nodes())
    try:
        with poutine.block():
            trace = poutine.trace(InitMessenger(_prior_draw)(model)).get_trace(*call[0], **call[1])
        parts = [biject_to(site["fn"].support).inv(trace.nodes[name]["value"]).reshape(-1) for name, site in latent]
        drawn = torch.cat(parts)
        if bool(drawn.isfinite().all()):
            return drawn
    except (ValueError, RuntimeError):  # NotImplementedError is a RuntimeError
        pass  # the model fails at its own draws, for example at an ill-conditioned matrix
    return start + 2.0 * torch.randn(len(start)).to(start)


def _prior_draw(site: Any) -> Tensor:
    fn = site["fn"]
    try:
        return fn()
    except NotImplementedError:
        transform = biject_to(fn.support)
        return transform(2.0 * torch.randn(transform.inverse_shape(fn.shape())))
