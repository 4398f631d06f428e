"""Random images of draws under a group."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_gflows.actions import SitesAction

__all__ = ["random_images"]


@torch.no_grad()
def random_images(
    samples: Mapping[str, Tensor], action: SitesAction, *, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """The image of each draw under a random element of the group, independently for each draw.

    A posterior with a symmetry gives all images of a value the same density. Some samplers give draws near one of the
    modes only, such as NUTS in the coordinates of a guide with the base Canonicalized (``NeuTraReparam(guide)``), whose
    draws are in canonical form. Their random images are draws of the whole posterior. This is the reverse of
    :func:`orbit_representative`.

    Args:
        samples: For each site its draws, batch dimensions first. Sites that ``action`` does not name are returned
            unchanged.
        action: How the group acts on the sites.
        generator: The source of randomness, by default torch's global one.

    Returns:
        The images of all sites, in the shapes of ``samples``.

    Raises:
        ValueError: ``samples`` has none of the action's sites, or the sites have different numbers of draws.

    Example:
        >>> from pyro_gflows import SitesAction, VectorAction
        >>> action = SitesAction("S3", {"means": VectorAction.rows("S3")})
        >>> sorted_draws = torch.tensor([[1.0, 2.0, 3.0]] * 1000)
        >>> images = random_images({"means": sorted_draws}, action)["means"]
        >>> bool((images.mean(0) - 2.0).abs().max() < 0.2), images.sort(-1).values.equal(sorted_draws)
        (True, True)
    """
    names = [name for name in action.sites if name in samples]
    if not names:
        raise ValueError(f"expected draws of the sites {list(action.sites)}, got {list(samples)}")
    flat = {name: action.flatten(name, samples[name]) for name in names}
    batches = {name: tuple(values.shape[:-1]) for name, values in flat.items()}
    counts = {torch.Size(batch).numel() for batch in batches.values()}
    if len(counts) > 1:
        raise ValueError(f"expected the same number of draws of each site, got batch shapes {batches}")
    elements = action.sample((counts.pop(),), generator)
    images = {
        name: action.sites[name].act_each(elements, values.reshape(-1, values.shape[-1])).reshape(samples[name].shape)
        for name, values in flat.items()
    }
    return {**samples, **images}
