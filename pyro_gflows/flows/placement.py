"""Flows of particles that are placed one after another, and what is trained in place of them."""

from __future__ import annotations

from typing import TypeVar, cast

from torch import nn

from pyro_gflows.actions import ParticleAction
from pyro_gflows.distributions import SequentialPlacement
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn.placement_grids import PlacementGrids
from pyro_gflows.transforms import EquivariantTransform, GActNorm, InCoordinates
from pyro_gflows.transforms.data_dependent import mark_as_set

__all__ = ["g_placement_flow", "placement_on_grids", "to_train"]

_FlowT = TypeVar("_FlowT", bound=nn.Module)


def g_placement_flow(
    action: ParticleAction,
    *,
    shortest: float,
    longest: float,
    grids: PlacementGrids | None = None,
    width: int = 24,
) -> EquivariantFlow:
    """A flow of particles that are placed one after another around one of them: the design for small clusters.

    It is a :class:`~pyro_gflows.distributions.SequentialPlacement`, which is exact and exactly invariant in both
    directions, and nothing else: all that is trained is inside the base. Train ``to_train(flow)``, which has the same
    weights and takes a fraction of the time.

    Args:
        action: How the group acts on the particles, which are of one species.
        shortest: A distance below which particles hardly ever are.
        longest: A distance above which particles hardly ever are.
        grids: The resolution of the conditionals, or None for a usual one.
        width: The hidden features of the networks.

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: The particles are of several species, fewer than 3, not in the plane or in space, or free to leave
            the center of mass; or the two distances are not positive and in order.

    Example:
        >>> from pyro_gflows import ParticleAction
        >>> flow = g_placement_flow(ParticleAction(4, 2), shortest=1.0, longest=9.0)
        >>> x = flow.dist.sample((5,))
        >>> x.shape, flow(x).shape
        (torch.Size([5, 4, 2]), torch.Size([5]))
    """
    return _alone(SequentialPlacement(action, shortest=shortest, longest=longest, grids=grids, width=width))


def placement_on_grids(flow: EquivariantFlow, grids: PlacementGrids) -> EquivariantFlow:
    """A placement flow with copies of the same weights, whose conditionals have another resolution.

    Train on coarse grids, where a step is quick, and draw and score on finer ones.

    Args:
        flow: A flow of :func:`g_placement_flow`.
        grids: The resolution of the conditionals.

    Raises:
        TypeError: The flow does not place particles.

    Example:
        >>> from pyro_gflows import ParticleAction
        >>> from pyro_gflows.nn.placement_grids import PlacementGrids
        >>> flow = g_placement_flow(ParticleAction(4, 2), shortest=1.0, longest=9.0)
        >>> finer = placement_on_grids(flow, PlacementGrids(ring=256))
        >>> sum(p.numel() for p in finer.parameters()) == sum(p.numel() for p in flow.parameters())
        True
    """
    if not isinstance(flow.base, SequentialPlacement):
        raise TypeError(f"expected a flow of g_placement_flow, got one on the base {flow.base}")
    return _on_base(flow.base.on_grids(grids), flow)


def to_train(flow: _FlowT, *, centers: int | None = None) -> _FlowT:
    """The flow to train in place of a flow, with the same weights; it is the flow itself for all other designs.

    The density of :func:`g_placement_flow` is a mean over the n particles that may be the center, and each takes an
    evaluation. Training takes fewer. By likelihood it needs a lower bound only, the sum over the most central particles
    (:meth:`~pyro_gflows.distributions.SequentialPlacement.most_central`). By an energy it needs a density, that with
    the first particle as the center (:attr:`~pyro_gflows.distributions.SequentialPlacement.around_first`).

    Args:
        flow: A flow, also one whose score is a bound, such as an AugmentedFlow.
        centers: By likelihood, how many of the most central particles are summed over; None by an energy.

    Raises:
        ValueError: The flow has layers after its placement, and the first particle is to be the center.

    Example:
        >>> from pyro_gflows import ParticleAction
        >>> flow = g_placement_flow(ParticleAction(4, 2), shortest=1.0, longest=9.0)
        >>> x = flow.dist.sample((5,))
        >>> bool((to_train(flow, centers=2)(x) <= flow(x)).all())
        True
        >>> to_train(flow).action
        ParticleAction(S1 x S3 x O(2) on 4 particles in R^2, mean-free)
    """
    if not (isinstance(flow, EquivariantFlow) and isinstance(flow.base, SequentialPlacement)):
        return flow
    base = flow.base.around_first if centers is None else flow.base.most_central(centers)
    return cast(_FlowT, _on_base(base, flow))


def _alone(base: SequentialPlacement) -> EquivariantFlow:
    """A flow of a base and a layer that stays the identity, as a flow needs a transform."""
    identity = GActNorm(base.action.coordinates, trainable=False)
    mark_as_set(identity)
    layers: list[EquivariantTransform] = [InCoordinates(identity, base.action)]
    return EquivariantFlow(base, layers)


def _on_base(base: SequentialPlacement, flow: EquivariantFlow) -> EquivariantFlow:
    """The same flow on another placement."""
    if base.action == flow.action:
        return EquivariantFlow(base, flow.transforms).train(flow.training)
    if not _is_placement_alone(flow):
        raise ValueError(
            "expected a flow of g_placement_flow without further layers, as with the first particle as the center the "
            f"density has another symmetry, {base.action}; train the flow itself, or by likelihood with centers="
        )
    return _alone(base).to(base.module.pair.coefficients).train(flow.training)


def _is_placement_alone(flow: EquivariantFlow) -> bool:
    """Whether a flow has no layer but the identity that :func:`g_placement_flow` gives it."""
    (first, *others) = flow.transforms
    layer = first.transform if isinstance(first, InCoordinates) and not others else None
    return isinstance(layer, GActNorm) and not list(layer.parameters()) and not bool(layer.log_scale.any())
