"""Functions of the user that are called after every training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.numerics.random_state import random_state_kept

__all__ = ["Callback", "ask", "callback_list"]

Callback = Callable[[int, dict[str, float], Any], "bool | None"]
"""A function ``callback(step, losses, flow)`` that is called after every step and stops the run by returning True."""


def callback_list(callbacks: Callback | Sequence[Callback] | None) -> list[Callback]:
    """The callbacks as a list.

    Args:
        callbacks: One callback, several, or None.

    Raises:
        TypeError: A callback cannot be called.
    """
    callbacks = [] if callbacks is None else [callbacks] if callable(callbacks) else list(callbacks)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(
                f"expected callbacks=f or [f, ...] with functions f(step, losses, flow), got {type(callback).__name__}"
            )
    return callbacks


def ask(callbacks: Sequence[Callback], step: int, losses: dict[str, float], flow: Any, *, device: torch.device) -> bool:
    """Calls all callbacks and returns whether one of them stops the run.

    Random draws in a callback do not change the run, since torch's random state is restored.

    Args:
        callbacks: The callbacks.
        step: The number of steps that are done.
        losses: The losses of the step, in nats per event.
        flow: The flow that is trained.
        device: The device whose random state is restored.

    Raises:
        TypeError: A callback returned something other than None or a truth value.
    """
    if not callbacks:
        return False
    stop = False
    with random_state_kept(device):
        for callback in callbacks:
            answer: Any = callback(step, dict(losses), flow)
            truth = isinstance(answer, (bool, np.bool_))
            if isinstance(answer, Tensor) and answer.numel() == 1 and answer.dtype == torch.bool:
                truth = True
            if answer is not None and not truth:
                raise TypeError(
                    f"expected a callback to return None, or True to stop the run, got {type(answer).__name__} from "
                    f"{getattr(callback, '__qualname__', callback)!r}"
                )
            stop = stop or bool(answer)
    return stop
