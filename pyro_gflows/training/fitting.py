"""Maximum likelihood: Pyro's loss, one torch optimizer, and runs that can be stopped and taken up again."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_gflows.datasets.checks import check_rows
from pyro_gflows.datasets.rows import Rows, TensorRows, as_rows
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.evaluation.estimation_error import log_det_error
from pyro_gflows.flows.dequantization import DequantizedFlow, VariationalDequantizer
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.numerics.precision import full_precision, refuse_low
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.batches import Sampler, hidden_state
from pyro_gflows.training.callbacks import Callback, callback_list
from pyro_gflows.training.identity import fingerprint, run_identity
from pyro_gflows.training.loop import FitResult, Watch, run
from pyro_gflows.training.objectives.base import FitDiverged
from pyro_gflows.training.objectives.likelihood import Likelihood
from pyro_gflows.training.settings import FitSettings
from pyro_gflows.training.trainer import Trainer

__all__ = ["FitDiverged", "FitResult", "fit"]


@renamed_arguments(dequantise="dequantize")
@full_precision
def fit(
    flow: EquivariantFlow,
    data: Tensor | np.ndarray | Dataset[Any] | DataLoader[Any] | Sampler,
    *,
    settings: FitSettings | None = None,
    validation: Tensor | np.ndarray | Dataset[Any] | DataLoader[Any] | None = None,
    augment: Augmentation | None = None,
    dequantize: VariationalDequantizer | None = None,
    initialize: bool = False,
    callbacks: Callback | Sequence[Callback] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Fit a flow to data by maximum likelihood, in place.

    Minimizes -E log p(x) with Pyro's ``Trace_ELBO().differentiable_loss`` and one torch optimizer, so that gradient
    clipping is over all parameters together. Starts by setting from the first batch the data-dependent layers
    (GActNorm, GOrbitNorm) that are not set yet: a layer that was initialized, trained in whatever way, or loaded with
    such weights goes on from where it is. All randomness comes from the seed of the settings; the caller's generators
    and parameter store are left as they were. With a ``folder``, a checkpoint is replaced atomically every so often; a
    run that was killed and resumed ends, on the CPU and with the same number of threads, in exactly the weights of an
    unbroken one. Ctrl-C finishes the step, leaves a checkpoint and then raises ``KeyboardInterrupt``.

    Two things are warned of at the start: data that do not fill the space (a subspace, a sphere, angles), where the
    likelihood of a density on R^n has no bound; and a few hundred rows that contradict the flow's symmetry
    (:func:`check_symmetry` says more), but not with ``augment``, which may well be what makes the data symmetric. Both
    look at tensors and arrays; of a ``Dataset``, a ``DataLoader`` or a sampler the first one sees the first batch, the
    second one nothing.
    Inside ``torch.autocast`` it trains without it.

    Args:
        flow: The flow; its device and dtype are used.
        data: Events of any floating dtype, shape (rows,) + event_shape: a tensor or an array, which may be
            memory-mapped and is never copied as a whole; a torch ``Dataset`` of events, or of tuples whose first
            entry is one; a ``DataLoader``, whose own batches are then the steps' (of its order, that which torch's
            generators decide can be resumed); or a sampler ``(n, generator) -> events`` called at every step, such as
            an exact :class:`~pyro_gflows.targets.Density`. A sampler that has a state has methods ``state()``, which
            gives it as tensors by name, and ``restore(state)``.
        settings: Steps, batch size, seed, optimizer, schedule and so on (default: ``FitSettings()``).
        validation: Held-out events, for early stopping and the reported NLL.
        augment: Called as ``augment(x, generator)`` on every batch.
        dequantize: Noise of images that is trained together with the flow, in place. What is minimized and reported
            is then the bound of -log P(levels) in nats, as of :class:`DequantizedFlow`; of the data's own noise nothing
            is used but to set the flow's scales at the start.
        initialize: Set all data-dependent layers from the first batch, also those that are set already, as
            ``flow.initialize`` does; for a flow that is to start anew on data of another scale. A layer with a frozen
            parameter is left alone in any case. A resumed run goes on from its checkpoint, whatever this says.
        callbacks: One function, or several, called as ``callback(step, losses, flow)`` after every step, with the
            number of steps done, losses in nats an event (``"train"``, and ``"validation"`` when it was measured) and
            the flow as it is then (not averaged). Returning True stops the run, as early stopping does; random
            numbers drawn in a callback leave the run as it is.
        folder: Where checkpoints go; None keeps none.
        resume: Go on from the folder's checkpoint. A run that has ended goes on to a larger number of steps if the
            settings have one and are otherwise the same; its schedule is then read over the new number.
        progress: Show a progress bar with NLL and throughput.

    Raises:
        ValueError: A flow without weights or with all of them frozen, data of the wrong shape, not finite or too
            large for the flow's dtype, a folder that is not writable, a checkpoint that is missing, unreadable or of
            another run, a sampler to be resumed that has a state but does not give it; all before any training.
        TypeError: Data that are not floating-point, or arguments of another kind.
        RuntimeError: This is one of several processes, as torchrun starts them.
        FitDiverged: NaN or a diverged loss; the flow is put back to the last good snapshot, which stays on disk too.

    Example:
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction
        >>> from pyro_gflows.targets import density
        >>> from pyro_gflows.transforms import g_radial
        >>> action = VectorAction.plane("O(2)")
        >>> flow = EquivariantFlow(InvariantNormal(action), [g_radial(action)])
        >>> fit(flow, density("rings"), settings=FitSettings(steps=3), progress=False).steps
        3
    """
    if not isinstance(flow, EquivariantFlow):
        raise TypeError(f"expected an EquivariantFlow, got {type(flow).__name__}")
    like = next(flow.parameters(), None)
    if like is None:
        raise ValueError(f"expected a flow with weights to fit, got none in {flow}")
    refuse_low(like, "weights")
    settings = settings or FitSettings()
    if not isinstance(settings, FitSettings):
        raise TypeError(f"expected settings=FitSettings(...), got {type(settings).__name__}")
    if settings.validation.patience is not None and validation is None:
        raise ValueError("early stopping needs validation data: give validation=..., or Validation(patience=None)")
    trained = flow if dequantize is None else _with_noise(flow, dequantize)
    if not any(weight.requires_grad for weight in trained.parameters()):
        raise ValueError(
            "expected weights to fit, but each of the flow's is frozen "
            f"({sum(1 for _ in trained.parameters())} tensors); "
            "call requires_grad_(True) on the layers that are to be trained"
        )
    source = _source(data, flow, like)
    unseen = None if validation is None else _rows(validation, flow, like, source="validation")

    def identity() -> dict[str, Any]:
        return run_identity(
            trained,
            settings,
            data=fingerprint(source, dtype=like.dtype),
            validation=None if unseen is None else fingerprint(unseen, dtype=like.dtype),
            **_of_sampler(source, settings, like.device, resume=resume),
        )

    with pyro.get_param_store().scope():
        result = run(
            lambda: Trainer(
                Likelihood(
                    trained, source, settings=settings, augment=augment, validation=unseen, initialize=initialize
                ),
                settings=settings,
            ),
            settings=settings,
            device=like.device,
            identity=identity,
            folder=folder,
            resume=resume,
            watch=Watch(flow, callback_list(callbacks), "nll" if progress else ""),
        )
    if unseen is None:
        return result
    some = next(unseen.blocks(256)).to(like)
    return replace(result, log_det_error=log_det_error(trained, some))


