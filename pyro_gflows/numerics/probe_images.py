"""How fixed probe vectors follow the group, so that an estimate with them is invariant."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CarriedProbes", "Orbit", "OrbitAverage", "ProbeImages"]

#: Maps a probe with its event dimensions last to all its images under the group: (order of the group,) + probe shape.
Orbit = Callable[[Tensor], Tensor]


class ProbeImages(ABC):
    r"""The base class of rules that replace probe vectors by their images under a group, to make estimates invariant.

    The log-det of a residual layer x + f(x) is estimated from traces of powers of the Jacobian of f: an average of
    :math:`p^T J_f(x)^k p` over a few fixed random vectors p, the probes. With fixed probes this estimate is not
    invariant: it changes when a group element acts on x. If each probe is replaced by several vectors, its images under
    group elements, the average can be made exactly the same at x and at :math:`\rho(g) x`, where :math:`\rho(g)` is
    the orthogonal matrix of the group element g. This holds because an equivariant f has :math:`J_f(\rho(g) x) =
    \rho(g) J_f(x) \rho(g)^T`.

    Layers choose between :class:`OrbitAverage`, for small groups, and :class:`CarriedProbes`, for large ones. A
    subclass writes the call ``images(probes, x, event_dim)``, which returns the images of the probes for the events x.

    Attributes:
        note: A text that is added to the description of an estimate with these probes.

    Example:
        >>> images: ProbeImages = OrbitAverage(lambda p: torch.stack([p, -p]))
        >>> found = images(torch.ones(1, 2), torch.zeros(5, 2), 1)  # 2 images of 1 probe, the same for all 5 events
        >>> found.shape, found.flatten(1).tolist()
        (torch.Size([2, 1, 1, 2]), [[1.0, 1.0], [-1.0, -1.0]])
    """

    note = ""

    @abstractmethod
    def __call__(self, probes: Tensor, x: Tensor, event_dim: int) -> Tensor:
        """The images of the probes for the events x, of shape ``(images, count) + batch_shape + event_shape``.

        Sizes of the batch may be 1 in the result.

        Args:
            probes: Probes of shape ``(count,) + event_shape``.
            x: Events of shape ``batch_shape + event_shape``.
            event_dim: The number of event dimensions.
        """


@dataclass(frozen=True)
class OrbitAverage(ProbeImages):
    """All images of a probe under a finite group, which are the same for every x.

    Args:
        orbit: A function that gives all images of a probe, such as the method ``act_all`` of an action.

    Example:
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
    r"""One image of each probe, :math:`g(x)^{-1} p`, where g(x) is the group element that takes x to a canonical form.

    It makes an estimate invariant under a group of any size at no extra cost. Since :math:`g(\rho(h) x) = g(x) h^{-1}`,
    up to elements that leave x unchanged, the image of p at :math:`\rho(h) x` is h applied to the image at x. Where the
    canonical element changes between neighboring x, the estimate jumps, within its error.

    Args:
        carry: A function that gives :math:`g(x)^{-1} p` for probes of shape ``(count,) + event_shape`` and x; its
            result has the shape ``(count,)`` + shape of x.

    Example:
        >>> images = CarriedProbes(lambda p, x: p[:, None] * x.sum(-1, keepdim=True).sign())
        >>> images(torch.ones(1, 2), torch.tensor([[1.0, 2.0], [-3.0, 1.0]]), 1)[0, 0].tolist()
        [[1.0, 1.0], [-1.0, -1.0]]
    """

    carry: Callable[[Tensor, Tensor], Tensor]
    note = "; probes follow x, so the estimate may jump where the canonical element of x changes"

    def __call__(self, probes: Tensor, x: Tensor, event_dim: int) -> Tensor:
        with torch.no_grad():
            return self.carry(probes, x.detach()).unsqueeze(0)
