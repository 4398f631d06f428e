"""Measures how well a density that was fitted to an energy approximates its target."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_gflows.datasets.checks import check_data
from pyro_gflows.deprecation import renamed_attributes
from pyro_gflows.evaluation.estimation_error import LogDetError, error_of_score
from pyro_gflows.evaluation.importance import ImportanceReport, forward_ess, importance_report, rounding_step
from pyro_gflows.evaluation.scores import mean_and_error
from pyro_gflows.flows.learnable import learnable
from pyro_gflows.nn.modes import evaluating
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.targets import Density, LogDensity, known_log_z, log_density_of, on_full_plates

if TYPE_CHECKING:
    from pyro_gflows.training import FitResult

__all__ = ["EnergyReport", "energy_report"]


_ROUNDING = 1e-4  # nats, which the rounding of log-densities in float32 may add to a mean
_COMPARED = 16  # draws at which two calls of a log-density are compared


@renamed_attributes(log_normaliser="log_normalizer")
@dataclass(frozen=True)
class EnergyReport:
    r"""The result of :func:`energy_report`: figures of a fitted density q against an unnormalized target p, in nats.

    Besides the attributes, ``ess`` is the effective sample size as a fraction of the draws (1 is perfect), and
    ``reverse_kl`` is the divergence KL(q, p): ``reverse_loss`` plus the estimated log-normalizer.

    Attributes:
        importance: The report of the importance weights p(x) / q(x) of draws from q: effective sample size, trimmed
            effective sample size and Pareto-k. Its ``log_mean_weight`` estimates the log-normalizer of p.
        reverse_loss: :math:`E_q[\log q - \log p]` with the unnormalized p.
        reverse_loss_error: The standard error of ``reverse_loss``.
        reverse_nll: :math:`E_q[-\log p]` with p normalized by the estimated normalizer.
        forward_nll: :math:`E_p[-\log q]` over samples of the target, or None without samples. Draws
            of q cannot show modes of p that q misses, so only this figure shows them.
        forward_nll_error: The standard error of ``forward_nll``, or None.
        run: Steps, seconds and loss curve of the fit, or None.
        noise: The largest change of the log-density of p between two calls at the same draws, in nats. If it is above
            0, the importance report, the losses and the NLLs are NaN, since they would measure this noise.
        log_det_error: The error of log q if layers estimate their log-det; an error of d nats in log q changes
            ``reverse_loss`` by d, and the log-normalizer and the NLLs by -d.
        forward_ess: The effective sample size as a fraction, estimated from samples of the target
            (:func:`forward_ess`), or None without samples. It is far below ``ess`` if q has lost modes.
        gap: :math:`E_p[\log p - \log q]` over samples of the target, with p normalized by its known normalizer: the
            divergence KL(p, q), without the spread of an NLL. None without samples or without a known normalizer.
        gap_error: The standard error of ``gap``, or None.

    Example:
        >>> importance = importance_report(torch.zeros(1000))
        >>> report = EnergyReport(importance, reverse_loss=0.0, reverse_loss_error=0.0, reverse_nll=1.4)
        >>> report.ess, report.reverse_kl  # all weights are equal, so their mean is 1
        (1.0, 0.0)
    """

    importance: ImportanceReport
    reverse_loss: float
    reverse_loss_error: float
    reverse_nll: float
    forward_nll: float | None = None
    forward_nll_error: float | None = None
    run: FitResult | None = None
    noise: float = 0.0
    log_det_error: LogDetError = field(default_factory=LogDetError)
    forward_ess: float | None = None
    gap: float | None = None
    gap_error: float | None = None

    @property
    def ess(self) -> float:
        """The effective sample size as a fraction of the draws."""
        return self.importance.ess

    @property
    def trimmed_ess(self) -> float:
        """The effective sample size with the largest weights clipped, as a fraction of the draws."""
        return self.importance.trimmed_ess

    @property
    def log_normalizer(self) -> float:
        """The estimated log of the integral of the unnormalized target; too low if q has lost modes."""
        return self.importance.log_mean_weight

    @property
    def known_log_normalizer(self) -> float | None:
        """The exact log of that integral, or None if it is not known."""
        return self.importance.known

    @property
    def is_below_floor(self) -> bool:
        """Whether the gap is below 0 by more than five standard errors, which no density can reach.

        Then a log-det or a constant is wrong, or the samples are not those of the target.
        """
        return self.gap is not None and self.gap_error is not None and self.gap < -5 * self.gap_error - _ROUNDING

    @property
    def reverse_kl(self) -> float:
        """The divergence KL(q | p) with the estimated normalizer."""
        return self.reverse_loss + self.log_normalizer

    def __str__(self) -> str:
        if self.noise:
            return (
                f"no report: log_density changes by {self.noise:.3g} nats from call to call at the same draws (it uses "
                "random minibatches or other random draws), so figures computed from it would be noise; pass a "
                "log-density of all data as energy_report(flow, log_density)"
            )
        forward = "unknown (no samples of the target)"
        if self.forward_nll is not None:
            forward = f"{self.forward_nll:.4f} +- {self.forward_nll_error:.4f}"
        if self.forward_ess is not None:
            forward += f", forward ESS {self.forward_ess:.4f}"
        if self.gap is not None:
            forward += f"\ngap {self.gap:.4f} +- {self.gap_error:.4f} nats to the exact density"
        if self.is_below_floor:
            forward += " (WARNING: below 0, which no density can be: a log-det, log Z or the samples are wrong)"
        estimated = "" if self.log_det_error.is_exact else f"\n{self.log_det_error}"
        return (
            f"{self.importance}\n"
            f"reverse KL {self.reverse_kl:.4f} = {self.reverse_loss:.4f} +- {self.reverse_loss_error:.4f} "
            f"+ log normalizer {self.log_normalizer:.4f}\n"
            f"reverse NLL {self.reverse_nll:.4f}, forward NLL {forward}{estimated}"
        )


def energy_report(
    flow: Any,
    log_density: LogDensity | Density,
    *,
    draws: int = 10_000,
    samples: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 1000,
) -> EnergyReport:
    """Measures a density against an unnormalized target, from its own draws and from samples of the target if any.

    Args:
        flow: The fitted density, as for :func:`fit_energy`.
        log_density: The unnormalized target, as for :func:`fit_energy`: a function, or a density with ``log_density``,
            whose exact ``log_z`` then stands beside the estimate. If it has a method ``on_full_plates``, as the
            log-density of a guide and a :class:`SoftenedDensity` do, this method is used instead. If it changes from
            call to call, the report has no figures and a warning is issued.
        draws: The number of draws from the density.
        samples: Samples of the target, shape ``(n, *event_shape)``, or None.
        seed: The seed of the draws.
        batch_size: The number of events that are scored at a time.

    Raises:
        ValueError: The samples do not have the event shape, or ``draws`` is below 1.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> report = energy_report(flow, lambda x: -0.5 * x.square().sum(-1), draws=100)
        >>> round(report.ess, 4), round(report.log_normalizer, 4)  # log(2 pi) = 1.8379
        (1.0, 1.8379)
    """
    target = learnable(flow)
    if draws < 1:
        raise ValueError(f"expected at least one draw, got {draws}")
    distribution, reference = target.distribution, target.reference
    if samples is not None:
        samples = check_data(samples, event_shape=distribution.event_shape, source="samples").to(reference)
    with evaluating(target.module), random_state_kept(reference.device, seed=seed):
        full, log_p, log_q = on_full_plates(log_density_of(log_density)), [], []
        noise = _noise(full, distribution.sample(torch.Size([_COMPARED])))
        if noise:
            report = _no_report(draws, noise)
            warnings.warn(str(report), stacklevel=2)
            return report
        torch.manual_seed(seed)
        for count in _parts(draws, batch_size):
            x = distribution.sample(torch.Size([count]))
            log_q.append(distribution.log_prob(x))
            log_p.append(full(x))
        few = x[:256]
        error_of_log_det = error_of_score(target.module, lambda: distribution.log_prob(few.clone()))
        forward = None if samples is None else _at_samples(distribution, full, samples.split(batch_size))
    target_log, own_log = torch.cat(log_p), torch.cat(log_q)
    resolution = max(rounding_step(target_log), rounding_step(own_log))
    target_log, own_log = target_log.double(), own_log.double()
    log_z = known_log_z(log_density)
    importance = importance_report(target_log - own_log, resolution=resolution, known=log_z)
    loss, error = mean_and_error(own_log - target_log)
    return EnergyReport(
        importance=importance,
        reverse_loss=loss,
        reverse_loss_error=error,
        reverse_nll=importance.log_mean_weight - float(target_log.mean()),
        log_det_error=error_of_log_det,
        **({} if forward is None else _forward_figures(*forward, log_z)),
    )


def _at_samples(distribution: Any, full: LogDensity, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The log-densities of the target and of the fit at samples of the target."""
    values = [(full(part), distribution.log_prob(part)) for part in parts]
    log_p, log_q = (torch.cat(logs).double() for logs in zip(*values, strict=True))
    return log_p, log_q


