"""Transforms whose parameters are set from data before training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["DataDependentTransform", "leaving_alone_what_is_set", "mark_as_set"]


class DataDependentTransform(EquivariantTransform):
    r"""A transform whose own parameters ``initialize`` sets from data, so that its values are standardized.

    A subclass makes its parameters, all of them 0, and writes ``standardize(x)`` and ``standardize_inverse(y)``, which
    set them from events. Every call of ``initialize`` or ``initialize_inverse`` sets them anew, except in a layer with
    a frozen parameter (``requires_grad_(False)``) or without parameters, which stays as it is. A forward or inverse
    call never changes them.

    The layer counts as set (:attr:`is_set`) once ``initialize`` or a run of training has begun with it (the buffer
    ``initialized`` says so and is saved with the weights), where a parameter is not 0, and when it was loaded from a
    file that has no such buffer. :func:`pyro_gflows.training.fit` sets only the layers that are not set yet.

    Args:
        action: How the group acts on events, on both sides.

    Example:
        >>> from pyro_gflows import GActNorm, VectorAction
        >>> layer = GActNorm(VectorAction.plane("D4"))
        >>> before = layer.is_set
        >>> _ = layer.initialize(torch.randn(100, 2))
        >>> before, layer.is_set
        (False, True)
    """

    initialized: Tensor

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        self.register_buffer("initialized", torch.tensor(False))
        self._left_alone = False

    # -- what a subclass writes ---------------------------------------------------------------------------------------
    def standardize(self, x: Tensor) -> None:
        """Set the parameters so that T(x) has zero mean and unit scale; called without gradients."""
        raise NotImplementedError

    def standardize_inverse(self, y: Tensor) -> None:
        """Set the parameters so that T^{-1}(y) has zero mean and unit scale; called without gradients."""
        raise NotImplementedError

    # -- what is derived from it --------------------------------------------------------------------------------------
    @property
    def is_set(self) -> bool:
        """Whether the parameters come from data or from training, and not from the constructor."""
        return bool(self.initialized) or any(bool(p.count_nonzero()) for p in self._own())

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if self._begin():
            with torch.no_grad():
                self.standardize(x)
        return super().initialize(x, context)

    def initialize_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        if self._begin():
            with torch.no_grad():
                self.standardize_inverse(y)
        return super().initialize_inverse(y, context)

    def _begin(self) -> bool:
        """Whether the parameters are to be set now; the layer counts as set from here on."""
        if self._left_alone:
            return False
        self.initialized.fill_(True)
        own = self._own()
        return bool(own) and all(parameter.requires_grad for parameter in own)

    def _own(self) -> list[nn.Parameter]:
        return list(self.parameters(recurse=False))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        # A file without this buffer is of an earlier version, and holds trained weights; in a layer that is frozen as
        # the identity they are buffers.
        if any(prefix + name in state_dict for name in (*self._parameters, *self._buffers)):
            state_dict.setdefault(f"{prefix}initialized", torch.ones_like(self.initialized))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _data_dependent(module: nn.Module) -> list[DataDependentTransform]:
    return [part for part in module.modules() if isinstance(part, DataDependentTransform)]


@contextlib.contextmanager
def leaving_alone_what_is_set(module: nn.Module) -> Iterator[None]:
    """A context manager in which ``initialize`` does not change layers that are set already."""
    settled = [layer for layer in _data_dependent(module) if layer.is_set]
    for layer in settled:
        layer._left_alone = True
    try:
        yield
    finally:
        for layer in settled:
            layer._left_alone = False


def mark_as_set(module: nn.Module) -> None:
    """Make all layers of the module count as set, so that a later fit starts from the values that they have."""
    for layer in _data_dependent(module):
        layer.initialized.fill_(True)
