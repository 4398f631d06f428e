"""Importance weights: how well draws from one density represent another density, and whether this is reliable."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.numerics import pareto_shape

__all__ = ["ImportanceReport", "forward_ess", "importance_report", "rounding_step"]

_UNRELIABLE = 0.7  # above this k the mean of the weights converges too slowly to be trusted
_SMALLEST_TAIL = 10
_FEWEST_DRAWS = 10.0  # if fewer draws carry all the weight, a fit to the other draws is meaningless
_COARSEST = 0.1  # nats
_ALIKE = 1e-9  # nats: the difference that float64 rounding makes between equal log-weights
_NEGLIGIBLE = 1e-3  # nats: a few draws that exceed the others by less than this change nothing


@dataclass(frozen=True)
class ImportanceReport:
    """The result of :func:`importance_report`: how well draws from a proposal represent a target.

    Printing the report shows all figures, with a warning if they are not reliable.

    Attributes:
        draws: The number of weights.
        ess: The effective sample size as a fraction of the draws, (E w)^2 / E w^2.
        trimmed_ess: The effective sample size with the largest weights clipped at a high quantile, so that a single
            weight cannot dominate it; 0 if this quantile is 0.
        pareto_k: The shape parameter of the generalized Pareto distribution that fits the upper tail of the weights.
            Below 0.5 the weights have a finite variance; above 0.7 no figure is reliable. It is 0 if the largest
            weights are equal, so that there is no tail; infinite if fewer than ten draws exceed many equal ones; NaN if
            there are too few draws for a tail.
        log_mean_weight: The log of the mean weight. If the weights are (unnormalized target) / (normalized proposal),
            it estimates the log-normalizer of the target.
        standard_error: The standard error of ``log_mean_weight``; meaningless if ``is_reliable`` is False.
        resolution: The step, in nats, to which the log-weights are rounded.
        known: The exact log of the mean weight, where it is known, such as the log-normalizer of a named target.

    Example:
        >>> report = ImportanceReport(
        ...     1000, ess=0.9, trimmed_ess=0.9, pareto_k=0.8, log_mean_weight=0.0, standard_error=0.01
        ... )
        >>> report.is_reliable  # since Pareto-k is above 0.7
        False
    """

    draws: int
    ess: float
    trimmed_ess: float
    pareto_k: float
    log_mean_weight: float
    standard_error: float
    resolution: float = 0.0
    known: float | None = None

    @property
    def is_reliable(self) -> bool:
        """Whether the figures can be trusted.

        They can if Pareto-k is known and at most 0.7, the effective sample size is at least ten draws, and the
        log-weights are resolved to 0.1 nats.
        """
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
        exact = "" if self.known is None else f" (exactly {self.known:.4f})"
        return (
            f"ESS {self.ess:.4f} (trimmed {self.trimmed_ess:.4f}) of {self.draws} draws, Pareto k {known}; "
            f"log mean weight {self.log_mean_weight:.4f} +- {self.standard_error:.4f}{exact}"
        )


def importance_report(
    log_weights: Tensor, *, trim: float = 0.999, resolution: float | None = None, known: float | None = None
) -> ImportanceReport:
    r"""Summarizes importance weights by their effective sample size (ESS) and the Pareto shape of their upper tail.

    Importance weights w = p(x) / q(x) of draws x from a density q show how well q represents a target p. If q equals p,
    all weights are equal and the ESS is 1.

    .. math:: \mathrm{ESS} = \frac{(\sum_i w_i)^2}{n \sum_i w_i^2}

    A high ESS does not show that q has found all modes of p, since no draw falls into a mode that q has lost. If
    samples of the target are available, score them as well.

    Args:
        log_weights: The log-weights log w of independent draws, shape ``(n,)``; -inf stands for a weight of 0. Adding a
            constant to all of them changes only ``log_mean_weight``.
        trim: The quantile to which larger weights are clipped in ``trimmed_ess``.
        resolution: The step, in nats, to which the log-weights are known. The default is the rounding step of their
            dtype at the largest of them; pass it if the log-weights are differences of larger values in float32.
        known: The exact log of the mean weight, such as the ``log_z`` of a target whose energy gave the weights; it
            stands beside the estimate in the report.

    Raises:
        TypeError: The log-weights are not a floating-point tensor.
        ValueError: The log-weights are not one-dimensional, are empty, contain NaN or +inf, or are all -inf; ``trim``
            is outside (0, 1]; or ``resolution`` is negative.

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
        raise ValueError(
            "expected log-weights that are finite or -inf, got NaN or +inf; check both log-densities at the draws"
        )
    if not 0 < trim <= 1:
        raise ValueError(f"expected trim in (0, 1], got {trim}")
    if resolution is not None and not resolution >= 0:
        raise ValueError(f"expected a resolution of 0 nats or more, got {resolution}")
    logs = log_weights.detach().double().cpu()
    largest = float(logs.max())
    if largest == -math.inf:
        raise ValueError(
            "expected at least one weight above 0, but no draw has any density under the target; check that the "
            "supports overlap"
        )
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
        known=known,
    )


def forward_ess(log_weights: Tensor) -> float:
    r"""The effective sample size of a proposal q for a target p, from samples of the target.

    With w = p/q up to a constant, it is :math:`1 / (E_p[w]\, E_p[1/w])`, the limit of the effective sample size of
    draws of q. In contrast to one that is estimated from draws of q, it falls to 0 if q has lost a mode of p.

    Args:
        log_weights: log w at samples of the target, shape ``(n,)``.

    Example:
        >>> import torch
        >>> forward_ess(torch.tensor([5.0, 5.0])), round(forward_ess(torch.tensor([0.0, 20.0])), 6)
        (1.0, 0.0)
    """
    logs = log_weights.detach().double()
    return math.exp(2 * math.log(len(logs)) - float(logs.logsumexp(0)) - float((-logs).logsumexp(0)))


def rounding_step(values: Tensor) -> float:
    """The distance between neighboring floating-point numbers at the largest finite magnitude in a tensor.

    Args:
        values: A floating-point tensor.
    """
    finite = values.detach()[values.isfinite()].abs().double()
    if not len(finite) or not finite.max():
        return 0.0
    exponent = math.frexp(float(finite.max()))[1] - 1
    return math.ldexp(torch.finfo(values.dtype).eps, exponent)


def _ess(logs: Tensor) -> float:
    """The effective sample size from log-weights, taken relative to the largest one to prevent underflow."""
    largest = logs.max()
    if largest == -math.inf:
        return 0.0
    weights = (logs - largest).exp()
    return float(weights.mean().square() / weights.square().mean())


def _quantile(values: Tensor, level: float) -> float:
    # torch.quantile refuses more than 2^24 values
    return float(values.sort().values[math.ceil(level * len(values)) - 1])


def _pareto_k(logs: Tensor, resolution: float) -> float:
    """The Pareto shape of the min(n / 5, 3 sqrt n) largest weights, from log-weights."""
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
        # Equal weights fill the tail. The few larger ones do not form a tail either, but may outweigh all others.
        return 0.0 if largest - cut < _NEGLIGIBLE else math.inf
    return pareto_shape(above + torch.log(-torch.expm1(cut - above)))
