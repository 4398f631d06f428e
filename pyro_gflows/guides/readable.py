"""ReadablePosterior: what is read off the posterior of a guide: draws, quantiles and representatives of orbits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro.infer.autoguide.guides import AutoContinuous
from torch import Tensor

from pyro_gflows.actions import SitesAction
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.guides.reading import event_shapes, sites_of_draws, unchanged_sites
from pyro_gflows.guides.representative import orbit_representative

__all__ = ["ReadablePosterior"]

_DRAWS = 10_000


class ReadablePosterior(AutoContinuous):
    """The part of :class:`AutoGFlow` that reads its posterior.

    Attributes:
        flow: The posterior of the unconstrained vector.
        action: How the group acts on the sites.
    """

    flow: EquivariantFlow
    action: SitesAction

    def _supports(self) -> dict[str, Any]:
        """The constraint of each latent site."""
        return {name: site["fn"].support for name, site in self.prototype_trace.iter_stochastic_nodes()}

    @torch.no_grad()
    def draw(self, count: int) -> dict[str, Tensor]:
        """Draws of all latent sites from the posterior, without the dimensions of size 1 that plates leave.

        A site has its own dimensions and those of its plates. For ArviZ, whose first dimension counts chains:
        ``arviz.from_dict(posterior={name: value[None].numpy() for name, value in guide.draw(1000).items()})``.

        Args:
            count: The number of draws.

        Returns:
            For each site a tensor of shape ``(count, *site_shape)``.

        Example:
            >>> import pyro, pyro.distributions as dist
            >>> from pyro_gflows import AutoGFlow, SitesAction, VectorAction
            >>> def model():
            ...     with pyro.plate("components", 3, dim=-2):
            ...         pyro.sample("means", dist.Normal(0.0, 5.0))
            >>> guide = AutoGFlow(model, SitesAction("S3", {"means": VectorAction.rows("S3")}))
            >>> guide.draw(5)["means"].shape
            torch.Size([5, 3])
        """
        supports = self._supports()
        latent = self.flow.dist.sample((count,))
        draws = sites_of_draws(latent, self._unconstrained_shapes, supports, list(supports))
        shapes = event_shapes(dict(self.prototype_trace.iter_stochastic_nodes()))
        return {name: value.reshape(count, *shapes[name]) for name, value in draws.items()}

    def orbit_representative(self, samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Replaces each draw by the image under the group that best matches the others.

        This undoes label switching, so that means and quantiles of single components can be read off. See the function
        :func:`orbit_representative`.

        Args:
            samples: For each site its draws, batch dimensions first.
        """
        return orbit_representative(samples, self.action)

    def median(self, *args: Any, sites: Sequence[str] | None = None, **kwargs: Any) -> dict[str, Tensor]:
        """Returns the median of each component of the sites that the group leaves unchanged; see :meth:`quantiles`.

        Args:
            args: Ignored.
            sites: The sites to summarize; by default all latent sites.
            kwargs: Ignored.
        """
        return {name: value[0] for name, value in self.quantiles([0.5], sites=sites).items()}

    @torch.no_grad()
    def quantiles(
        self, quantiles: Sequence[float] | Tensor, *args: Any, sites: Sequence[str] | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Returns posterior quantiles, from 10,000 draws, of the sites that the group leaves unchanged.

        Args:
            quantiles: Probabilities between 0 and 1.
            args: Ignored, since the posterior does not depend on arguments.
            sites: The sites to summarize; by default all latent sites.
            kwargs: Ignored.

        Returns:
            For each site a tensor of shape ``(len(quantiles), *site_shape)``.

        Raises:
            ValueError: The group acts on one of the sites. Such a site has the same distribution as all its images, so
                its quantiles mix them; take quantiles of the draws that :meth:`orbit_representative` returns.
        """
        supports = self._supports()
        chosen = unchanged_sites(self.action, list(supports), sites)
        levels = torch.as_tensor(quantiles, dtype=torch.float64)
        # the map to a support may mix coordinates, and then quantiles do not pass through it: so use constrained draws
        draws = sites_of_draws(self.flow.dist.sample((_DRAWS,)), self._unconstrained_shapes, supports, chosen)
        return {name: torch.quantile(draws[name].double(), levels, dim=0).to(draws[name]) for name in chosen}
