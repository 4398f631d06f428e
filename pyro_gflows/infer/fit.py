"""Maximum likelihood: Pyro's loss, one torch optimizer, and runs that can be stopped and taken up again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
from torch import Tensor

from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.infer.augment import Augmentation
from pyro_gflows.infer.dequantise import DequantisedFlow, VariationalDequantiser
from pyro_gflows.infer.likelihood import LikelihoodTrainer
from pyro_gflows.infer.log_det_error import log_det_error
from pyro_gflows.infer.symmetry_check import warn_of_contradictions
from pyro_gflows.infer.training.batches import Sampler, fingerprint
from pyro_gflows.infer.training.data import check_data
from pyro_gflows.infer.training.run import FitResult, run, run_identity
from pyro_gflows.infer.training.settings import FitSettings
from pyro_gflows.infer.training.trainer import FitDiverged
from pyro_gflows.precision import full_precision, refuse_low

__all__ = ["FitDiverged", "FitResult", "fit"]


@full_precision
def fit(
    flow: EquivariantFlow,
    data: Tensor | np.ndarray | Sampler,
    *,
    settings: FitSettings | None = None,
    validation: Tensor | None = None,
    augment: Augmentation | None = None,
    dequantise: VariationalDequantiser | None = None,
    initialize: bool = False,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Fit a flow to data by maximum likelihood, in place.

    Minimises -E log p(x) with Pyro's ``Trace_ELBO().differentiable_loss`` and one torch optimizer, so that gradient
    clipping is over all parameters together. Starts by setting from the first batch the data-dependent layers
    (GActNorm, GOrbitNorm) that are not set yet: a layer that was initialized, trained in whatever way, or loaded with
    such weights goes on from where it is. All randomness comes from the seed of the settings; the caller's generators
    and parameter store are left as they were. With a ``folder``, a checkpoint is replaced atomically every so often; a
    run that was killed and resumed ends, on the CPU and with the same number of threads, in exactly the weights of an
    unbroken one. Ctrl-C finishes the step, leaves a checkpoint and then raises ``KeyboardInterrupt``. Warns where a few
    hundred rows of the data contradict the flow's symmetry (:func:`check_symmetry` says more); not with ``augment``,
    which may well be what makes the data symmetric.

    Inside ``torch.autocast`` it trains without it.

    Args:
        flow: The flow; its device and dtype are used.
        data: Events, shape (rows,) + event_shape, or a sampler ``(n, generator) -> events`` called at every step, such
            as an exact :class:`~pyro_gflows.datasets.Density`.
        settings: Steps, batch size, seed, optimizer, schedule and so on (default: ``FitSettings()``).
        validation: Held-out events, for early stopping and the reported NLL.
        augment: Called as ``augment(x, generator)`` on every batch.
        dequantise: Noise of images that is trained together with the flow, in place. What is minimised and reported
            is then the bound of -log P(levels) in nats, as of :class:`DequantisedFlow`; of the data's own noise nothing
            is used but to set the flow's scales at the start.
        initialize: Set all data-dependent layers from the first batch, also those that are set already, as
            ``flow.initialize`` does; for a flow that is to start anew on data of another scale. A layer with a frozen
            parameter is left alone in any case. A resumed run goes on from its checkpoint, whatever this says.
        folder: Where checkpoints go; None keeps none.
        resume: Go on from the folder's checkpoint.
        progress: Show a progress bar with NLL and throughput.

    Raises:
        ValueError: A flow without weights, data of the wrong shape or not finite, a folder that is not writable, a
            checkpoint that is missing, unreadable or of another run; all before any training.
        TypeError: Data that are not floating-point, or arguments of another kind.
        RuntimeError: This is one of several processes, as torchrun starts them.
        FitDiverged: NaN or a diverged loss; the flow is put back to the last good snapshot, which stays on disk too.

    Example:
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction
        >>> from pyro_gflows.datasets import density
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
    if settings.held_out.patience is not None and validation is None:
        raise ValueError("early stopping needs held-out data: give validation=..., or HeldOut(patience=None)")
    trained = flow if dequantise is None else _with_noise(flow, dequantise)
    shape = flow.action.event_shape
    if not callable(data):
        data = check_data(data, event_shape=shape, source="data").to(like)
    if validation is not None:
        validation = check_data(validation, event_shape=shape, source="validation").to(like)
    held_out = None if validation is None else fingerprint(validation)
    if settings.check_symmetry and isinstance(data, Tensor) and augment is None and not resume:
        warn_of_contradictions(flow.action, data, seed=settings.seed)
    with pyro.get_param_store().scope():
        result = run(
            lambda: LikelihoodTrainer(
                trained, data, settings=settings, augment=augment, validation=validation, initialize=initialize
            ),
            settings=settings,
            device=like.device,
            identity=run_identity(trained, settings, data=fingerprint(data), validation=held_out),
            folder=folder,
            resume=resume,
            show="nll" if progress else "",
        )
    return result if validation is None else replace(result, log_det_error=log_det_error(trained, validation))


def _with_noise(flow: EquivariantFlow, dequantise: VariationalDequantiser) -> DequantisedFlow:
    if not isinstance(dequantise, VariationalDequantiser):
        raise TypeError(f"expected dequantise=g_dequantiser(action, scaling), got {type(dequantise).__name__}")
    own, other = (next(module.parameters()) for module in (flow, dequantise))
    if (own.dtype, own.device) != (other.dtype, other.device):
        raise ValueError(
            f"expected a dequantiser in the flow's {own.dtype} on {own.device}, got {other.dtype} on {other.device}; "
            "call .to(...) on it"
        )
    return DequantisedFlow(flow, dequantise)