def _source(data: Any, flow: EquivariantFlow, like: Tensor) -> Rows | DataLoader[Any] | Sampler:
    """What the batches come from."""
    if isinstance(data, DataLoader) or (callable(data) and not isinstance(data, Dataset)):
        return data
    return _rows(data, flow, like, source="data")


def _rows(data: Any, flow: EquivariantFlow, like: Tensor, *, source: str) -> Rows:
    rows = check_rows(
        as_rows(data, source=source), event_shape=flow.action.event_shape, source=source, dtype=like.dtype
    )
    if isinstance(rows, TensorRows) and rows.data.device != like.device:
        return TensorRows(rows.data.to(like))  # to another device in one piece, as a copy is needed there in any case
    return rows


def _of_sampler(sampler: Any, settings: FitSettings, device: torch.device, *, resume: bool) -> dict[str, Any]:
    """What a sampler says of itself, such as the target of ``OwnDraws``; one that cannot be resumed is found out."""
    if isinstance(sampler, DataLoader) or not callable(sampler):
        return {}
    problem = hidden_state(sampler, settings.batch_size, device)
    if problem is not None and resume:
        raise ValueError(f"cannot resume: {problem}")
    if problem is not None:
        warnings.warn(f"this run cannot be resumed: {problem}", stacklevel=5)
    identity = getattr(sampler, "identity", None)
    return {"sampler": identity()} if callable(identity) else {}


def _with_noise(flow: EquivariantFlow, dequantize: VariationalDequantizer) -> DequantizedFlow:
    if not isinstance(dequantize, VariationalDequantizer):
        raise TypeError(f"expected dequantize=g_dequantizer(action, scaling), got {type(dequantize).__name__}")
    own, other = (next(module.parameters()) for module in (flow, dequantize))
    if (own.dtype, own.device) != (other.dtype, other.device):
        raise ValueError(
            f"expected a dequantizer in the flow's {own.dtype} on {own.device}, got {other.dtype} on {other.device}; "
            "call .to(...) on it"
        )
    return DequantizedFlow(flow, dequantize)
