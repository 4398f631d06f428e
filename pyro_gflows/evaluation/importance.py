"""How well draws of one density stand for another: what importance weights say, and how far to believe them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.numerics import pareto_shape

__all__ = ["ImportanceReport", "importance_report", "rounding_step"]

_UNRELIABLE = 0.7  # above this k the mean of the weights converges too slowly to be believed
_SMALLEST_TAIL = 10
_FEWEST_DRAWS = 10.0  # where fewer carry all the weight, a fit to the other ones says nothing
_COARSEST = 0.1  # nats
_ALIKE = 1e-9  # nats: what float64 rounding makes of equal log-weights
_NEGLIGIBLE = 1e-3  # nats: so far above all others, a few draws change nothing


@dataclass(frozen=True)
class ImportanceReport:
    """What :func:`importance_report` found.

    Attributes:
        draws: how many weights.
        ess: effective sample size as a fraction of the draws, (E w)^2 / E w^2.
        trimmed_ess: the same with the largest weights clipped at a high quantile, so that one of them cannot decide it;
            0 where that quantile is a weight of 0.
        pareto_k: shape of the generalized Pareto distribution that fits the upper tail of the weights. Below 0.5 the
            weights have a variance; above 0.7 no figure made from them is reliable. 0 where the largest weights are
            equal, so that there is no tail; infinite where fewer than ten draws stand above many equal ones; NaN with
            too few draws for a tail.
        log_mean_weight: log of the mean weight: the estimated log-normalizer where the weights are
            (unnormalized target) / (normalized proposal).
        standard_error: of ``log_mean_weight``; it means nothing where ``is_reliable`` is False.
        resolution: the step, in nats, to which the log-weights are rounded: what is finer was lost before they came.
    """

    draws: int
    ess: float
    trimmed_ess: float
    pareto_k: float
    log_mean_weight: float
    standard_error: float
    resolution: float = 0.0

    @property
    def is_reliable(self) -> bool:
        """Whether the figures may be believed: Pareto-k is known and at most 0.7, the effective sample size is at least
        ten draws, and the log-weights are resolved to 0.1 nats."""
        return not self._doubts()

    def _doubts(self) -> list[str]:
        doubts = []
        if math.isnan(self.pareto_k):
            doubts.append("too few draws")
        elif self.pareto_k > _UNRELIABLE:
            doubts.append(f"above {_UNRELIABLE}")
        if not self.ess * self.draws >= _FEWEST_DRAWS and not math.isnan(self.pareto_k):
            doubts.append(f"{self.ess * self.draws:.1f} effective draws")
        if self.resolution > _COARSEST:
            doubts.append(f"log-weights rounded to {self.resolution:.2g} nats, compute them in float64")
        return doubts

    def __str__(self) -> str:
        known = f"{self.pareto_k:.2f}" if abs(self.pareto_k) < 1000 else f"{self.pareto_k:.3g}"
        known = "unknown" if math.isnan(self.pareto_k) else known
        doubts = self._doubts()
        if doubts:
            known += f" (WARNING: {'; '.join(doubts)}: these figures are not reliable)"
        return (
            f"ESS {self.ess:.4f} (trimmed {self.trimmed_ess:.4f}) of {self.draws} draws, Pareto k {known}; "
            f"log mean weight {self.log_mean_weight:.4f} +- {self.standard_error:.4f}"
        )


def importance_report(log_weights: Tensor, *, trim: float = 0.999, resolution: float | None = None) -> ImportanceReport:
    r"""Effective sample size, trimmed too, and the Pareto shape of importance weights.

    .. math:: \mathrm{ESS} = \frac{(\sum_i w_i)^2}{n \sum_i w_i^2}

    A high ESS does not show that all modes were found: draws that never fall in a mode say nothing of it. So score
    samples of the target as well where there are any.

    Args:
        log_weights: log w of independent draws, shape ``(n,)``; a constant added to all of them changes nothing but
            ``log_mean_weight``; -inf is a weight of 0.
        trim: weights above this quantile are clipped to it in ``trimmed_ess``.
        resolution: the step, in nats, to which the log-weights are known; by default the rounding of their dtype at the
            largest of them. Give it where they are differences of larger numbers in float32.

    Raises:
        TypeError: not a tensor of floating-point numbers.
        ValueError: not one-dimensional, empty, NaN or +inf, all weights 0, ``trim`` outside (0, 1], or a negative
            ``resolution``.

    Source: Pareto smoothed importance sampling, arXiv:1507.02646.

    Example:
        >>> import torch
        >>> print(importance_report(torch.zeros(1000)))
        ESS 1.0000 (trimmed 1.0000) of 1000 draws, Pareto k 0.00; log mean weight 0.0000 +- 0.0000
        >>> importance_report(torch.tensor([0.0, float("-inf")])).ess
        0.5
        >>> one = torch.zeros(5000)
        >>> one[0] = 26.0
        >>> importance_report(one).pareto_k, importance_report(one).is_reliable
        (inf, False)
    """
    if not isinstance(log_weights, Tensor) or not log_weights.is_floating_point():
        raise TypeError(f"expected a floating-point tensor of log-weights, got {type(log_weights).__name__}")
    if log_weights.ndim != 1 or len(log_weights) == 0:
        raise ValueError(f"expected log-weights of shape (n,), got {tuple(log_weights.shape)}; flatten them")
    if bool(log_weights.isnan().any()) or bool((log_weights == math.inf).any()):
        raise ValueError("expected log-weights that are finite or -inf, got NaN or +inf")
    if not 0 < trim <= 1:
        raise ValueError(f"expected trim in (0, 1], got {trim}")
    if resolution is not None and not resolution >= 0:
        raise ValueError(f"expected a resolution of 0 nats or more, got {resolution}")
    logs = log_weights.detach().double().cpu()
    largest = float(logs.max())
    if largest == -math.inf:
        raise ValueError("expected at least one weight above 0: no draw has any density under the target")
    if resolution is None:
        resolution = rounding_step(log_weights)
    relative = logs - largest
    weights = relative.exp()
    mean, count = float(weights.mean()), len(weights)
    spread = float(weights.std()) / mean if count > 1 else math.nan
    return ImportanceReport(
        draws=count,
        ess=_ess(relative),
        trimmed_ess=_ess(relative.clamp_max(_quantile(relative, trim))),
        pareto_k=_pareto_k(relative, resolution),
        log_mean_weight=largest + math.log(mean),
        standard_error=spread / math.sqrt(count),
        resolution=resolution,
    )


def rounding_step(values: Tensor) -> float:
    """The distance between neighboring floating-point numbers at the largest finite one of some values."""
    finite = values.detach()[values.isfinite()].abs().double()
    if not len(finite) or not finite.max():
        return 0.0
    exponent = math.frexp(float(finite.max()))[1] - 1
    return math.ldexp(torch.finfo(values.dtype).eps, exponent)


def _ess(logs: Tensor) -> float:
    """From the logarithms of weights, taken relative to the largest one, lest all of them vanish."""
    largest = logs.max()
    if largest == -math.inf:
        return 0.0
    weights = (logs - largest).exp()
    return float(weights.mean().square() / weights.square().mean())


def _quantile(values: Tensor, level: float) -> float:
    # torch.quantile refuses more than 2^24 numbers
    return float(values.sort().values[math.ceil(level * len(values)) - 1])


def _pareto_k(logs: Tensor, resolution: float) -> float:
    """The shape of the tail above the largest min(n / 5, 3 sqrt n) weights, from their logarithms."""
    ordered = logs.sort().values
    size = math.ceil(min(0.2 * len(ordered), 3.0 * math.sqrt(len(ordered))))
    if size < _SMALLEST_TAIL:
        return math.nan
    cut, largest = ordered[-size - 1], ordered[-1]
    if largest - cut <= max(_ALIKE, 8 * resolution):
        return 0.0
    above = ordered[-size:]
    above = above[above > cut]
    if len(above) < _SMALLEST_TAIL:
        # Equal weights fill the tail. What stands above them is no tail either, but may outweigh them all.
        return 0.0 if largest - cut < _NEGLIGIBLE else math.inf
    return pareto_shape(above + torch.log(-torch.expm1(cut - above)))
