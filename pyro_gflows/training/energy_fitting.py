"""Fits a density to an energy, which is a density known up to a constant, by the reverse divergence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from pyro_gflows.datasets.checks import check_data
from pyro_gflows.evaluation.energies import EnergyReport, energy_report
from pyro_gflows.flows.learnable import Learnable, learnable
from pyro_gflows.flows.with_masks import FlowOfMask
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.targets import Density, LogDensity, log_density_of
from pyro_gflows.training.callbacks import Callback, callback_list
from pyro_gflows.training.engines.base import Engine
from pyro_gflows.training.engines.devices import Devices, as_devices, launch
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
    log_density: LogDensity | Density,
    *,
    settings: FitSettings | None = None,
    annealing: Schedule | None = None,
    mixing: Mixing | None = None,
    samples: Tensor | np.ndarray | None = None,
    mask: Tensor | None = None,
    callbacks: Callback | Sequence[Callback] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    devices: int | str | Devices | None = None,
    progress: bool = True,
) -> EnergyReport:
    r"""Fits a density, in place, to an unnormalized density that can be evaluated but not sampled, and reports the fit.

    It is used for posteriors and for Boltzmann distributions with a known energy. It minimizes the reverse divergence
    :math:`E_q[\log q(x) - \beta \log p(x)]` of the fit q from the target p by path gradients (:func:`reverse_kl_loss`),
    which have no noise at q = p. The reverse divergence hardly punishes a fit that has lost modes of the target. An
    invariant flow cannot lose single modes that are images of each other; ``annealing`` and ``mixing`` help with other
    modes; and the forward NLL of ``samples`` shows whether modes are missing. Seeds, checkpoints, resuming and Ctrl-C
    work as in :func:`fit`.

    Args:
        flow: An EquivariantFlow, or a distribution with a module, such as ``Symmetrized(flow.dist, action)``. Build the
            residual and autoregressive layers of a flow with ``fast="sample"``, so that the fit never inverts them.
            Build those of a Symmetrized flow with ``fast="score"``, since it is scored at all images of each draw.
        log_density: A differentiable function from events, shape ``(n, *event_shape)``, to log p up to a constant,
            shape ``(n,)``, such as :meth:`AutoGFlow.log_density`; or a density with ``log_density``, such as
            ``DoubleWell()``, whose exact log-normalizer then stands in the report. With an energy that is huge where
            particles overlap, ``target.softened(above=100)`` trains on a :class:`SoftenedDensity`; the report is always
            about the exact one.
        settings: Steps, batch size (the number of draws per step), seed, optimizer, schedule and more; by default
            ``FitSettings()``.
        annealing: The inverse temperature :math:`\beta` as a schedule, such as ``Ramp(start=0.1)``; it should end at 1.
            By default it is always 1.
        mixing: A second loss, ``ForwardKL(samples)`` or ``AlphaMixing(proposal)``, or None.
        samples: Samples of the target for the forward NLL in the report, shape ``(n, *event_shape)``, or None.
        mask: Which rows of the events are there, boolean, shape ``(n,)``, where the target is a density of fewer rows
            than the flow's n: draws are 0 in the other rows. None where all are.
        callbacks: Functions that are called after every step, as for :func:`fit`. Their losses are ``{"train": loss}``.
        folder: The folder for checkpoints; None writes no checkpoints.
        resume: Whether to continue from the folder's checkpoint, also to more steps, as in :func:`fit`. The log-density
            and the mixing are compared with the earlier run by their values at a few fixed points.
        devices: The number of devices, or :class:`Devices`, as for :func:`fit`; each device draws its part of the
            events of a step.
        progress: Whether to show a progress bar.

    Returns:
        A report with the effective sample size of the fit, its divergences and its normalizer.

    Raises:
        TypeError: ``flow`` is not a flow or a distribution with a module, or ``log_density`` does not return tensors.
        ValueError: ``flow`` has no weights or no reparametrized draws; ``log_density`` has the wrong shape or no
            gradient; the samples have the wrong shape; the settings ask for early stopping, which needs validation
            data; or the folder or its checkpoint cannot be used, as in :func:`fit`.
        RuntimeError: The run is in one of several processes, as torchrun starts them, and ``devices`` is not given.
        ImportError: Several devices are asked for, and Lightning is not installed.
        FitDiverged: The loss is NaN or infinite; the weights are then those of the last good checkpoint.

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
    fitted = flow if mask is None else FlowOfMask(flow, mask)
    target = learnable(fitted)
    settings = settings or FitSettings()
    if not isinstance(settings, FitSettings):
        raise TypeError(f"expected settings=FitSettings(...), got {type(settings).__name__}")
    if settings.validation.patience is not None:
        raise ValueError("fit_energy has no validation data, which early stopping needs; set Validation(patience=None)")
    if samples is not None:
        samples = check_data(samples, event_shape=target.distribution.event_shape, source="samples")
    if isinstance(mixing, ForwardKL):
        checked = check_data(mixing.samples, event_shape=target.distribution.event_shape, source="samples of ForwardKL")
        mixing = dataclasses.replace(mixing, samples=checked.to(target.reference))
    chosen = as_devices(devices)
    chosen.check(batch_size=settings.batch_size)
    _check_log_density(log_density_of(log_density), target)

    job = _FitEnergy(
        fitted,
        log_density,
        settings=settings,
        annealing=annealing,
        mixing=mixing,
        samples=samples,
        folder=folder,
        resume=resume,
        watch=Watch(flow, callback_list(callbacks), "loss" if progress else ""),
    )
    return launch(chosen, job, module=target.module)


