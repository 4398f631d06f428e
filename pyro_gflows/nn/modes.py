"""A context in which a module is in evaluation mode, after which every submodule has its former mode again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["evaluating"]


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context in which a module is in evaluation mode and no gradient is recorded.

    Afterwards every submodule has its former mode again. A submodule that was in ``eval()`` by itself, inside a module
    in training mode, is in ``eval()`` afterwards as well.

    Args:
        module: A flow, or any module.

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
        module.train(module.training)  # a change of mode clears what transforms remember of their last draw
        for part, training in before:
            part.training = training
