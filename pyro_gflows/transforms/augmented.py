"""Augmented couplings on particles: clouds of auxiliary vectors change places with the cloud of positions."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pyro_gflows.actions import CoordinateSplit, ParticleAction, RowsAction
from pyro_gflows.nn.graph_network import GraphNetwork
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.coupling import GCoupling
from pyro_gflows.transforms.row_stretch import RowStretch
from pyro_gflows.transforms.transformers import TransformerFactory

__all__ = ["GExchange", "GRelative", "g_augmented_coupling"]


class _OfClouds(EquivariantTransform):
    """A layer of log-det 0 on the coordinates of a configuration and free clouds of vectors, side by side."""

    def __init__(self, action: ParticleAction, *, copies: int = 1) -> None:
        super().__init__(padded(action, copies))
        self.action, self.copies = action, copies

    def _apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The positions, shape ``(..., n, d)``, and the clouds, shape ``(..., copies, n, d)``."""
        self.action_in.check_event(x)
        size = self.action.coordinates.numel
        clouds = x[..., size:].unflatten(-1, (self.copies, *self.action.event_shape))
        return self.action.from_coordinates(x[..., :size]), clouds

    def _together(self, positions: Tensor, clouds: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.action.to_coordinates(positions), clouds.flatten(-3)], -1)
        return x, x.new_zeros(x.shape[:-1])

    def extra_repr(self) -> str:
        return f"{self.action}, copies={self.copies}"


@registered
class GRelative(_OfClouds):
    r"""Auxiliary vectors become relative to their particles, :math:`(x, a) \mapsto (x, a - x)`, with log-det 0.

    It is the last layer of :func:`~pyro_gflows.g_augmented_particle_flow`. A padding a that is drawn around 0, whatever
    x is, then stands for points around the particles. So all layers before this one see clouds that tell where each
    particle is, from the first step of training on.

    Args:
        action: How the group acts on configurations, with center of mass 0.
        copies: The number of clouds.

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: Its center is free, or ``copies`` is below 1.

    Example:
        >>> GRelative(ParticleAction(4, 2))(torch.zeros(5, 14)).shape
        torch.Size([5, 14])
    """

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        positions, clouds = self._apart(x)
        return self._together(positions, clouds - positions[..., None, :, :])

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        positions, clouds = self._apart(y)
        return self._together(positions, clouds + positions[..., None, :, :])


@registered
class GExchange(_OfClouds):
    r"""An exchange of the positions of particles with clouds of auxiliary vectors, of log-det 0.

    In an augmented coupling an event is a configuration x of n particles with center of mass 0, and k clouds
    :math:`a_1, \dots, a_k` of n vectors each, which are free. A coupling layer transforms the clouds by a map of each
    vector of its own. For the positions that is not possible as such, since their center would not stay at 0. So the
    origin is put at the center of another cloud:

    .. math:: (x, a_1, \dots, a_k) \mapsto (a_1 - c,\ a_2 - c,\ \dots,\ a_k - c,\ x - c), \qquad
        c = \frac1n \sum_i (a_1)_i

    Now :math:`a_1` has center 0, and x is free. The differences of all n (k + 1) points stay as they were, so this is
    another way to write the same event, and it keeps volumes: in orthonormal coordinates it exchanges x with the
    coordinates of :math:`a_1` relative to its center, takes c to -c, and shifts the other clouds by multiples of c.

    Args:
        action: How the group acts on configurations, with center of mass 0.
        copies: The number k of clouds.

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: Its center is free, or ``copies`` is below 1.

    Example:
        >>> layer = GExchange(ParticleAction(4, 2), copies=2)
        >>> layer.action_in
        RowsAction(S4 x O(2) on R^22: mean-free rows of 2 + 2 x rows of 2)
        >>> layer(torch.zeros(5, 22)).shape
        torch.Size([5, 22])
    """

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        positions, clouds = self._apart(x)
        center = clouds[..., :1, :, :].mean(-2, keepdim=True)
        points = torch.cat([clouds, positions[..., None, :, :]], -3) - center
        return self._together(points[..., 0, :, :], points[..., 1:, :, :])

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, others = self._apart(y)
        center = others[..., -1:, :, :].mean(-2, keepdim=True)
        points = torch.cat([first[..., None, :, :], others], -3) - center
        return self._together(points[..., -1, :, :], points[..., :-1, :, :])


def padded(action: ParticleAction, copies: int) -> RowsAction:
    """How the group acts on the coordinates of a configuration and on free clouds of vectors, side by side."""
    if not isinstance(action, ParticleAction):
        raise TypeError(f"expected a ParticleAction such as ParticleAction(4, 2), got {type(action).__name__}")
    if action.center != "mean-free":
        raise ValueError(
            f"expected particles with center of mass 0, got {action}; where the center is free, g_coupling on "
            "action.rows.copies(2) splits positions from auxiliary vectors"
        )
    return action.coordinates.direct_sum(action.rows.copies(copies))


def g_augmented_coupling(
    action: ParticleAction,
    *,
    copies: int = 1,
    width: int = 32,
    depth: int = 2,
    transformer: TransformerFactory | None = None,
) -> Compose:
    r"""A coupling step on particles with auxiliary vectors: every cloud is transformed, then all change places.

    A single cloud of particles does not split into parts under permutations and rotations, but positions x and k
    clouds of auxiliary vectors a do. The step is a :class:`GCoupling`, which maps each vector of the clouds with
    parameters that a :class:`~pyro_gflows.nn.GraphNetwork` computes from x, and a :class:`GExchange`, after which the
    next step transforms x. After k + 1 steps all have been read and transformed. The flow of (x, a) is exact; the
    density of x alone is bounded and estimated by :func:`~pyro_gflows.augment`.

    Args:
        action: How the group acts on configurations x, with center of mass 0.
        copies: The number k of clouds.
        width: The width of the network.
        depth: Its number of layers.
        transformer: Makes the map of the clouds from ``action.rows.copies(copies)``; by default :class:`RowStretch`.
            Its parameters are scalars of each particle, then vectors of each particle.

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: Its center is free, or ``copies`` is below 1.

    Source: SE(3) Equivariant Augmented Coupling Flows, arXiv:2308.10364.

    Example:
        >>> step = g_augmented_coupling(ParticleAction(4, 2), width=8)
        >>> step(torch.zeros(5, 14)).shape
        torch.Size([5, 14])
    """
    joint, first = padded(action, copies), action.coordinates.numel
    split = CoordinateSplit(joint, [list(range(first)), list(range(first, joint.numel))])
    coupling = GCoupling(
        joint,
        split=split,
        transformed=1,
        transformer=RowStretch if transformer is None else transformer,
        network=functools.partial(GraphNetwork, particles=action, width=width, depth=depth),
    )
    return Compose([coupling, GExchange(action, copies=copies)])