def _forward_figures(log_p: Tensor, log_q: Tensor, log_z: float | None) -> dict[str, Any]:
    nll, error = mean_and_error(-log_q)
    figures = {"forward_nll": nll, "forward_nll_error": error, "forward_ess": forward_ess(log_p - log_q)}
    if log_z is not None:
        figures["gap"], figures["gap_error"] = mean_and_error(log_p - log_z - log_q)
    return figures


def _noise(log_density: LogDensity, x: Tensor) -> float:
    """The largest change of a log-density between two calls, in nats; 0 if rounding explains it."""
    first, second = log_density(x).double(), log_density(x).double()
    same = (first == second) | (first.isnan() & second.isnan())  # equal infinities count as the same
    change = torch.where(same, 0.0, (first - second).abs())
    size = first[first.isfinite()].abs().max() if bool(first.isfinite().any()) else first.new_zeros(())
    rounding = torch.finfo(x.dtype).eps ** 0.5 * (1.0 + float(size))
    return float(change.max()) if bool((change > rounding).any()) else 0.0


def _no_report(draws: int, noise: float) -> EnergyReport:
    unknown = math.nan
    importance = ImportanceReport(draws, unknown, unknown, unknown, unknown, unknown)
    return EnergyReport(importance, unknown, unknown, unknown, noise=noise)


def _parts(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
