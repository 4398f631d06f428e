"""Relabels draws from an invariant posterior: each is replaced by its image that best matches the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.numerics.precision import full_precision

__all__ = ["orbit_representative"]

_AT_ONCE = 2**22  # coordinates of images that are computed at a time
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
        ValueError: The group is infinite or too large to list its elements, ``samples`` has none of the action's sites,
            or the sites have different numbers of draws.

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
    require_enumerable(action.group, "a relabeling by the nearest of all images")
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
    joint = SitesAction(action.group, {name: action.sites[name] for name in names}).vector_action
    chosen, last = _chosen(joint, {name: values.detach() for name, values in flat.items()}, rounds)
    relabeled = {
        name: action.sites[name].act(last, action.sites[name].act_each(chosen, values)).reshape(samples[name].shape)
        for name, values in flat.items()
    }
    return {**samples, **relabeled}


def _chosen(joint: VectorAction, flat: Mapping[str, Tensor], rounds: int) -> tuple[Tensor, Tensor]:
    """The element for each draw that makes it match the others, and one more element that then orders all of them."""
    x = torch.cat([values / values.std(correction=0).clamp_min(1e-12) for values in flat.values()], -1)
    few = x[torch.linspace(0, len(x) - 1, min(len(x), _FITTED_ON)).long()]
    sizes = [values.shape[-1] for values in flat.values()]
    best = min((_fit(joint, few, weights, rounds) for weights in _starts(sizes, x)), key=lambda fit: fit[0])
    _, mean, weights = best
    chosen = _most_likely(joint, x, mean, weights)
    images = joint.act_all(joint.act_each(chosen, x).mean(0))
    return chosen, joint.elements()[min(range(len(images)), key=lambda index: images[index].tolist())]


def _starts(sizes: list[int], x: Tensor) -> list[Tensor]:
    """The initial weights of the coordinates: equal weights, and then the coordinates of each site alone."""
    alone = torch.eye(len(sizes), dtype=x.dtype, device=x.device)
    shares = [torch.ones_like(alone[0]), *(alone if len(sizes) > 1 else [])]
    return [share.repeat_interleave(torch.tensor(sizes, device=x.device)) for share in shares]


def _fit(joint: VectorAction, x: Tensor, weights: Tensor, rounds: int) -> tuple[float, Tensor, Tensor]:
    """The spread in nats, the mean and the precisions of the normal that is fitted to the relabeled draws."""
    chosen = _most_likely(joint, x, x[_most_spread(joint, x, weights)], weights)
    for _ in range(rounds):
        images = joint.act_each(chosen, x)
        mean, deviation = images.mean(0), images.std(0, correction=0).clamp_min(_SMALLEST)
        previous, chosen = chosen, _most_likely(joint, x, mean, deviation**-2)
        if torch.equal(previous, chosen):
            break
    return float(deviation.log().sum()), mean, deviation**-2


def _most_likely(joint: VectorAction, x: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
    """The element for each draw whose image is nearest to the mean, with a weight for each coordinate."""
    # sum w (g x - m)^2, without the term that is the same for all g
    nearness = [images.square() @ weights - 2 * (images @ (weights * mean)) for images in _images(joint, x)]
    nearest = torch.cat([part.argmin(0) for part in nearness])
    return joint.elements().to(nearest.device)[nearest]


def _most_spread(joint: VectorAction, x: Tensor, weights: Tensor) -> int:
    """The draw whose nearest other image is farthest away."""
    gaps = []
    for images in _images(joint, x * weights.sqrt()):
        gaps.append((images[1:] - images[0]).norm(dim=-1).amin(0) if len(images) > 1 else images[0].norm(dim=-1))
    return int(torch.cat(gaps).argmax())


def _images(joint: VectorAction, x: Tensor) -> Iterator[Tensor]:
    """All images of the draws under the group, for a few draws at a time."""
    chunk = max(1, _AT_ONCE // (len(joint.elements()) * x.shape[-1]))
    return (joint.act_all(part) for part in x.split(chunk))
