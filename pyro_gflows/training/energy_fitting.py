"""Fitting to an energy: a density known up to a constant, by reverse divergence with path gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.checks import check_data
from pyro_gflows.evaluation.energies import EnergyReport, energy_report
from pyro_gflows.flows.learnable import Learnable, learnable
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.targets import LogDensity
from pyro_gflows.training.callbacks import Callback, callback_list
from pyro_gflows.training.identity import name_of, run_identity, schedule_identity, values_at
from pyro_gflows.training.loop import Watch, run
from pyro_gflows.training.objectives.energy import Energy
from pyro_gflows.training.objectives.mixing import ForwardKL, Mixing
from pyro_gflows.training.settings import FitSettings, Schedule
from pyro_gflows.training.trainer import Trainer

__all__ = ["fit_energy"]


@full_precision
def fit_energy(
    flow: Any,
    log_density: LogDensity,
    *,
    settings: FitSettings | None = None,
    annealing: Schedule | None = None,
    mixing: Mixing | None = None,
    samples: Tensor | np.ndarray | None = None,
    callbacks: Callback | Sequence[Callback] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> EnergyReport:
    r"""Fit a density to an unnormalized one, in place, and report how well it went.

    Minimizes the reverse divergence :math:`E_q[\log q(x) - \beta \log p(x)]` by path gradients
    (:func:`reverse_kl_loss`), which have no noise where q = p. The reverse divergence forgives lost modes: symmetry
    brings back those that are images of one another, ``annealing`` and ``mixing`` help with the others, and the forward
    NLL of ``samples`` shows what is still missing. Seeds, checkpoints, resuming and Ctrl-C are those of :func:`fit`.

    Args:
        flow: an EquivariantFlow, or a distribution with a module, such as ``Symmetrized(flow.dist, action)``. Flows
            whose residual and autoregressive layers are all made with ``fast="sample"`` are never inverted here; a
            Symmetrized one is scored at all images of each draw, so there build them with ``fast="score"``.
        log_density: maps events, shape ``(n, *event_shape)``, to log p up to a constant, shape ``(n,)``,
            differentiably; such as :meth:`AutoGFlow.log_density`.
        settings: steps, batch size (draws a step), seed, optimizer, schedule and so on (default: ``FitSettings()``).
        annealing: the inverse temperature beta when a fraction of the run is over, such as ``Ramp(start=0.1)``; it
            should end at 1.
        mixing: a second loss: ``ForwardKL(samples)`` or ``AlphaMixing(proposal)``.
        samples: of the target, for the forward NLL of the report.
        callbacks: as for :func:`fit`; the losses are ``{"train": ...}``, what is minimized, and the flow is ``flow``.
        folder: where checkpoints go; None keeps none.
        resume: go on from the folder's checkpoint, also for more steps, as :func:`fit` does. Log-density and mixing are
            compared by their values at a few fixed points.
        progress: show a progress bar.

    Raises:
        TypeError: neither flow nor distribution with a module, or a ``log_density`` that does not give tensors.
        ValueError: no weights, no reparametrized draws, a ``log_density`` of another shape or without gradient, samples
            of another shape, early stopping (there is no held-out set), or what :func:`fit` says of folders.
        RuntimeError: this is one of several processes, as torchrun starts them.
        FitDiverged: NaN; the weights are put back to the last good snapshot.

    Example:
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction, g_residual
        >>> from pyro_gflows.targets import density
        >>> action = VectorAction.plane("D8")
        >>> flow = EquivariantFlow(InvariantNormal(action), [g_residual(action, fast="sample")])
        >>> report = fit_energy(
        ...     flow, density("8gaussians").log_prob, settings=FitSettings(steps=3, batch_size=64), progress=False
        ... )
        >>> report.run.steps, 0 < report.ess < 1
        (3, True)
    """
    target = learnable(flow)
    settings = settings or FitSettings()
    if not isinstance(settings, FitSettings):
        raise TypeError(f"expected settings=FitSettings(...), got {type(settings).__name__}")
    if settings.validation.patience is not None:
        raise ValueError("there is no held-out set to stop early by: give Validation(patience=None)")
    if samples is not None:
        samples = check_data(samples, event_shape=target.distribution.event_shape, source="samples")
    if isinstance(mixing, ForwardKL):
        given = check_data(mixing.samples, event_shape=target.distribution.event_shape, source="samples of ForwardKL")
        mixing = dataclasses.replace(mixing, samples=given.to(target.reference))
    _check_log_density(log_density, target)

    def identity() -> dict[str, Any]:
        shape, like = target.distribution.event_shape, target.reference
        values = values_at(log_density, shape, like, name="the log-density")
        about = {} if values is None else {"log_density_values": values}
        if mixing is not None:
            about["mixing_weight"] = schedule_identity(mixing.weight)
            if (described := getattr(mixing, "identity", None)) is not None:
                about["mixing_values"] = described(shape, like)
        return run_identity(
            target.module,
            settings,
            log_density=name_of(log_density),
            annealing=schedule_identity(annealing),
            mixing=name_of(mixing),
            **about,
        )

    result = run(
        lambda: Trainer(
            Energy(target, log_density, settings=settings, annealing=annealing, mixing=mixing), settings=settings
        ),
        settings=settings,
        device=target.reference.device,
        identity=identity,
        folder=folder,
        resume=resume,
        watch=Watch(flow, callback_list(callbacks), "loss" if progress else ""),
    )
    report = energy_report(flow, log_density, samples=samples, seed=settings.seed)
    return dataclasses.replace(report, run=result)


def _check_log_density(log_density: LogDensity, target: Learnable) -> None:
    """Call it on a few draws."""
    if not callable(log_density):
        raise TypeError(f"expected log_density to be a function of events, got {type(log_density).__name__}")
    rows = 3
    reference = target.reference
    with random_state_kept(reference.device), torch.no_grad():
        x = target.distribution.sample(torch.Size([rows]))
    with torch.enable_grad():
        values: Any = log_density(x.requires_grad_())
    if not isinstance(values, Tensor):
        raise TypeError(f"expected log_density to give a tensor, got {type(values).__name__}")
    if values.shape != (rows,):
        raise ValueError(
            f"expected log_density to map events of shape {tuple(x.shape)} to shape ({rows},), got "
            f"{tuple(values.shape)}; sum over the event, not over the batch"
        )
    if not values.requires_grad:
        raise ValueError("expected a log_density that torch can differentiate; use torch operations, without no_grad")
