"""How well draws of one density stand for another: what importance weights say, and how far to believe them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

__all__ = ["ImportanceReport", "importance_report"]

_UNRELIABLE = 0.7  # above this k the mean of the weights converges too slowly to be believed
_SMALLEST_TAIL = 10


@dataclass(frozen=True)
class ImportanceReport:
    """What :func:`importance_report` found.

    Attributes:
        draws: how many weights.
        ess: effective sample size as a fraction of the draws, (E w)^2 / E w^2.
        trimmed_ess: the same with the largest weights clipped at a high quantile, so that one of them cannot decide it.
        pareto_k: shape of the generalised Pareto distribution that fits the upper tail of the weights; NaN with too few
            draws for a tail. Below 0.5 the weights have a variance; above 0.7 no figure made from them is reliable.
        log_mean_weight: log of the mean weight: the estimated log-normaliser where the weights are
            (unnormalised target) / (normalised proposal).
        standard_error: of ``log_mean_weight``.
    """

    draws: int
    ess: float
    trimmed_ess: float
    pareto_k: float
    log_mean_weight: float
    standard_error: float

    @property
    def is_reliable(self) -> bool:
        """Whether Pareto-k is known and at most 0.7."""
        return self.pareto_k <= _UNRELIABLE

    def __str__(self) -> str:
        if math.isnan(self.pareto_k):
            known = "unknown (WARNING: too few draws)"
        else:
            known = f"{self.pareto_k:.2f}"
            known += "" if self.is_reliable else f" (WARNING: above {_UNRELIABLE}, these figures are not reliable)"
        return (
            f"ESS {self.ess:.4f} (trimmed {self.trimmed_ess:.4f}) of {self.draws} draws, Pareto k {known}; "
            f"log mean weight {self.log_mean_weight:.4f} +- {self.standard_error:.4f}"
        )


def importance_report(log_weights: Tensor, *, trim: float = 0.999) -> ImportanceReport:
    r"""Effective sample size, trimmed too, and the Pareto shape of importance weights.

    .. math:: \mathrm{ESS} = \frac{(\sum_i w_i)^2}{n \sum_i w_i^2}

    A high ESS does not show that all modes were found: draws that never fall in a mode say nothing of it. So score
    samples of the target as well where there are any.

    Args:
        log_weights: log w of independent draws, shape ``(n,)``; a constant added to all of them changes nothing but
            ``log_mean_weight``; -inf is a weight of 0.
        trim: weights above this quantile are clipped to it in ``trimmed_ess``.

    Raises:
        TypeError: not a tensor of floating-point numbers.
        ValueError: not one-dimensional, empty, NaN or +inf, all weights 0, or ``trim`` outside (0, 1].

    Source: Pareto smoothed importance sampling, arXiv:1507.02646.

    Example:
        >>> import torch
        >>> print(importance_report(torch.zeros(1000)))
        ESS 1.0000 (trimmed 1.0000) of 1000 draws, Pareto k 0.00; log mean weight 0.0000 +- 0.0000
        >>> importance_report(torch.tensor([0.0, float("-inf")])).ess
        0.5
    """
    if not isinstance(log_weights, Tensor) or not log_weights.is_floating_point():
        raise TypeError(f"expected a floating-point tensor of log-weights, got {type(log_weights).__name__}")
    if log_weights.ndim != 1 or len(log_weights) == 0:
        raise ValueError(f"expected log-weights of shape (n,), got {tuple(log_weights.shape)}; flatten them")
    if bool(log_weights.isnan().any()) or bool((log_weights == math.inf).any()):
        raise ValueError("expected log-weights that are finite or -inf, got NaN or +inf")
    if not 0 < trim <= 1:
        raise ValueError(f"expected trim in (0, 1], got {trim}")
    logs = log_weights.detach().double().cpu()
    largest = float(logs.max())
    if largest == -math.inf:
        raise ValueError("expected at least one weight above 0: no draw has any density under the target")
    weights = (logs - largest).exp()
    mean, count = float(weights.mean()), len(weights)
    spread = float(weights.std()) / mean if count > 1 else math.nan
    clipped = weights.clamp_max(_quantile(weights, trim))
    return ImportanceReport(
        draws=count,
        ess=_ess(weights),
        trimmed_ess=_ess(clipped),
        pareto_k=_pareto_k(weights),
        log_mean_weight=largest + math.log(mean),
        standard_error=spread / math.sqrt(count),
    )


def _ess(weights: Tensor) -> float:
    return float(weights.mean().square() / weights.square().mean())


def _quantile(weights: Tensor, level: float) -> float:
    # torch.quantile refuses more than 2^24 numbers
    return float(weights.sort().values[math.ceil(level * len(weights)) - 1])


def _pareto_k(weights: Tensor) -> float:
    """The shape of the tail above the largest min(n / 5, 3 sqrt n) weights; 0 where they are all alike."""
    ordered = weights.sort().values
    size = math.ceil(min(0.2 * len(ordered), 3.0 * math.sqrt(len(ordered))))
    if size < _SMALLEST_TAIL:
        return math.nan
    excess = ordered[-size:] - ordered[-size - 1]
    excess = excess[excess > 1e-12 * ordered[-1]]  # ties and rounding are no tail
    if len(excess) < _SMALLEST_TAIL:
        return 0.0
    return float(fit_generalized_pareto(excess)[0])
