"""What a user's own function sees after every step of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.numerics.random_state import random_state_kept

__all__ = ["Callback", "ask", "callback_list"]

Callback = Callable[[int, dict[str, float], Any], "bool | None"]
"""Called as ``callback(step, losses, flow)`` after every step; True stops the run."""


def callback_list(given: Callback | Sequence[Callback] | None) -> list[Callback]:
    """The callbacks as a list.

    Raises:
        TypeError: Something that cannot be called.
    """
    callbacks = [] if given is None else [given] if callable(given) else list(given)
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(
                f"expected callbacks=f or [f, ...] with functions f(step, losses, flow), got {type(callback).__name__}"
            )
    return callbacks


def ask(callbacks: Sequence[Callback], step: int, losses: dict[str, float], flow: Any, *, device: torch.device) -> bool:
    """Call all of them; whether any one wants the run to stop.

    What they draw from torch's generators does not change the run.

    Raises:
        TypeError: A callback gave something other than None or a truth value.
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
