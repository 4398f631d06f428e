"""Draws relabeled for reading: each moved to the image nearest to the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.numerics.precision import full_precision

__all__ = ["orbit_representative"]

_AT_ONCE = 2**22  # numbers
_FITTED_ON = 2000  # draws
_SMALLEST = 1e-3  # standard deviation, in units of the site's


@full_precision
def orbit_representative(samples: Mapping[str, Tensor], action: SitesAction, *, rounds: int = 20) -> dict[str, Tensor]:
    r"""Move every draw by the element of a finite group that makes it most likely among the moved draws.

    Draws of an invariant posterior are spread over all images of one another, so that their means and quantiles say
    nothing of one component; those of the moved draws do. Fits a normal with independent numbers to the moved draws,
    and moves each draw to where this normal is largest, in turn: so what tells the images apart counts, and noise does
    not. Starts from the images nearest to one draw, once by all sites and once by each alone; the most likely end is
    taken. There the mean is the lexicographically smallest of its images: permuted rows come out in ascending order of
    the site that ``action`` names first. Of one draw, that is all: it comes back as the smallest of its own images.

    The choice of the elements is not differentiated; a gradient passes through the action of the chosen element.

    Args:
        samples: for each site its draws, batch dimensions first, or one draw without any; those of other sites are
            returned as they are.
        action: how the group moves the sites.
        rounds: at most so many fits from each start.

    Raises:
        ValueError: the group is infinite, no site that it moves is given, or sites have different numbers of draws.

    Source: Stephens, Dealing with label switching in mixture models (2000).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = SitesAction("S2", {"means": VectorAction.rows("S2")})
        >>> draws = torch.tensor([[5.0, 1.0], [1.1, 5.2], [0.9, 5.1]])
        >>> orbit_representative({"means": draws}, action)["means"].tolist()[0]
        [1.0, 5.0]
    """
    if not action.is_finite:
        raise ValueError(f"{action.group} has infinitely many elements; relabel with a finite subgroup such as D16")
    names = [name for name in action.sites if name in samples]
    if not names:
        raise ValueError(f"expected draws of the sites {list(action.sites)}, got {list(samples)}")
    flat = {name: action.flatten(name, samples[name]) for name in names}
    flat = {name: values.reshape(-1, values.shape[-1]) for name, values in flat.items()}
    counts = {name: len(values) for name, values in flat.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"expected as many draws of each site, got {counts}")
    if not next(iter(counts.values())):
        return dict(samples)
    joint = SitesAction(action.group, {name: action.sites[name] for name in names}).vector_action
    chosen, last = _chosen(joint, {name: values.detach() for name, values in flat.items()}, rounds)
    moved = {
        name: action.sites[name].act(last, action.sites[name].act_each(chosen, values)).reshape(samples[name].shape)
        for name, values in flat.items()
    }
    return {**samples, **moved}


def _chosen(joint: VectorAction, flat: Mapping[str, Tensor], rounds: int) -> tuple[Tensor, Tensor]:
    """The element for each draw that brings it to where the others are, and the one that then orders them all."""
    x = torch.cat([values / values.std(correction=0).clamp_min(1e-12) for values in flat.values()], -1)
    few = x[torch.linspace(0, len(x) - 1, min(len(x), _FITTED_ON)).long()]
    sizes = [values.shape[-1] for values in flat.values()]
    best = min((_fit(joint, few, weights, rounds) for weights in _starts(sizes, x)), key=lambda fit: fit[0])
    _, mean, weights = best
    chosen = _most_likely(joint, x, mean, weights)
    images = joint.act_all(joint.act_each(chosen, x).mean(0))
    return chosen, joint.elements()[min(range(len(images)), key=lambda index: images[index].tolist())]


def _starts(sizes: list[int], x: Tensor) -> list[Tensor]:
    """How much each number counts at first: all alike, and one site alone."""
    alone = torch.eye(len(sizes), dtype=x.dtype, device=x.device)
    shares = [torch.ones_like(alone[0]), *(alone if len(sizes) > 1 else [])]
    return [share.repeat_interleave(torch.tensor(sizes, device=x.device)) for share in shares]


def _fit(joint: VectorAction, x: Tensor, weights: Tensor, rounds: int) -> tuple[float, Tensor, Tensor]:
    """The spread in nats, mean and precisions of the normal that the draws, moved to where it is largest, follow."""
    chosen = _most_likely(joint, x, x[_most_spread(joint, x, weights)], weights)
    for _ in range(rounds):
        moved = joint.act_each(chosen, x)
        mean, deviation = moved.mean(0), moved.std(0, correction=0).clamp_min(_SMALLEST)
        previous, chosen = chosen, _most_likely(joint, x, mean, deviation**-2)
        if torch.equal(previous, chosen):
            break
    return float(deviation.log().sum()), mean, deviation**-2


def _most_likely(joint: VectorAction, x: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
    """The element for each draw that brings it nearest to the mean, by a weight for each number."""
    # sum w (g x - m)^2, less what is the same for all g
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
    """All images of the draws, a few draws at a time."""
    chunk = max(1, _AT_ONCE // (len(joint.elements()) * x.shape[-1]))
    return (joint.act_all(part) for part in x.split(chunk))
