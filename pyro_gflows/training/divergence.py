"""The check of a step's loss and gradient before the optimizer takes it, and the weights that are trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from pyro_gflows.training.checkpoint import Progress
from pyro_gflows.training.objectives.base import FitDiverged, Objective
from pyro_gflows.training.settings import FitSettings

__all__ = ["check_step", "count_step", "trained_weights"]


def trained_weights(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient.

    Args:
        module: The module that is trained.

    Raises:
        ValueError: There are no weights, or all are frozen.
    """
    if next(module.parameters(), None) is None:
        raise ValueError(
            "expected a module with weights to train, got none; an ELBO finds those of lazy guides and of pyro.param "
            "in a first call, whose arguments are ELBO(model, guide, args=(x,))"
        )
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            "expected at least one weight that requires a gradient, but every weight is frozen; call "
            "requires_grad_(True) on the layers that are to be trained"
        )
    return parameters


def check_step(
    objective: Objective,
    settings: FitSettings,
    *,
    progress: Progress,
    loss: float,
    norm: float,
    gather: Callable[[Any], list[Any]],
) -> None:
    """Checks the loss and the gradient of a step before the optimizer takes it.

    Args:
        objective: The objective.
        settings: The settings of the run.
        progress: The steps that are done, and their losses.
        loss: The loss of the step, a mean over all processes.
        norm: The norm of the gradient.
        gather: A function that returns the values of all processes.

    Raises:
        FitDiverged: The loss or the gradient is not finite, or the loss is far above its first value.
    """
    step = progress.step
    fault = ""
    if not math.isfinite(loss):
        if known := next(filter(None, gather(objective.fault(step))), ""):
            raise FitDiverged(known)
        fault = f"the loss is {loss} at step {step}"
    else:
        progress.first_loss = loss if progress.first_loss is None else progress.first_loss
        smooth = loss if progress.smooth_loss is None else progress.smooth_loss
        if sign := objective.divergence(progress.first_loss, smooth):
            fault = f"{sign} by step {step}"
        elif not math.isfinite(norm):
            fault = f"the gradient has norm {norm} at step {step} (loss {loss:.4g})"
    if fault:
        advice = objective.remedy(settings.optimizer.lr, settings.optimizer.clip_norm)
        raise FitDiverged(f"training diverged: {fault}; {advice}")


def count_step(progress: Progress, loss: float) -> None:
    """Counts a step that the optimizer has taken.

    Args:
        progress: The steps that are done, and their losses.
        loss: The loss of the step.
    """
    progress.step += 1
    progress.smooth_loss = loss if progress.smooth_loss is None else 0.9 * progress.smooth_loss + 0.1 * loss
