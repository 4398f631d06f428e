"""The flow by which a sequential placement is trained."""

from __future__ import annotations

from pyro_gflows.distributions import SequentialPlacement
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.transforms import GActNorm, InCoordinates

__all__ = ["placement_flow"]


def placement_flow(density: SequentialPlacement) -> EquivariantFlow:
    """The flow to give to ``fit`` or ``fit_energy`` to train a sequential placement, whose weights it shares.

    Its density is that around the first particle, ``density.around_first``, followed by a scale of 1 that is not
    trained. One evaluation scores an event, in place of one for each center, and the divergence of this density bounds
    that of ``density``, the mean over centers, which is what to use after training. With data, let a random permutation
    act on every batch, so that each particle is the first one at times: ``augment=random_elements(density.action)``.

    Args:
        density: The density with the weights.

    Example:
        >>> from pyro_gflows.targets import DoubleWell
        >>> from pyro_gflows.training import FitSettings, fit_energy
        >>> target = DoubleWell(3)
        >>> density = SequentialPlacement(target.action, shortest=1.0, longest=9.0)
        >>> density.start_at(target.pair_energy)
        >>> settings = FitSettings(steps=2, batch_size=50)
        >>> _ = fit_energy(placement_flow(density), target.softened(above=50.0), settings=settings, progress=False)
        >>> density.log_prob(density.sample((5,))).shape
        torch.Size([5])
    """
    first = density.around_first
    unit = InCoordinates(GActNorm(first.action.coordinates), first.action)
    return EquivariantFlow(first, [unit.requires_grad_(False)])
