"""The shape of a heavy tail, from logarithms, so that values of any scale neither overflow nor lose precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["pareto_shape"]

_PRIOR_SCALE = 3.0  # the prior of the scale is in units of 1 / (3 first quartiles)
_PRIOR_SHAPE, _PRIOR_DRAWS = 0.5, 10.0  # the prior of the shape counts as 10 values of shape 0.5


def pareto_shape(log_values: Tensor) -> float:
    r"""The shape k of the generalized Pareto distribution that fits positive values, given by their logarithms.

    The shape of the largest importance weights says how far an importance-sampling estimate can be trusted: below 0.5
    the weights have finite variance, and above 0.7 the estimate is unreliable.

    .. math:: P(X > x) = (1 - b x)^{1 / k}, \qquad k(b) = \frac{1}{n} \sum_i \log(1 - b x_i)

    The parameter b is a mean over a grid of values, weighted by their likelihood at k(b); k is then shrunk slightly
    towards 0.5. The grid is b_j = 1 / x_max - c_j / (3 x_quartile) with c_j > 0, so that 1 - b_j x is a sum of two
    positive terms. It is computed on the log scale without cancellation, and multiplying all values by a constant
    changes nothing.

    Args:
        log_values: The finite logarithms of the values, of shape ``(n,)`` in any order.

    Raises:
        ValueError: If there are no values.

    Source: Zhang and Stephens (2009), Technometrics 51(3), as in Pareto smoothed importance sampling, arXiv:1507.02646.

    Example:
        >>> exponential = -torch.log(1 - torch.arange(0.0005, 1, 0.001, dtype=torch.float64))
        >>> -0.02 < pareto_shape(exponential.log()) < 0.02
        True
        >>> 500 < pareto_shape(1000 * exponential) < 1500  # of values up to e^7600
        True
    """
    if log_values.ndim != 1 or len(log_values) == 0:
        raise ValueError(f"expected logarithms of shape (n,), got {tuple(log_values.shape)}")
    logs = log_values.detach().double().sort().values
    count = len(logs)
    largest, quartile = logs[-1], logs[int(count / 4 + 0.5) - 1]
    below_largest = torch.log(-torch.expm1(logs - largest))

    def shape(c: Tensor) -> Tensor:
        """The shape k at b = 1 / x_max - c / (3 x_quartile)."""
        grown = (c / _PRIOR_SCALE).log().unsqueeze(-1) + logs - quartile
        return torch.logaddexp(below_largest, grown).mean(-1)

    size = 30 + int(math.sqrt(count))
    c = torch.sqrt(size / (torch.arange(1, size + 1, dtype=torch.float64) - 0.5)) - 1
    k = shape(c)
    up, down = -largest, (c / _PRIOR_SCALE).log() - quartile  # the logarithms of the two terms of b
    log_b = torch.maximum(up, down) + torch.log(-torch.expm1(-(up - down).abs()))
    # at b = 0 the distribution is exponential, and |b / k| is the inverse of the mean
    exponential = (up - down).abs() < 1e-9
    log_ratio = torch.where(exponential, math.log(count) - torch.logsumexp(logs, 0), log_b - k.abs().log())
    posterior = torch.softmax(count * (log_ratio - k - 1), 0)
    posterior = torch.where(posterior >= 10 * torch.finfo(torch.float64).eps, posterior, 0.0)
    fitted = float(shape((posterior * c).sum() / posterior.sum()))
    return (count * fitted + _PRIOR_DRAWS * _PRIOR_SHAPE) / (count + _PRIOR_DRAWS)
