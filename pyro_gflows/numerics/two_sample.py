"""Whether two samples come from one distribution: a permutation test with a kernel that sees shape and detail."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TwoSampleResult", "two_sample_test"]

_NEIGHBORS = 5
_FOR_MEDIAN = 200  # rows
_CHUNKS = (256, 2048)  # tosses: a first few, which settle most cases, and so many at a time from then on


@dataclass(frozen=True)
class TwoSampleResult:
    """What :func:`two_sample_test` found.

    Attributes:
        p_value: of the hypothesis that both samples come from one distribution; an upper bound where ``is_different``.
        distance: how much more the samples differ than after random swaps, in standard deviations of the latter.
        is_different: whether the hypothesis is rejected at the level asked for.
    """

    p_value: float
    distance: float
    is_different: bool


def two_sample_test(first: Tensor, second: Tensor, *, level: float, generator: torch.Generator) -> TwoSampleResult:
    r"""Test whether the rows of two samples of one size come from one distribution.

    The statistic is the squared kernel distance :math:`\sum_{ij} h_{ij}` between the samples, with
    :math:`h_{ij} = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j)`, which is compared with its values after each
    pair of rows (x_i, y_i) was swapped or not by the toss of a coin. So the level is exact for any distribution and any
    number of rows: of equal distributions, at most a fraction ``level`` is called different. The kernel is the sum of
    three, each centered and scaled to one norm: the negative distance (energy distance: location and spread), a
    Gaussian of half the median distance (shape), and which rows are among each other's nearest five (detail in many
    dimensions). The tosses stop as soon as they cannot lead to a rejection any more.

    Args:
        first: independent rows, shape ``(n, d)``.
        second: independent rows, shape ``(n, d)``.
        level: of the test; about 1 / level tosses are needed for a rejection.
        generator: of the tosses.

    Raises:
        ValueError: fewer than two rows, samples of unlike shape, or a level outside (0, 1).

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
    # Rounding must not tell tosses that change nothing from none.
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
    """The sum of the three kernels between the rows of z, in float32."""
    distance = torch.cdist(z, z).float()
    # Ties between neighbors are broken by the order of the rows, which therefore must not know the samples.
    order = torch.randperm(len(z), generator=generator)
    some = distance[order[:_FOR_MEDIAN, None], order[None, :_FOR_MEDIAN]]
    middle = float(some[some > 0].median()) if bool((some > 0).any()) else 1.0
    shuffled = distance.fill_diagonal_(math.inf)[:, order]
    nearest = order[shuffled.topk(min(_NEIGHBORS, len(z) - 1), largest=False).indices]
    distance.fill_diagonal_(0.0)
    neighbors = torch.zeros_like(distance).scatter_(1, nearest, 1.0)
    gaussian = distance.div(middle).square_().mul_(-2).exp_().fill_diagonal_(0.0)
    return sum((_centered(part) for part in (gaussian, neighbors + neighbors.mT)), _centered(-distance))


def _centered(kernel: Tensor) -> Tensor:
    """Less its row and column means, which no swap changes, and of norm 1; its diagonal, which none changes, is 0."""
    rows, columns, mean = kernel.mean(1, keepdim=True), kernel.mean(0), kernel.mean()
    kernel.sub_(rows).sub_(columns).add_(mean)
    return kernel.div_(kernel.norm().clamp_min(torch.finfo(kernel.dtype).tiny))
