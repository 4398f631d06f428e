"""The error that estimated log-determinants cause in a log-density."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.evaluation.scores import log_probs
from pyro_gflows.numerics import FixedProbes, KrylovLogDet, KrylovReport, LogDet
from pyro_gflows.numerics.random_state import random_state_kept

__all__ = ["LogDetError", "error_of_score", "log_det_error"]

# The number of sets of probes whose spread is measured: eight show it to about a quarter, more than 16 waste time.
_FEWEST_SETS, _MOST_SETS = 8, 16


@dataclass(frozen=True)
class LogDetError:
    """The result of :func:`log_det_error`, in nats for each event; all zero if every log-det is exact.

    Attributes:
        standard_error: The standard error of the mean log-density, from the spread between probes. All events share
            most of this error, so more events hardly reduce it; n times the probes reduce it by the square root of n.
        truncation: A bound on the error from cutting the power series or the Krylov spaces of all layers; the true
            error is far smaller. For Krylov spaces it is the mean of what they certify for the events that were scored.
        estimated: The number of layers that estimate their log-det.
        observed: The sum over the layers of the mean difference between the last two orders of their Krylov spaces,
            which is closer to the error from cutting them than what is certified.

    Example:
        >>> LogDetError().is_exact
        True
        >>> print(str(LogDetError(standard_error=0.02, truncation=0.001, estimated=1)).split(",")[0])
        log-det of 1 layer estimated: standard error 0.02 nats
    """

    standard_error: float = 0.0
    truncation: float = 0.0
    estimated: int = 0
    observed: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether every log-det is exact, up to rounding."""
        return not self.estimated

    def __str__(self) -> str:
        if self.is_exact:
            return "log-det exact"
        layers = "1 layer" if self.estimated == 1 else f"{self.estimated} layers"
        cut = f"cutting the series adds at most {self.truncation:.3g}"
        if self.observed:
            cut = f"cutting adds about {self.observed:.2g} (observed) and at most {self.truncation:.3g} (certified)"
        return (
            f"log-det of {layers} estimated: standard error {self.standard_error:.3g} nats, "
            f"mostly the same for every event; {cut}"
        )


def log_det_error(flow: nn.Module, x: Tensor, *, batch_size: int = 1024, rows: int = 256) -> LogDetError:
    """Measures the error of a flow's mean log-density, in evaluation mode, that comes from estimated log-dets.

    Large residual layers estimate their log-det with random probe vectors. These are fixed in evaluation mode, so
    repeating the evaluation does not show the error. This function therefore splits the probes into several sets,
    scores the events once with each set, and measures the spread of the means. All layers use matching sets, so errors
    that the layers share are included. If a layer has fewer than eight probes, probes from other seeds are added. The
    cost is about one evaluation with eight probes, and the same events always give the same result.

    Args:
        flow: A module whose forward is its log-density.
        x: Events, shape ``(n,) + event_shape``.
        batch_size: The number of events that are scored at a time.
        rows: The number of events that are used, from the first on; the error is nearly the same for all events.

    Example:
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction, g_residual
        >>> from pyro_gflows.numerics import KrylovLogDet
        >>> action = VectorAction.regular("C4")
        >>> layer = g_residual(action, log_det=KrylovLogDet(probes=8))
        >>> flow = EquivariantFlow(InvariantNormal(action), [layer])
        >>> error = log_det_error(flow, torch.randn(50, 4))
        >>> error.estimated, error.is_exact, error.truncation < 1
        (1, False, True)
        >>> exact = EquivariantFlow(InvariantNormal(action), [g_residual(action)])
        >>> print(log_det_error(exact, torch.randn(50, 4)))
        log-det exact
    """
    return error_of_score(flow, lambda: log_probs(flow, x[:rows], batch_size=batch_size))


def error_of_score(module: nn.Module, score: Callable[[], Tensor]) -> LogDetError:
    """Measures the error from estimated log-dets in any log-densities that are computed through a module.

    Args:
        module: The module that contains the layers.
        score: A function that returns the log-densities, shape ``(rows,)``, of the same events at every call.
    """
    layers = [(layer, estimator) for layer in module.modules() if (estimator := _estimator(layer)) is not None]
    if not layers:
        return LogDetError()
    found = [(layer, *_watched(estimator)) for layer, estimator in layers]
    sets, shares = _sets([estimator for _, estimator, _ in found])
    means = []
    for estimators in sets:
        # the same random draws, for example of a dequantizer, with all sets of probes
        with _using([layer for layer, _ in layers], estimators), random_state_kept(module, seed=0):
            means.append(float(score().detach().double().mean()))
    spread = float(torch.tensor(means, dtype=torch.float64).std()) if means else 0.0
    return LogDetError(
        standard_error=spread / math.sqrt(shares),
        truncation=sum(_truncation(layer, estimator, reports) for layer, estimator, reports in found),
        estimated=len(layers),
        observed=sum(_mean([report.observed for report in reports]) * _log_dets(layer) for layer, _, reports in found),
    )


def _estimator(layer: nn.Module) -> FixedProbes | None:
    """The estimator of a layer's log-det in evaluation mode; None if the log-det is exact or the layer has none."""
    log_det = getattr(layer, "log_det", None)
    evaluator = log_det.evaluator() if isinstance(log_det, LogDet) else None
    return evaluator if isinstance(evaluator, FixedProbes) else None


def _watched(estimator: FixedProbes) -> tuple[FixedProbes, list[KrylovReport]]:
    """The estimator, and a list to which it appends what it certifies for the events it is evaluated on."""
    return estimator.watched() if isinstance(estimator, KrylovLogDet) else (estimator, [])


def _truncation(layer: Any, estimator: FixedProbes, reports: Sequence[KrylovReport]) -> float:
    if isinstance(estimator, KrylovLogDet):
        return _mean([report.certified for report in reports]) * _log_dets(layer)
    return estimator.truncation_error(lipschitz=layer.lipschitz_bound(), dim=layer.action_in.numel) * _log_dets(layer)


def _log_dets(layer: Any) -> int:
    return int(getattr(layer, "log_dets", 1))


def _mean(values: Sequence[Tensor]) -> float:
    return float(torch.cat([value.double().flatten() for value in values]).mean()) if values else 0.0


def _sets(estimators: Sequence[FixedProbes]) -> tuple[list[list[FixedProbes]], int]:
    """Independent sets of estimators with fewer probes, and the number of sets whose mean the full estimators are."""
    probes = [estimator.probes for estimator in estimators if estimator.probes is not None]
    if not probes:
        return [], 1
    shares = min(*probes, _MOST_SETS)
    others = range(_FEWEST_SETS - shares)
    parts = [_parts(e, shares) + [_parts(e.reseeded(1 + shift), shares)[0] for shift in others] for e in estimators]
    return [list(together) for together in zip(*parts, strict=True)], shares


def _parts(estimator: FixedProbes, shares: int) -> list[FixedProbes]:
    return [estimator] * shares if estimator.probes is None else estimator.parts(shares)


@contextlib.contextmanager
def _using(layers: Sequence[Any], estimators: Sequence[FixedProbes]) -> Iterator[None]:
    own = [layer.log_det for layer in layers]
    try:
        for layer, estimator in zip(layers, estimators, strict=True):
            layer.log_det = estimator
        yield
    finally:
        for layer, log_det in zip(layers, own, strict=True):
            layer.log_det = log_det
