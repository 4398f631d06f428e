"""Checks that a run by the Trainer can be what the settings say."""

from __future__ import annotations

from pyro_gflows.training.settings import FitSettings

__all__ = ["check_precision", "check_settings"]

_PRECISIONS = ("32-true", "64-true", "bf16-mixed")


def check_settings(settings: FitSettings) -> None:
    """Refuses settings that ask for what a callback of Lightning does.

    Args:
        settings: The settings of the run.

    Raises:
        ValueError: They ask for an average of the weights, or for early stopping.
    """
    if settings.ema_decay is not None:
        raise ValueError(
            "expected ema_decay=None, since averages of weights are a callback of the Trainer: pass "
            f"Trainer(callbacks=[lightning.pytorch.callbacks.EMAWeightAveraging(decay={settings.ema_decay})])"
        )
    if settings.validation.patience is not None:
        raise ValueError(
            "expected Validation(patience=None), since early stopping is a callback of the Trainer: pass "
            f'Trainer(callbacks=[EarlyStopping("validation_nll", patience={settings.validation.patience})]), and '
            'ModelCheckpoint(monitor="validation_nll") for the best weights'
        )


def check_precision(precision: str) -> None:
    """Refuses half precision.

    Args:
        precision: The precision of the Trainer.

    Raises:
        ValueError: A log-det has too few digits in it, or it scales gradients.
    """
    if precision not in _PRECISIONS:
        raise ValueError(
            f"expected Trainer(precision=...) to be one of {', '.join(_PRECISIONS)}, got {precision!r}; half precision "
            "has too few digits for a log-det or an exact symmetry"
        )
