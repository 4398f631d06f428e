"""How the settings of a training are written in the files of results, so that a run is known again."""

from __future__ import annotations

from pyro_gflows.training import FitSettings

__all__ = ["training_text"]


def training_text(settings: FitSettings) -> str:
    """The settings as the files of results have them.

    The words are those of the files and stay what they are, whatever the package calls its settings: a run in a file is
    the one that is asked for if these texts agree. The seed is a label of its own, so it is 0 here.
    """
    validation = settings.validation
    values = {
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "seed": 0,
        "optimizer": settings.optimizer,
        "schedule": settings.schedule,
        "ema_decay": settings.ema_decay,
        "held_out": f"HeldOut(every={validation.every}, patience={validation.patience})",
        "checkpoint_every": settings.checkpoint_every,
    }
    return f"FitSettings({', '.join(f'{name}={value}' for name, value in values.items())})"
