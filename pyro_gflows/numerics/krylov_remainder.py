"""The random remainder that takes the bias from a Krylov log-det."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_gflows.numerics.hessenberg_log import log_quadrature
from pyro_gflows.numerics.krylov_space import KrylovSpace
from pyro_gflows.numerics.transforms_active import largest

__all__ = ["random_remainder"]

# The probability that the remainder has a term at all. It is small, as the remainder is: a variance that is ten times
# that of a remainder at every call is still far below the variance between probes.
_SHARE = 0.1


def random_remainder(
    space: KrylovSpace, product: Callable[[Tensor], Tensor], *, lipschitz: float
) -> tuple[Tensor, Tensor]:
    r"""Unbiased estimates of what the Krylov space leaves out, one of the log-det and one of w.

    With :math:`c_k = |\varepsilon|\, h_{m+1,m} \int_0^1 t^k y_m(t)\, dt`, the log-det misses
    :math:`\sum_{k \ge 1} (-1)^k c_k\, \varepsilon^T A^k v_{m+1}`, and w misses a multiple of
    :math:`(I + A)^{-1} v_{m+1} = \sum_{k \ge 0} (-1)^k A^k v_{m+1}`. Both sums are cut at a random length N with
    :math:`P(N \ge k) = p\,q^{k-1}`, which all rows share, and their terms are divided by this probability. The second
    moments are finite, since q = L is above the square of the Lipschitz bound L.

    Args:
        space: The Krylov space of each row.
        product: The map v -> A v, row by row.
        lipschitz: A bound of the norm of A, below 1.

    Returns:
        What is to be added to the log-det, and the estimate of the second sum, which has the shape of a basis vector.
    """
    nodes, weights = log_quadrature(lipschitz, space.norm)
    tail = _length(lipschitz)
    probe = space.norm.unsqueeze(-1) * space.basis[0]
    power = total = space.following
    more = torch.zeros_like(space.log_det)
    for k in range(1, int(largest(tail)) + 1):
        weight = torch.where(k <= tail, 1 / (_SHARE * max(lipschitz, 1e-300) ** (k - 1)), 0.0).to(total)
        power = -product(power)
        total = total + weight * power
        coefficient = (weights * nodes**k * space.last).sum(-1)
        more = more + weight * coefficient * (probe * power).sum(-1)
    return more, total


def _length(q: float) -> Tensor:
    """A random N with P(N >= k) = p q^(k - 1) for k >= 1, from the generator of the CPU."""
    uniform = 1 - torch.rand((), dtype=torch.float64)  # in (0, 1]
    beyond = torch.floor((uniform / _SHARE).log() / math.log(q)) if q > 0 else torch.zeros_like(uniform)
    return torch.where(uniform <= _SHARE, 1 + beyond, 0.0)
