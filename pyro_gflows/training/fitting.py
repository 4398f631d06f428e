"""Fits a flow to data by maximum likelihood, in runs that can be stopped and resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_gflows.actions import RowsAction
from pyro_gflows.datasets.rows import Rows
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.evaluation.estimation_error import log_det_error
from pyro_gflows.flows.augmented import AugmentedFlow
from pyro_gflows.flows.dequantization import DequantizedFlow, VariationalDequantizer
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.variational import VariationalFlow
from pyro_gflows.flows.with_masks import FlowWithMasks
from pyro_gflows.numerics.precision import full_precision, refuse_low
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.batches import Sampler
from pyro_gflows.training.callbacks import Callback, callback_list
from pyro_gflows.training.engines.base import Engine
from pyro_gflows.training.engines.devices import Devices, as_devices, launch
from pyro_gflows.training.identity import fingerprint, run_identity
from pyro_gflows.training.loader import check_shared
from pyro_gflows.training.loop import FitResult, Watch, run
from pyro_gflows.training.objectives.base import FitDiverged
from pyro_gflows.training.objectives.likelihood import Likelihood
from pyro_gflows.training.settings import FitSettings
from pyro_gflows.training.sources import masked_events, rows_of, sampler_identity, source_of
from pyro_gflows.training.trainer import Trainer

__all__ = ["FitDiverged", "FitResult", "fit", "rows_of", "source_of"]


@renamed_arguments(dequantise="dequantize")
@full_precision
def fit(
    flow: EquivariantFlow | AugmentedFlow,
    data: Tensor | np.ndarray | Sequence[Tensor] | Rows | str | Path | Dataset[Any] | DataLoader[Any] | Sampler,
    *,
    settings: FitSettings | None = None,
    validation: Tensor
    | np.ndarray
    | Sequence[Tensor]
    | Rows
    | str
    | Path
    | Dataset[Any]
    | DataLoader[Any]
    | None = None,
    mask: Tensor | None = None,
    augment: Augmentation | None = None,
    dequantize: VariationalDequantizer | None = None,
    initialize: bool = False,
    callbacks: Callback | Sequence[Callback] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    devices: int | str | Devices | None = None,
    progress: bool = True,
) -> FitResult:
    """Fits a flow to data by maximum likelihood, in place.

    It minimizes the mean of -log p(x), or of the bound that a call of a VariationalFlow returns, with one torch
    optimizer, so gradients are clipped by the norm over all parameters together.

    At the start, the first batch sets the data-dependent layers (GActNorm, GOrbitNorm) that are not set yet. A layer
    that was initialized, trained or loaded keeps its weights. All randomness comes from the seed in the settings; the
    global random state and Pyro's parameter store stay unchanged. ``torch.autocast`` is switched off during the fit.

    With a ``folder``, a checkpoint is written at regular intervals. A run that was killed and resumed ends in exactly
    the same weights as an unbroken run, on the CPU and with the same number of threads. Ctrl-C finishes the current
    step, writes a checkpoint and raises ``KeyboardInterrupt``.

    At the start, two problems of the data cause a warning: data that do not fill the space (they lie in a subspace, on
    a sphere or are angles), for which the likelihood of a density on R^n has no upper bound; and data that contradict
    the flow's symmetry in a few hundred rows (see :func:`check_symmetry`). The second check is skipped with
    ``augment``, which may make the data symmetric. Of a ``Dataset``, a ``DataLoader`` or a sampler, only the first
    batch is checked, and not for symmetry.

    Args:
        flow: The flow; its device and dtype are used. For an :class:`~pyro_gflows.flows.AugmentedFlow` the loss is the
            augmented bound on -log p(x), and the validation NLL is estimated by its importance weights.
        data: Events of any floating dtype, shape ``(rows,) + event_shape``, as one of five kinds: a tensor or an array,
            which may be memory-mapped and is never copied as a whole; a file or a folder of files that may be larger
            than the memory, as :func:`~pyro_gflows.datasets.open_rows` opens them, or their path; a torch ``Dataset``
            of events, or of tuples whose first entry is the event; a ``DataLoader``, whose own batches are used (a
            resumed run has the same order if torch's generators determine it); or a sampler ``(n, generator) ->
            events`` that is called at every step, such as an exact :class:`~pyro_gflows.targets.Density`. A sampler
            with a state has methods ``state()`` and ``restore(state)``, as a :class:`StatefulSampler`. For a flow of
            rows also a list of sets of different sizes, tensors of shape ``(n_i, F)`` with at most n rows.
        settings: Steps, batch size, seed, optimizer, schedule and more; by default ``FitSettings()``.
        validation: Validation events, for early stopping and the reported NLL, or None; a list of sets where the data
            are one, or have a mask.
        mask: Which rows of stored events are there, boolean, shape ``(rows, n)``; None where all are.
        augment: A function ``augment(x, generator)`` that is applied to every batch, or None.
        dequantize: A dequantizer for images, which is trained together with the flow, in place. It replaces the noise
            of the data, which then only sets the scales of the flow at the start. The loss is then the bound on
            -log P(levels) in nats, as in :class:`DequantizedFlow`.
        initialize: Whether the first batch also sets data-dependent layers that are set already, as
            ``flow.initialize`` does; use it to start a flow again on data of another scale. Layers with a frozen
            parameter keep their weights. A resumed run ignores it.
        callbacks: One or several functions that are called as ``callback(step, losses, flow)`` after every step: with
            the number of steps that are done, the losses in nats per event (``"train"``, and ``"validation"`` if it
            was measured) and the flow with its current, not averaged, weights. Returning True stops the run. Random
            draws in a callback do not change the run.
        folder: The folder for checkpoints; None writes no checkpoints.
        resume: Whether to continue from the folder's checkpoint. A run that has ended continues if the settings have
            more steps and are otherwise the same; the schedule then extends over the new number of steps.
        devices: The number of devices, or :class:`Devices` with the number of machines, the strategy and the precision;
            by default the one on which the flow is. Several need Lightning (``pip install 'pyro-gflows[lightning]'``).
            The result does not depend on their number, up to rounding and the noise of random draws. Callbacks are
            called in the first process alone. See :doc:`/devices`.
        progress: Whether to show a progress bar with NLL and throughput.

    Returns:
        The number of steps, the losses and the validation NLL of the run. The flow itself is changed in place and is
        in evaluation mode.

    Raises:
        ValueError: Before any training: the flow has no weights or all are frozen, has trainable layers after a base
            whose density may jump (Canonicalized), or takes a context; the data have
            the wrong shape, are not finite, outside the interval of the flow's last layer or too large for the flow's
            dtype; the folder is not writable; the checkpoint is missing, unreadable or from another run; or a sampler
            in a resumed run has a state but no method ``state()``.
        TypeError: The data are not floating-point, or another argument has the wrong type.
        RuntimeError: The run is in one of several processes, as torchrun starts them, and ``devices`` is not given.
        ImportError: Several devices are asked for, and Lightning is not installed.
        FitDiverged: The loss is NaN or has diverged; the flow is then reset to the last good checkpoint, which is also
            kept on disk.

    Example:
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction
        >>> from pyro_gflows.targets import density
        >>> from pyro_gflows.transforms import g_radial
        >>> action = VectorAction.plane("O(2)")
        >>> flow = EquivariantFlow(InvariantNormal(action), [g_radial(action)])
        >>> fit(flow, density("rings"), settings=FitSettings(steps=3), progress=False).steps
        3
    """
    if not isinstance(flow, EquivariantFlow | AugmentedFlow):
        raise TypeError(f"expected an EquivariantFlow, got {type(flow).__name__}")
    if flow.context_action is not None:
        raise ValueError(
            f"fit takes data without a context, but this flow takes one, an event of {flow.context_action}; write a "
            "loop with flow.condition(context).log_prob(x)"
        )
    inner = flow if isinstance(flow, EquivariantFlow) else flow.flow
    if inner.trains_jumps:
        raise ValueError(
            f"expected all trainable weights inside {type(inner.base).__name__}, whose density may jump: layers after "
            "it move the jumps, and gradients of the likelihood miss what this contributes; call requires_grad_(False) "
            "on flow.transform, or use another base"
        )
    like = next(flow.parameters(), None)
    if like is None:
        raise ValueError(f"expected a flow with weights to fit, got none in {flow}")
    refuse_low(like, "weights")
    settings = settings or FitSettings()
    if not isinstance(settings, FitSettings):
        raise TypeError(f"expected settings=FitSettings(...), got {type(settings).__name__}")
    if augment is not None and not callable(augment):
        raise TypeError(
            "expected augment to be a function augment(x, generator), such as random_elements(action) or data.augment, "
            f"got {type(augment).__name__}"
        )
    if settings.validation.patience is not None and validation is None:
        raise ValueError("early stopping needs validation data: pass validation=..., or set Validation(patience=None)")
    trained: EquivariantFlow | VariationalFlow = flow if dequantize is None else _with_noise(flow, dequantize)
    if not any(weight.requires_grad for weight in trained.parameters()):
        raise ValueError(
            f"expected weights to fit, but all {sum(1 for _ in trained.parameters())} weight tensors of the flow are "
            "frozen; call requires_grad_(True) on the layers that are to be trained"
        )
    seen: EquivariantFlow | VariationalFlow = flow
    if mask is not None or (isinstance(data, list | tuple) and isinstance(flow.action, RowsAction)):
        if augment is not None or dequantize is not None:
            raise ValueError(
                "expected neither augment nor dequantize for sets of different sizes: neither reads a mask"
            )
        seen = trained = FlowWithMasks(_plain_flow(flow, "rows are missing"))
        data, validation = (
            masked_events(seen, data, mask),
            None if validation is None else masked_events(seen, validation, None),
        )
    source = source_of(data, seen, like)
    unseen = None if validation is None else rows_of(validation, seen, like, source="validation")

    chosen = as_devices(devices)
    chosen.check(batch_size=settings.batch_size)
    if isinstance(source, DataLoader):
        check_shared(source, chosen.processes)
    job = _Fit(
        flow,
        trained,
        source,
        validation=unseen,
        settings=settings,
        augment=augment,
        initialize=initialize,
        folder=folder,
        resume=resume,
        watch=Watch(flow, callback_list(callbacks), "nll" if progress else ""),
    )
    return launch(chosen, job, module=trained)


@dataclass(frozen=True)
class _Fit:
    """A fit whose arguments are checked, as every process of the run carries it out."""

    flow: EquivariantFlow | AugmentedFlow
    trained: EquivariantFlow | VariationalFlow
    source: Rows | DataLoader[Any] | Sampler
    _: KW_ONLY
    validation: Rows | None
    settings: FitSettings
    augment: Augmentation | None
    initialize: bool
    folder: str | Path | None
    resume: bool
    watch: Watch

    def __call__(self, engine: Engine) -> FitResult:
        like = next(self.flow.parameters())
        with pyro.get_param_store().scope():
            result = run(
                self._trainer,
                engine=engine,
                settings=self.settings,
                device=like.device,
                identity=self._identity,
                folder=self.folder,
                resume=self.resume,
                watch=self.watch,
            )
        if self.validation is None:
            return result
        some = next(self.validation.blocks(256)).to(like)
        return replace(result, log_det_error=log_det_error(self.trained, some))

    def _trainer(self, engine: Engine) -> Trainer:
        objective = Likelihood(
            self.trained,
            self.source,
            settings=self.settings,
            augment=self.augment,
            validation=self.validation,
            initialize=self.initialize,
        )
        return Trainer(objective, settings=self.settings, engine=engine)

    def _identity(self) -> dict[str, Any]:
        like, validation = next(self.flow.parameters()), self.validation
        return run_identity(
            self.trained,
            self.settings,
            data=fingerprint(self.source, dtype=like.dtype),
            validation=None if validation is None else fingerprint(validation, dtype=like.dtype),
            **sampler_identity(self.source, self.settings, like.device, resume=self.resume),
        )


def _plain_flow(flow: EquivariantFlow | AugmentedFlow, where: str) -> EquivariantFlow:
    if not isinstance(flow, EquivariantFlow):
        raise TypeError(f"expected an EquivariantFlow where {where}, got {type(flow).__name__}")
    return flow


def _with_noise(flow: EquivariantFlow | AugmentedFlow, dequantize: VariationalDequantizer) -> DequantizedFlow:
    flow = _plain_flow(flow, "noise is learned too")
    if not isinstance(dequantize, VariationalDequantizer):
        raise TypeError(f"expected dequantize=g_dequantizer(action, scaling), got {type(dequantize).__name__}")
    own, other = (next(module.parameters()) for module in (flow, dequantize))
    if (own.dtype, own.device) != (other.dtype, other.device):
        raise ValueError(
            f"expected a dequantizer in the flow's {own.dtype} on {own.device}, got {other.dtype} on {other.device}; "
            "call .to(...) on it"
        )
    return DequantizedFlow(flow, dequantize)