@dataclass(frozen=True)
class _FitEnergy:
    """A fit to an energy whose arguments are checked, as every process of the run carries it out."""

    fitted: Any
    log_density: LogDensity | Density
    _: KW_ONLY
    settings: FitSettings
    annealing: Schedule | None
    mixing: Mixing | None
    samples: Tensor | None
    folder: str | Path | None
    resume: bool
    watch: Watch

    def __call__(self, engine: Engine) -> EnergyReport:
        result = run(
            self._trainer,
            engine=engine,
            settings=self.settings,
            device=learnable(self.fitted).reference.device,
            identity=self._identity,
            folder=self.folder,
            resume=self.resume,
            watch=self.watch,
        )
        report = energy_report(self.fitted, self.log_density, samples=self.samples, seed=self.settings.seed)
        return dataclasses.replace(report, run=result)

    def _trainer(self, engine: Engine) -> Trainer:
        objective = Energy(
            self.fitted,
            log_density_of(self.log_density),
            settings=self.settings,
            annealing=self.annealing,
            mixing=self.mixing,
        )
        return Trainer(objective, settings=self.settings, engine=engine)

    def _identity(self) -> dict[str, Any]:
        target, mixing = learnable(self.fitted), self.mixing
        shape, like = target.distribution.event_shape, target.reference
        function = log_density_of(self.log_density)
        values = values_at(function, shape, like, name="the log-density")
        about = {} if values is None else {"log_density_values": values}
        if mixing is not None:
            about["mixing_weight"] = schedule_identity(mixing.weight)
            if (described := getattr(mixing, "identity", None)) is not None:
                about["mixing_values"] = described(shape, like)
        return run_identity(
            target.module,
            self.settings,
            log_density=name_of(function),
            annealing=schedule_identity(self.annealing),
            mixing=name_of(mixing),
            **about,
        )


def _check_log_density(log_density: LogDensity, target: Learnable) -> None:
    """Checks what the log-density returns for a few draws."""
    if not callable(log_density):
        raise TypeError(f"expected log_density to be a function of events, got {type(log_density).__name__}")
    if isinstance(owner := getattr(log_density, "__self__", None), AutoGuide):
        raise TypeError(
            f"expected a function of events, got the method {name_of(log_density)} of {type(owner).__name__}, which "
            "takes the arguments of the model and returns that function; write guide.log_density(*args)"
        )
    rows = 3
    reference = target.reference
    with random_state_kept(reference.device), torch.no_grad():
        x = target.distribution.sample(torch.Size([rows]))
    with torch.enable_grad():
        values: Any = log_density(x.requires_grad_())
    if not isinstance(values, Tensor):
        raise TypeError(f"expected log_density to return a tensor, got {type(values).__name__}")
    if values.shape != (rows,):
        raise ValueError(
            f"expected log_density to map events of shape {tuple(x.shape)} to shape ({rows},), got "
            f"{tuple(values.shape)}; sum over the event, not over the batch"
        )
    if not values.requires_grad:
        raise ValueError("expected a log_density that torch can differentiate; use torch operations, without no_grad")
