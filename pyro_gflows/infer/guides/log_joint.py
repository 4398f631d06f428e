"""A model's log-joint as a function of many unconstrained latent vectors at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.guides import AutoContinuous
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from pyro_gflows.infer.guides.row_check import check_rows

__all__ = ["log_joint", "prior_draws"]

_PLATE = "num_particles_vectorized"  # as Pyro's ELBOs call theirs, so that models treat both alike


def log_joint(
    guide: AutoContinuous, model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Callable[[Tensor], Tensor]:
    r"""The function :math:`u \mapsto \log p(T(u), x) + \log|\det J_T(u)|` of vectors u packed as the guide packs them.

    The model runs once for all vectors, in one more plate outside of its own.

    Args:
        guide: has seen the model, and knows its latent sites.
        model: the model; all its latent sites are the guide's.
        args: its arguments.
        kwargs: its keyword arguments.

    Returns:
        A function from shape ``(rows, latent_dim)`` to ``(rows,)``. It raises ValueError for another shape.

    Raises:
        ValueError: the model draws sites which the guide does not see, or cannot be run in a plate, or mixes its rows.
    """
    with torch.no_grad(), poutine.block():
        nodes = poutine.trace(model).get_trace(*args, **kwargs).nodes.values()
    frames = [frame for site in nodes if site["type"] == "sample" for frame in site["cond_indep_stack"]]
    nesting = max((-frame.dim for frame in frames if frame.vectorized), default=0)

    def log_density(latent: Tensor) -> Tensor:
        if latent.ndim != 2 or latent.shape[1] != guide.latent_dim:
            raise ValueError(f"expected vectors of shape (rows, {guide.latent_dim}), got {tuple(latent.shape)}")
        rows = len(latent)
        total = latent.new_zeros(rows)
        values = {}
        for site, free in guide._unpack_latent(latent.reshape(rows, *[1] * nesting, -1)):
            transform = biject_to(site["fn"].support)
            value = values[site["name"]] = transform(free)
            total = total + transform.log_abs_det_jacobian(free, value).reshape(rows, -1).sum(-1)
        with poutine.block(), pyro.plate(_PLATE, rows, dim=-nesting - 1):
            trace = poutine.trace(poutine.condition(model, data=values)).get_trace(*args, **kwargs)
        trace.compute_log_prob()
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or site_is_subsample(site):
                continue
            if not site["is_observed"]:
                raise ValueError(
                    f"site {name!r} is latent, but not one of the guide's; sum it out of the model (discrete sites), "
                    "and give that model as AutoGFlow(..., joint=)"
                )
            score = site["log_prob"]
            if score.ndim != nesting + 1 or len(score) != rows:
                raise ValueError(
                    f"expected site {name!r} to have a batch dimension for {rows} vectors at dim {-nesting - 1}, "
                    f"got log-probabilities of shape {tuple(score.shape)}; write the model so that it runs in a plate, "
                    "as vectorize_particles=True asks for"
                )
            total = total + score.reshape(rows, -1).sum(-1)
        return total

    check_rows(log_density, guide._init_loc(), minibatches=any(_is_minibatch(site) for site in nodes))
    return log_density


def _is_minibatch(site: Any) -> bool:
    """Whether a site draws the rows of a plate, rather than taking all of them."""
    return site["type"] == "sample" and site_is_subsample(site) and len(site["value"]) < site["fn"].size


@torch.no_grad()
def prior_draws(
    guide: AutoContinuous, model: Callable[..., Any], count: int, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor:
    """Unconstrained latent vectors, shape ``(count, latent_dim)``: the model's own draws of its sites."""
    drawn = []
    for _ in range(count):
        with poutine.block():
            trace = poutine.trace(model).get_trace(*args, **kwargs)
        parts = [
            biject_to(site["fn"].support).inv(trace.nodes[name]["value"]).reshape(-1)
            for name, site in guide.prototype_trace.iter_stochastic_nodes()
        ]
        drawn.append(torch.cat(parts))
    return torch.stack(drawn)
