"""How fixed probe vectors follow the group, so that an estimate with them is invariant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CarriedProbes", "Orbit", "OrbitAverage", "ProbeImages"]

#: Maps a probe with its event dimensions last to all its group images, of shape (order of the group,) + probe shape.
Orbit = Callable[[Tensor], Tensor]


class ProbeImages(ABC):
    r"""Replaces fixed probes by images of them, whose average makes the estimate at x invariant under the group.

    With :math:`t(x, p)` the average over the images of p at x of :math:`p^T J_f(x)^k p`, it holds that
    :math:`t(\rho(g) x, p) = t(x, p)` for every equivariant f, since :math:`J_f(\rho(g) x) = \rho(g) J_f(x) \rho(g)^T`.
    """

    note = ""
    """What a description of an estimate with these probes has to add."""

    @abstractmethod
    def __call__(self, probes: Tensor, x: Tensor, event_dim: int) -> Tensor:
        """The images of probes of shape (count,) + event_shape, at x of shape batch_shape + event_shape.

        Of shape (images, count) + batch_shape + event_shape, where sizes of the batch may be 1.
        """


@dataclass(frozen=True)
class OrbitAverage(ProbeImages):
    """All images of a probe under a finite group: the same at every x.

    Arguments:
        orbit: gives all images of a probe, such as an action's ``act_all``.

    >>> signs = OrbitAverage(lambda p: torch.stack([p, -p]))
    >>> signs(torch.ones(4, 2), torch.zeros(5, 2), 1).shape
    torch.Size([2, 4, 1, 2])
    """

    orbit: Orbit

    def __call__(self, probes: Tensor, x: Tensor, event_dim: int) -> Tensor:
        images = self.orbit(probes)
        split = x.dim() - event_dim
        return images.reshape(*images.shape[:2], *(1,) * split, *x.shape[split:])


@dataclass(frozen=True)
class CarriedProbes(ProbeImages):
    r"""One image of a probe, carried along with x: :math:`g(x)^{-1} p`, where g(x) takes x to a canonical form.

    Since :math:`g(\rho(h) x) = g(x) h^{-1}`, up to elements that leave x as it is, the image at :math:`\rho(h) x` is h
    applied to that at x. It costs as much as no images at all, under a group of any size. Where the canonical element
    changes from one x to another near it, the estimate jumps, within its error.

    Arguments:
        carry: gives :math:`g(x)^{-1} p` for probes of shape (count,) + event_shape and x: (count,) + shape of x.
    """

    carry: Callable[[Tensor, Tensor], Tensor]
    note = "; probes follow x, so the estimate may jump where the canonical element of x changes"

    def __call__(self, probes: Tensor, x: Tensor, event_dim: int) -> Tensor:
        with torch.no_grad():
            return self.carry(probes, x.detach()).unsqueeze(0)
