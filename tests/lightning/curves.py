"""Runs of the Trainer that tests compare, in one process or in two."""

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from pyro_gflows.lightning import FlowData, FlowModule
from pyro_gflows.training import Adam, FitSettings, Validation
from tests.small_flows import points, small_flow

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
SETTINGS = FitSettings(steps=20, batch_size=61, validation=Validation(every=7), optimizer=Adam(lr=1e-2, clip_norm=1.0))
TRAIN, VALIDATION = points(301), points(1500, seed=1)  # 4 batches in an epoch, and two uneven blocks of validation


class Curve(Callback):
    """The losses that were logged, and the rows of each batch; writes a checkpoint after a step, on request."""

    def __init__(self, save_at=None, path=None):
        self.train, self.validation, self.rows = [], [], []
        self._save_at, self._path = save_at, path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.train.append((trainer.global_step, float(trainer.callback_metrics["train"])))
        self.rows.append(batch.double().sum().item() if isinstance(batch, torch.Tensor) else None)
        if trainer.global_step == self._save_at:
            trainer.save_checkpoint(self._path)

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking and "validation_nll" in trainer.callback_metrics:
            self.validation.append((trainer.global_step, float(trainer.callback_metrics["validation_nll"])))


def trained(flow=None, *, settings=SETTINGS, data=TRAIN, validation=VALIDATION, curve=None, checkpoint=None, **options):
    """The curve and the flow of a run by the Trainer."""
    flow, curve = flow or small_flow(), curve or Curve()
    every = {"val_check_interval": settings.validation.every, "check_val_every_n_epoch": None}
    steps = getattr(flow, "settings", settings).steps
    options = {**QUIET, "enable_checkpointing": False, **every, "max_steps": steps, **options}
    options["callbacks"] = [curve, *options.get("callbacks", [])]
    module = FlowModule(flow, settings=getattr(flow, "settings", settings))
    given = None if data is None else FlowData(data, validation)
    lightning.Trainer(**options).fit(module, datamodule=given, ckpt_path=checkpoint)
    return curve, flow


def same_weights(flow, other, *, tolerance=0.0):
    pairs = zip(flow.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=0.0, atol=tolerance) for a, b in pairs)
