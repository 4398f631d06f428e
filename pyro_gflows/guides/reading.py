"""Which latent sites have quantiles that can be read off, and their values in the draws of a guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from pyro_gflows.actions import SitesAction

__all__ = ["event_shapes", "sites_of_draws", "unchanged_sites"]


def unchanged_sites(action: SitesAction, latent: Sequence[str], sites: Sequence[str] | None) -> list[str]:
    """The chosen sites, after a check that the group leaves them unchanged.

    The posterior of a site on which the group acts is the same for all images of a value, so its quantiles mix them.

    Args:
        action: How the group acts on the latent sites.
        latent: The names of all latent sites.
        sites: The chosen sites; None stands for all of them.

    Raises:
        ValueError: A chosen site is not a latent site, or the group acts on it.
    """
    chosen = list(latent) if sites is None else list(sites)
    if unknown := [name for name in chosen if name not in latent]:
        raise ValueError(f"expected sites among {list(latent)}, got {unknown}")
    if acted_on := [name for name in chosen if action.acts_on(name)]:
        fixed = [name for name in latent if not action.acts_on(name)]
        raise ValueError(
            f"{action.group} acts on {acted_on}, so the posterior is the same for all images of a value and a "
            "median or quantile mixes them; compute quantiles of guide.orbit_representative(samples)"
            + (f", or ask for sites={fixed}, which the group leaves unchanged" if fixed else "")
        )
    return chosen


def sites_of_draws(
    latent: Tensor, shapes: Mapping[str, torch.Size], supports: Mapping[str, Any], sites: Sequence[str]
) -> dict[str, Tensor]:
    """The constrained values of some sites in unconstrained draws that hold all sites side by side.

    Args:
        latent: Unconstrained draws, shape ``(draws, latent_dim)``.
        shapes: The unconstrained shape of each latent site, in the order in which the draws hold them.
        supports: The constraint of each latent site.
        sites: The names of the sites to return.

    Returns:
        For each of these sites a tensor of shape ``(draws, *site_shape)``.
    """
    values: dict[str, Tensor] = {}
    position = 0
    for name, shape in shapes.items():
        part = latent[:, position : position + shape.numel()].reshape(-1, *shape)
        position += shape.numel()
        if name in sites:
            values[name] = biject_to(supports[name])(part)
    return values


def event_shapes(sites: Mapping[str, Any]) -> dict[str, list[int]]:
    """The shapes of the values of sites, without dimensions of size 1 that no plate of the site occupies.

    Args:
        sites: The latent sites of a trace, by name.
    """
    shapes: dict[str, list[int]] = {}
    for name, site in sites.items():
        batch, event = list(site["fn"].batch_shape), list(site["fn"].event_shape)
        plates = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
        kept = [size for dim, size in enumerate(batch, -len(batch)) if size != 1 or dim in plates]
        shapes[name] = kept + event
    return shapes
