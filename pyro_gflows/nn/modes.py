"""Evaluation mode for a while, after which every layer is in the mode in which it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["evaluating"]


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, for a while; then every submodule is in its own mode again.

    A layer that was in ``eval()`` by itself, inside a module in training, is so afterwards.

    Args:
        module: a flow, or any module that holds some.

    Example:
        >>> pair = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).eval())
        >>> with evaluating(pair):
        ...     print([layer.training for layer in pair])
        [False, False]
        >>> [layer.training for layer in pair]
        [True, False]
    """
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(module.training)  # a transform forgets at a change of mode what it drew in the other one
        for part, training in before:
            part.training = training
