"""GraphLayer: one round of messages between all pairs of particles, along their differences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.numerics.constants import as_constants

__all__ = ["GraphLayer", "Pairs", "distances", "normalized"]

_BUMPS = 12  # features of a distance
_REACH = 6.0  # the distance that the last of them sees
_LEAST_VARIANCE = 1e-5  # of scalars that are divided by their standard deviation
_SOFT = 1e-2  # below this a distance is rounded off, so that it is smooth where particles coincide


@dataclass(frozen=True)
class Pairs:
    """What messages read of all pairs of particles.

    Attributes:
        directions: The differences of positions over one plus their length, shape ``batch_shape + (n, n, d)``.
        features: Smooth functions of the distances, shape ``batch_shape + (n, n, count)``.
        others: 1 for two different particles and 0 on the diagonal, shape ``(n, n, 1)``.
    """

    directions: Tensor
    features: Tensor
    others: Tensor


def distances(positions: Tensor) -> Pairs:
    """The distances and directions between all pairs of particles.

    Args:
        positions: Configurations, shape ``batch_shape + (n, d)``.

    Example:
        >>> distances(torch.zeros(5, 3, 2)).directions.shape
        torch.Size([5, 3, 3, 2])
    """
    difference = positions[..., :, None, :] - positions[..., None, :, :]
    length = (difference.square().sum(-1, keepdim=True) + _SOFT**2).sqrt()
    with as_constants():
        centers = torch.linspace(0, _REACH, _BUMPS, dtype=positions.dtype, device=positions.device)
        others = 1 - torch.eye(positions.shape[-2], dtype=positions.dtype, device=positions.device)
    bumps = (-0.5 * ((length - centers) * ((_BUMPS - 1) / _REACH)).square()).exp()
    return Pairs(difference / (1 + length), torch.cat([bumps, length.log1p()], -1), others[..., None])


def normalized(h: Tensor) -> Tensor:
    """Scalars of a particle with mean 0 and variance 1, so that they do not grow from layer to layer.

    Args:
        h: Scalars, shape ``(..., width)``.
    """
    # not functional.layer_norm, whose second derivatives are wrong where the inner one is taken in forward mode
    centered = h - h.mean(-1, keepdim=True)
    return centered * (centered.square().mean(-1, keepdim=True) + _LEAST_VARIANCE).rsqrt()


class GraphLayer(nn.Module):
    """One round of messages, in which every particle changes its scalars and vectors by what it reads of the others.

    Vectors lie with their coordinates before their index, so that a linear map of them is one matrix product.

    Args:
        width: The number of scalars of a particle.
        held: The number of its vectors.
    """

    def __init__(self, width: int, held: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(_BUMPS + 1 + held, width, bias=False)
        self.left, self.right = nn.Linear(held, held, bias=False), nn.Linear(held, held, bias=False)
        self.message = nn.Linear(width, width)
        self.along, self.across = nn.Linear(width, held, bias=False), nn.Linear(width, held, bias=False)
        self.norms = nn.Linear(held, held, bias=False)
        self.hidden = nn.Linear(2 * width + held, width)
        self.update = nn.Linear(width, width)

    def forward(self, h: Tensor, v: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """The scalars and vectors after this round.

        Args:
            h: Scalars, shape ``batch_shape + (n, width)``.
            v: Vectors, shape ``batch_shape + (n, d, held)``.
            pairs: Distances and directions.
        """
        seen, count = normalized(h), h.shape[-2]
        edge = self.edge(torch.cat([pairs.features, self._products(v)], -1))
        message = functional.silu(self.receiver(seen)[..., :, None, :] + self.sender(seen)[..., None, :, :] + edge)
        message = functional.silu(self.message(message)) * pairs.others
        along = (self.along(message)[..., None, :] * pairs.directions[..., None]).sum(-3)
        across = (self.across(message)[..., None, :] * v[..., None, :, :, :]).sum(-3)
        v = v + along / math.sqrt(count) + across / count
        norms = self.norms(v).square().sum(-2).log1p()
        read = torch.cat([seen, message.sum(-2) / math.sqrt(count), norms], -1)
        return h + self.update(functional.silu(self.hidden(read))), v

    def _products(self, v: Tensor) -> Tensor:
        """Bounded features of the inner products of the vectors of two particles."""
        inner = (self.left(v)[..., :, None, :, :] * self.right(v)[..., None, :, :, :]).sum(-2)
        return inner * (1 + inner.square()).rsqrt()
