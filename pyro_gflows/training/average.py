"""The exponential moving average of a module's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage", "copy_weights", "weights"]


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A detached copy of all parameters, by name."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def copy_weights(source: Mapping[str, Tensor], module: nn.Module) -> None:
    """Copies parameters, by name, into a module."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(source[name])


class MovingAverage:
    """The exponential moving average of a module's weights, which is less noisy than the weights themselves.

    After every step the average m of a weight w becomes d m + (1 - d) w. The factor d rises from a small value to
    ``decay``, so that the first weights are soon forgotten.

    Args:
        module: The module with the weights.
        decay: The largest factor d. With None there is no average, and the weights themselves are used.
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self._module = module
        self._decay = decay
        self.values: dict[str, Tensor] = {} if decay is None else weights(module)

    def update(self, step: int) -> None:
        """Updates the average with the weights after step number ``step``, counted from 1."""
        if self._decay is None:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, parameter in self._module.named_parameters():
                self.values[name].lerp_(parameter, 1 - decay)

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Restores stored averages, by name."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """A context manager in which the module has the averages as its weights."""
        if self._decay is None:
            yield
            return
        own = weights(self._module)
        copy_weights(self.values, self._module)
        try:
            yield
        finally:
            copy_weights(own, self._module)
