"""Measures of how good a fitted density is: likelihoods, invariance errors, importance weights and reports.

Likelihood:
    log_probs, nll, symmetrized_nll, gap, group_log_probs, group_bits_per_dim, mean_and_error

Any number of events:
    score_rows, sample_rows, ScoreReport, StreamSettings

Invariance:
    invariance_error, invariance_errors, invariance_report, InvarianceReport

Reports:
    energy_report, EnergyReport, image_report, ImageReport, importance_report, ImportanceReport, forward_ess,
    log_det_error, LogDetError
"""

from pyro_gflows.evaluation.energies import EnergyReport, energy_report
from pyro_gflows.evaluation.estimation_error import LogDetError, log_det_error
from pyro_gflows.evaluation.images import ImageReport, image_report
from pyro_gflows.evaluation.importance import ImportanceReport, forward_ess, importance_report
from pyro_gflows.evaluation.invariance import (
    InvarianceReport,
    invariance_error,
    invariance_errors,
    invariance_report,
)
from pyro_gflows.evaluation.scores import (
    gap,
    group_bits_per_dim,
    group_log_probs,
    log_probs,
    mean_and_error,
    nll,
    symmetrized_nll,
)
from pyro_gflows.evaluation.stream_settings import ScoreReport, StreamSettings
from pyro_gflows.evaluation.streaming import sample_rows, score_rows

__all__ = [
    "EnergyReport",
    "ImageReport",
    "ImportanceReport",
    "InvarianceReport",
    "LogDetError",
    "ScoreReport",
    "StreamSettings",
    "energy_report",
    "forward_ess",
    "gap",
    "group_bits_per_dim",
    "group_log_probs",
    "image_report",
    "importance_report",
    "invariance_error",
    "invariance_errors",
    "invariance_report",
    "log_det_error",
    "log_probs",
    "mean_and_error",
    "nll",
    "sample_rows",
    "score_rows",
    "symmetrized_nll",
]
