"""The figures of a trained flow, which ``metrics.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.datasets import DataSet
from pyro_gflows.evaluation import (
    energy_report,
    image_report,
    invariance_report,
    log_det_error,
    log_probs,
    mean_and_error,
)
from pyro_gflows.flows import VariationalDequantizer
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.families import build_action
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.targets import ParticleTarget
from pyro_gflows.training import FitResult

__all__ = ["draw", "measure"]


def measure(
    flow: EquivariantFlow,
    data: DataSet,
    *,
    group: str,
    seed: int = 0,
    dequantizer: VariationalDequantizer | None = None,
    result: FitResult | None = None,
) -> Mapping[str, Any]:
    """Return figures of a flow on the test events; for images, those of :func:`pyro_gflows.evaluation.image_report`.

    For particles with a known energy there are also the figures of draws of the flow: their effective sample size,
    and the log Z that they give, beside the known one.

    The invariance error is measured on a copy in float64, so that it shows errors of the layers and not of rounding.
    The NLL of dequantized images is that of the test images with the noise that was drawn when they were loaded.

    Args:
        flow: The trained flow.
        data: The data set with the test events.
        group: The name of the group for the invariance error and for averages over a group; "C1" stands for the known
            symmetry of the data.
        seed: The seed of all random draws.
        dequantizer: The trained dequantization noise, or None.
        result: The report of the training, or None.
    """
    test = data.test.to(next(flow.parameters()))
    if isinstance(data.target, ParticleTarget):
        figures = _of_particles(flow, data.target, test, seed=seed)
    else:
        figures = _of_scores(flow, data, test)
    action = _measured_action(flow, data, group)
    if data.scaling is not None:
        about = image_report(flow, test, data.scaling, action=action, dequantizer=dequantizer, result=result, seed=seed)
        return {**figures, **about.known()}
    if not (estimated := log_det_error(flow, test)).is_exact:
        figures["log_det_standard_error"] = estimated.standard_error
        figures["log_det_truncation"] = estimated.truncation
    errors = invariance_report(flow, test, action, generator=torch.Generator().manual_seed(seed))
    figures["invariance_error"], figures["mean_invariance_error"] = errors.worst, errors.mean
    return {**figures, "invariance_group": str(action.group)}


def _of_scores(flow: EquivariantFlow, data: DataSet, test: Tensor) -> dict[str, Any]:
    scores = log_probs(flow, test).double()
    figures: dict[str, Any] = {"nll": -float(scores.mean())}
    if data.target is not None:
        figures["floor"] = data.target.floor
        difference = data.target.log_prob(test.double()) - scores
        figures["gap"], figures["gap_standard_error"] = mean_and_error(difference)
    return figures


def _of_particles(flow: EquivariantFlow, target: ParticleTarget, test: Tensor, *, seed: int) -> dict[str, Any]:
    """The figures of both directions, from exact draws and from as many draws of the flow."""
    report = energy_report(flow, target, draws=len(test), samples=test, seed=seed)
    return {
        "nll": report.forward_nll,
        "floor": target.floor,
        "gap": report.gap,
        "gap_standard_error": report.gap_error,
        "forward_ess": report.forward_ess,
        "ess": report.ess,
        "pareto_k": report.importance.pareto_k,
        "log_z": report.log_normalizer,
        "log_z_standard_error": report.importance.standard_error,
        "known_log_z": target.log_z,
    }


def _measured_action(flow: EquivariantFlow, data: DataSet, group: str) -> Action:
    if group == str(flow.action.group) and (group != "C1" or data.symmetry is None):
        return flow.action
    return build_action(data.symmetry if group == "C1" and data.symmetry else group, data.space)


def draw(flow: EquivariantFlow, n: int, *, seed: int = 0) -> Tensor:
    """Draw samples of a flow, shape (n,) + event_shape; the caller's random state is left as it was.

    Args:
        flow: A flow.
        n: The number of samples.
        seed: The seed of the draw.
    """
    with random_state_kept(flow, seed=seed), torch.no_grad():
        return flow.dist.sample((n,))
