"""Flows on configurations of particles."""

from __future__ import annotations

import functools

from pyro_gflows.actions import ParticleAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.augmented import AugmentedFlow
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn import GraphNetwork
from pyro_gflows.transforms import GActNorm, GAffine, GRelative, RowStretch, g_augmented_coupling
from pyro_gflows.transforms.augmented import padded

__all__ = ["g_augmented_particle_flow"]


def g_augmented_particle_flow(
    action: ParticleAction,
    *,
    copies: int = 1,
    layers: int = 8,
    width: int = 32,
    depth: int = 1,
    bins: int = 8,
    draws: int = 64,
) -> AugmentedFlow:
    r"""A flow of particles by couplings with auxiliary vectors: one pass in both directions, bounds in place of p(x).

    Positions x are padded by k clouds of auxiliary vectors a, one vector of each cloud for each particle, and coupling
    layers transform a given x and x given a in turn (:func:`g_augmented_coupling`). The last layer writes a relative to
    x, so that q(a | x) starts near a normal distribution about the particles. The density of (x, a) is exact and
    exactly invariant. That of x is an integral over a: training maximizes a bound, and evaluation takes ``draws``
    importance weights (:class:`AugmentedFlow`), where q(a | x) is one such layer over a normal distribution.

    Args:
        action: How the group acts on configurations, with center of mass 0.
        copies: The number k of clouds.
        layers: The number of coupling steps. Multiples of k + 1 transform all clouds equally often.
        width: The width of the networks.
        depth: Their number of layers.
        bins: The number of pieces of the radial splines.
        draws: The number of draws of a for each x in evaluation.

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: Its center is free, or ``copies`` or ``layers`` is below 1.

    Source: SE(3) Equivariant Augmented Coupling Flows, arXiv:2308.10364.

    Example:
        >>> from pyro_gflows import ParticleAction
        >>> flow = g_augmented_particle_flow(ParticleAction(4, 2), layers=2, width=8)
        >>> x = flow.sample((5,))
        >>> x.shape, flow(x).shape
        (torch.Size([5, 4, 2]), torch.Size([5]))
    """
    if layers < 1:
        raise ValueError(f"expected layers >= 1, got {layers}")
    stretch = functools.partial(RowStretch, bins=bins)
    steps = [
        g_augmented_coupling(action, copies=copies, width=width, depth=depth, transformer=stretch)
        for _ in range(layers)
    ]
    joint = padded(action, copies)
    flow = EquivariantFlow(InvariantNormal(joint), [*steps, GRelative(action, copies=copies), GActNorm(joint)])
    padding, network = action.rows.copies(copies), functools.partial(GraphNetwork, particles=action)
    encoder = GAffine(
        padding,
        context_action=action.coordinates,
        transformer=stretch,
        network=functools.partial(network, width=width, depth=depth),
    )
    return AugmentedFlow(flow, EquivariantFlow(InvariantNormal(padding), [encoder]), draws=draws, particles=action)
