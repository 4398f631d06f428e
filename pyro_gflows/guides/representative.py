"""Relabels draws from an invariant posterior: each is replaced by its image that best matches the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_gflows.actions import SitesAction
from pyro_gflows.guides.relabeling import Relabeling, relabeling_for
from pyro_gflows.numerics.precision import full_precision

__all__ = ["orbit_representative"]

_FITTED_ON = 2000  # draws
_SMALLEST = 1e-3  # standard deviation, in units of the standard deviation of the site


@full_precision
def orbit_representative(samples: Mapping[str, Tensor], action: SitesAction, *, rounds: int = 20) -> dict[str, Tensor]:
    r"""Replaces each draw from an invariant posterior by the image, under a finite group, that best matches the others.

    An invariant posterior gives all images of a value the same density. In a mixture, for example, each draw lists the
    components in an arbitrary order (label switching), so that means and quantiles mix all components. After this
    relabeling they describe single components.

    The method alternates two steps: fit a normal distribution with independent coordinates to the relabeled draws, and
    replace each draw by its image where this normal has the highest density. Coordinates that distinguish the images
    thereby count more than noisy ones. It starts from the images nearest to one draw, measured by all sites and by
    each site alone, and keeps the result with the highest likelihood. Finally one element of the group acts on all
    draws such that their mean comes first, among its images, in lexicographic order: permuted rows are in ascending
    order of the first site in ``action``. A single draw is replaced by the first of its images in this order.

    The images of a small group are all tried. For permutations of rows of a larger group, with or without signs, the
    best element is found as an assignment of rows, and for independent signs each sign by itself.

    The choice of the elements is not differentiated; gradients pass through the action of the chosen elements.

    Args:
        samples: For each site its draws, batch dimensions first, or a single draw without batch dimensions. Sites that
            ``action`` does not name are returned unchanged.
        action: How the group acts on the sites.
        rounds: The largest number of fits from each start.

    Returns:
        The relabeled draws of all sites, in the shapes of ``samples``.

    Raises:
        TypeError: ``samples`` is not a mapping.
        ValueError: The group is infinite, or too large to list its elements and not one of rows or signs; ``samples``
            has none of the action's sites, or the sites have different numbers of draws.

    Source: Stephens, Dealing with label switching in mixture models (2000).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = SitesAction("S2", {"means": VectorAction.rows("S2")})
        >>> draws = torch.tensor([[5.0, 1.0], [1.1, 5.2], [0.9, 5.1]])
        >>> orbit_representative({"means": draws}, action)["means"].tolist()[0]
        [1.0, 5.0]
    """
    if not isinstance(samples, Mapping):
        raise TypeError(
            f"expected draws as a mapping from site names to tensors, such as {{'means': draws}}, got "
            f"{type(samples).__name__}"
        )
    if not action.is_finite:
        raise ValueError(
            f"expected a finite group, but {action.group} has infinitely many elements; relabel with a finite subgroup "
            "such as D16"
        )
    names = [name for name in action.sites if name in samples]
    if not names:
        raise ValueError(f"expected draws of the sites {list(action.sites)}, got {list(samples)}")
    flat = {name: action.flatten(name, samples[name]) for name in names}
    flat = {name: values.reshape(-1, values.shape[-1]) for name, values in flat.items()}
    counts = {name: len(values) for name, values in flat.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"expected the same number of draws of each site, got {counts}")
    if not next(iter(counts.values())):
        return dict(samples)
    sites = [action.sites[name] for name in names]
    joint = SitesAction(action.group, dict(zip(names, sites, strict=True))).vector_action
    chosen, last = _chosen(
        relabeling_for(sites, joint), {name: values.detach() for name, values in flat.items()}, rounds
    )
    relabeled = {
        name: action.sites[name].act(last, action.sites[name].act_each(chosen, values)).reshape(samples[name].shape)
        for name, values in flat.items()
    }
    return {**samples, **relabeled}


def _chosen(relabeling: Relabeling, flat: Mapping[str, Tensor], rounds: int) -> tuple[Tensor, Tensor]:
    """The element for each draw that makes it match the others, and one more element that then orders all of them."""
    x = torch.cat([values / values.std(correction=0).clamp_min(1e-12) for values in flat.values()], -1)
    few = x[torch.linspace(0, len(x) - 1, min(len(x), _FITTED_ON)).long()]
    starts = _starts(relabeling.view_sizes, x)
    _, mean, weights = min((_fit(relabeling, few, start, rounds) for start in starts), key=lambda fit: fit[0])
    chosen = relabeling.nearest(x, mean, weights)
    return chosen, relabeling.first(relabeling.joint.act_each(chosen, x).mean(0))


def _starts(sizes: list[int], x: Tensor) -> list[Tensor]:
    """The initial weights of the coordinates: equal weights, and then the coordinates of each site alone."""
    alone = torch.eye(len(sizes), dtype=x.dtype, device=x.device)
    shares = [torch.ones_like(alone[0]), *(alone if len(sizes) > 1 else [])]
    return [share.repeat_interleave(torch.tensor(sizes, device=x.device)) for share in shares]


def _fit(relabeling: Relabeling, x: Tensor, weights: Tensor, rounds: int) -> tuple[float, Tensor, Tensor]:
    """The spread in nats, the mean and the precisions of the normal that is fitted to the relabeled draws."""
    start = x[relabeling.most_spread(x, weights)]
    chosen = relabeling.nearest(x, relabeling.view(start[None])[0], weights)
    for _ in range(rounds):
        images = relabeling.view(relabeling.joint.act_each(chosen, x))
        mean, deviation = images.mean(0), images.std(0, correction=0).clamp_min(_SMALLEST)
        previous, chosen = chosen, relabeling.nearest(x, mean, deviation**-2)
        if torch.equal(previous, chosen):
            break
    return float(deviation.log().sum()), mean, deviation**-2
