"""Draws relabelled for reading: each moved to the image nearest to the others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_gflows.actions import SitesAction

__all__ = ["orbit_representative"]

_AT_ONCE = 2**22  # numbers


def orbit_representative(samples: Mapping[str, Tensor], action: SitesAction, *, rounds: int = 20) -> dict[str, Tensor]:
    r"""Move every draw by the element of a finite group that brings it nearest to the mean of the moved draws.

    Draws of an invariant posterior are spread over all images of one another, so that their means and quantiles say
    nothing of one component; those of the moved draws do. Alternates between the mean and the nearest images, starting
    from the draw that is farthest from its own images; sites are scaled to count alike. In the end the mean is the
    lexicographically smallest of its images: permuted rows come out in ascending order of the site that ``action``
    names first.

    Args:
        samples: for each site its draws, batch dimensions first; those of other sites are returned as they are.
        action: how the group moves the sites.
        rounds: at most so many means.

    Raises:
        ValueError: the group is infinite, no site that it moves is given, or sites have different numbers of draws.

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
    flat = {name: action.flatten(name, samples[name]).flatten(0, -2) for name in names}
    counts = {name: len(values) for name, values in flat.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"expected as many draws of each site, got {counts}")
    joint = SitesAction(action.group, {name: action.sites[name] for name in names}).vector_action
    x = torch.cat([values / values.std().clamp_min(1e-12) for values in flat.values()], -1)
    chunk = max(1, _AT_ONCE // (len(action.elements()) * x.shape[-1]))

    def nearest(reference: Tensor) -> Tensor:
        # |rho(g) x - reference|^2 = |x|^2 + |reference|^2 - 2 <x, rho(g)^T reference>
        return torch.cat([(joint.act_all(part) @ reference).argmax(0) for part in x.split(chunk)])

    reference = x[_most_spread(x, joint.act_all, chunk)]
    chosen = nearest(reference)
    for _ in range(rounds):
        reference = joint.act_each(chosen, x).mean(0)
        previous, chosen = chosen, nearest(reference)
        if torch.equal(previous, chosen):
            break
    images = joint.act_all(reference).tolist()
    chosen = nearest(torch.tensor(min(images)).to(x))
    moved = {
        name: action.sites[name].act_each(chosen, values).reshape(samples[name].shape) for name, values in flat.items()
    }
    return {**samples, **moved}


def _most_spread(x: Tensor, act_all: object, chunk: int) -> int:
    """The draw whose nearest other image is farthest away."""
    gaps = []
    for part in x.split(chunk):
        images = act_all(part)  # type: ignore[operator]
        gaps.append((images[1:] - images[0]).norm(dim=-1).amin(0) if len(images) > 1 else part.norm(dim=-1))
    return int(torch.cat(gaps).argmax())
