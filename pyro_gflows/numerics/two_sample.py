"""A permutation test of whether two samples come from one distribution, sensitive to shape and to detail."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TwoSampleResult", "two_sample_test"]

_NEIGHBORS = 5
_FOR_MEDIAN = 200  # rows
_FARTHEST = 3.0  # median distances from the mean
_CHUNKS = (256, 2048)  # random swaps: the first ones, which settle most cases, and the number at a time afterwards


@dataclass(frozen=True)
class TwoSampleResult:
    """The result of :func:`two_sample_test`.

    Attributes:
        p_value: The p-value of the hypothesis that both samples come from one distribution; an upper bound if
            ``is_different``.
        distance: How much more the samples differ than after random swaps, in standard deviations of the latter.
        is_different: Whether the hypothesis is rejected at the given level.

    Example:
        >>> TwoSampleResult(p_value=0.4, distance=0.3, is_different=False).is_different
        False
    """

    p_value: float
    distance: float
    is_different: bool


def two_sample_test(first: Tensor, second: Tensor, *, level: float, generator: torch.Generator) -> TwoSampleResult:
    r"""Test whether the rows of two samples of one size come from one distribution.

    The statistic is the squared kernel distance :math:`\sum_{ij} h_{ij}` between the samples, with :math:`h_{ij} =
    k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j)`. It is compared with its values after each pair of rows (x_i,
    y_i) was swapped at random. So the level is exact for any distribution and any number of rows: equal distributions
    are called different with probability at most ``level``. The kernel k is the sum of five kernels, each centered and
    scaled to one norm: scalar products and their squares (for means and covariances), the negative distance (energy
    distance), a Gaussian of half the median distance (for shape), and whether one row is among the nearest five of the
    other (for detail in many dimensions). The random swaps stop as soon as they can no longer lead to a rejection.

    Args:
        first: Independent rows, shape ``(n, d)``.
        second: Independent rows, shape ``(n, d)``.
        level: The level of the test; a rejection needs about 1 / level random swaps.
        generator: The generator of the swaps.

    Raises:
        ValueError: If there are fewer than two rows, the samples differ in shape, or the level is outside (0, 1).

    Source: Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012); Szekely and Rizzo, Energy statistics (2013);
    Henze, A multivariate two-sample test based on the number of nearest neighbor type coincidences (1988).

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 300, 3, generator=rng)
        >>> two_sample_test(x, y, level=0.01, generator=rng).is_different
        False
        >>> two_sample_test(x, 1.3 * y, level=0.01, generator=rng).is_different
        True
    """
    if first.ndim != 2 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"expected two samples of one shape (n, d) with n >= 2, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level}")
    pairs = len(first)
    kernel = _kernel(torch.cat([first, second]).double().cpu(), generator)
    (xx, xy), (yx, yy) = (half.split(pairs, dim=1) for half in kernel.split(pairs))
    h = xx + yy - xy - yx
    found = float(h.sum())
    # Rounding must not make swaps that change nothing differ from no swaps.
    threshold = found - 1e-5 * abs(found)
    needed = math.ceil(1 / level) - 1
    values: list[Tensor] = []
    done = exceeded = 0
    while done < needed and not exceeded:
        count = min(_CHUNKS[min(len(values), 1)], needed - done)
        signs = torch.randint(0, 2, (pairs, count), generator=generator).float().mul_(2).sub_(1)
        values.append((signs * (h @ signs)).sum(0))
        exceeded += int((values[-1] >= threshold).sum())
        done += count
    drawn = torch.cat(values)
    spread = float(drawn.std()) if done > 1 else 0.0
    return TwoSampleResult(
        p_value=(1 + exceeded) / (1 + done),
        distance=(found - float(drawn.mean())) / spread if spread > 0 else 0.0,
        is_different=not exceeded,
    )


def _kernel(z: Tensor, generator: torch.Generator) -> Tensor:
    """The sum of the five kernels between the rows of z, in float32."""
    distance = torch.cdist(z, z).float()
    # Ties between neighbors are broken by the order of the rows, so this order must not depend on the samples.
    order = torch.randperm(len(z), generator=generator)
    some = distance[order[:_FOR_MEDIAN, None], order[None, :_FOR_MEDIAN]]
    middle = float(some[some > 0].median()) if bool((some > 0).any()) else 1.0
    shuffled = distance.fill_diagonal_(math.inf)[:, order]
    nearest = order[shuffled.topk(min(_NEIGHBORS, len(z) - 1), largest=False).indices]
    distance.fill_diagonal_(0.0)
    neighbors = torch.zeros_like(distance).scatter_(1, nearest, 1.0)
    gaussian = distance.div(middle).square_().mul_(-2).exp_()
    product = _moments(z)
    parts = (gaussian, neighbors + neighbors.mT, product.square(), product)
    return sum((_centered(part) for part in parts), _centered(-distance))


def _moments(z: Tensor) -> Tensor:
    """The scalar products of the rows about their mean; far rows are pulled in, so that they do not dominate."""
    z = z - z.mean(0)
    length = z.norm(dim=-1, keepdim=True)
    z = z * (_FARTHEST * length.median() / length).nan_to_num(nan=1.0).clamp_max(1.0)
    return (z @ z.mT).float()


def _centered(kernel: Tensor) -> Tensor:
    """The kernel without its row and column means, which no swap changes, and with norm 1 and a zero diagonal."""
    kernel.fill_diagonal_(0.0)
    rows, columns, mean = kernel.mean(1, keepdim=True), kernel.mean(0), kernel.mean()
    kernel.sub_(rows).sub_(columns).add_(mean)
    return kernel.div_(kernel.norm().clamp_min(torch.finfo(kernel.dtype).tiny))
