"""GOrbitNorm: a learned scale and a learned shift for each orbit of coordinates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.groups.orbits import component_labels
from pyro_gflows.nn.tying import coordinate_images
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.data_dependent import DataDependentTransform

__all__ = ["GOrbitNorm"]


@registered
class GOrbitNorm(DataDependentTransform):
    r"""A normalization with one scale and one shift for all coordinates that the group exchanges (an orbit).

    On images it is finer than :class:`GActNorm`: pixels at the rim may have another mean and scale than those in the
    middle.

    .. math:: y_i = e^{a_{o(i)}} x_i + b_{o(i)}, \qquad \log|\det J| = \sum_i a_{o(i)}

    where x_i and y_i are the coordinates of the event, and o(i) is the orbit of coordinate i, the set of coordinates
    that the group exchanges with it: on images, a ring of equivalent pixels of one channel. Each orbit o has one
    log-scale a_o and one shift b_o. Events keep their shape. The map is bijective because :math:`e^a > 0`, and
    equivariant because a and b are constant on orbits. ``initialize`` gives each orbit zero mean and unit scale; see
    :class:`DataDependentTransform` for when that happens.

    Args:
        action: How the group permutes the coordinates of events.

    Raises:
        TypeError: ``action`` is not a LinearAction.
        ValueError: The group does not permute the coordinates; use GActNorm there.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> len(GOrbitNorm(ImageAction("D4", size=8)).log_scale)
        10
    """

    orbit: Tensor

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        require_linear(action)
        if not action.is_permutation or not action.is_finite:
            raise ValueError(f"expected an action that permutes coordinates, got {action}; use GActNorm")
        labels = component_labels(coordinate_images(action)[0])
        self.register_buffer("orbit", labels.reshape(action.event_shape), persistent=False)
        count = int(labels.max()) + 1
        self.log_scale = nn.Parameter(torch.zeros(count))
        self.shift = nn.Parameter(torch.zeros(count))

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp()[self.orbit] + self.shift[self.orbit], self._ladj(x)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (y - self.shift[self.orbit]) * (-self.log_scale).exp()[self.orbit], -self._ladj(y)

    def _ladj(self, x: Tensor) -> Tensor:
        return self.log_scale[self.orbit].sum().expand(x.shape[: x.ndim - self.action_in.event_dim])

    def standardize(self, x: Tensor) -> None:
        mean, scale = self._moments(x)
        self.log_scale.copy_(-scale.log())
        self.shift.copy_(-mean / scale)

    def standardize_inverse(self, y: Tensor) -> None:
        mean, scale = self._moments(y)
        self.log_scale.copy_(scale.log())
        self.shift.copy_(mean)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each orbit, over its coordinates and the batch."""
        flat, orbit = x.detach().reshape(-1, self.action_in.numel), self.orbit.flatten()
        size = torch.bincount(orbit).to(x)
        mean = torch.zeros_like(size).index_add_(0, orbit, flat.mean(0)) / size
        square = torch.zeros_like(size).index_add_(0, orbit, (flat - mean[orbit]).square().mean(0)) / size
        return mean, square.sqrt().clamp_min(1e-6)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {len(self.log_scale)} orbits"
