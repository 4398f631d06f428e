"""InCoordinates: a layer on the orthonormal coordinates of particles, as a layer on configurations."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import Action, ParticleAction
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean, MeanFree
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["InCoordinates"]


@registered
class InCoordinates(EquivariantTransform):
    r"""Any layer on the orthonormal coordinates of an event, as a layer on configurations of particles.

    A layer such as :func:`g_radial`, :class:`GLinear` or :func:`g_residual` acts on vectors. This one writes a
    configuration x in the coordinates of its action, z = B x, lets the layer T act on z, and goes back:

    .. math:: y = B^T\,T(B\,x), \qquad \log|\det| = \log|\det J_T(B x)|

    The map B is an isometry from the space of the configurations, those with center of mass 0 included, onto all
    vectors, so the log-det is that of T, and the map is a bijection of that space. It is equivariant because B takes
    the action on configurations to ``action.coordinates``, under which T is equivariant.

    Args:
        transform: The layer T, from ``action.coordinates`` to itself.
        action: How the group acts on the configurations.

    Raises:
        TypeError: ``transform`` is not an EquivariantTransform, or ``action`` is not a ParticleAction.
        ValueError: The layer is not one on ``action.coordinates``.

    Example:
        >>> from pyro_gflows import ParticleAction, g_radial
        >>> action = ParticleAction(4, 2)
        >>> layer = InCoordinates(g_radial(action.coordinates), action)
        >>> x = action.space.project(torch.randn(5, 4, 2))
        >>> layer(x).shape
        torch.Size([5, 4, 2])
    """

    spaces = (Euclidean, MeanFree)
    action_in: ParticleAction

    def __init__(self, transform: EquivariantTransform, action: ParticleAction) -> None:
        if not isinstance(action, ParticleAction):
            raise TypeError(f"expected a ParticleAction such as ParticleAction(4, 2), got {type(action).__name__}")
        if not isinstance(transform, EquivariantTransform):
            raise TypeError(f"expected a layer on {action.coordinates}, got {type(transform).__name__}")
        for own in (transform.action_in, transform.action_out):
            if own != action.coordinates:
                raise ValueError(f"expected a layer from {action.coordinates} to itself, got one on {own}")
        super().__init__(action)
        self.transform = transform

    @property
    def context_action(self) -> Action | None:
        return self.transform.context_action

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, ladj = self.transform.call_and_ladj(self.action_in.to_coordinates(x), context)
        return self.action_in.from_coordinates(z), ladj

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, ladj = self.transform.inv_call_and_ladj(self.action_in.to_coordinates(y), context)
        return self.action_in.from_coordinates(z), ladj

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            z = self.transform.initialize(self.action_in.to_coordinates(x), context)
            return self.action_in.from_coordinates(z)

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            z = self.transform.initialize_inverse(self.action_in.to_coordinates(y), context)
            return self.action_in.from_coordinates(z)
