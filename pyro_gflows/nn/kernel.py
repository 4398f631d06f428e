"""Layers whose kernel is computed from free weights, and a way to compute it once for many uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pyro_gflows.numerics.precision import full_precision

__all__ = ["KernelLayer", "LipschitzLayer", "kernels_once"]


class KernelLayer(nn.Module):
    """A linear layer that applies ``kernel()``, which a subclass computes from its weights in ``_make_kernel``."""

    _kept: Tensor | None = None
    _keeps = False

    def _make_kernel(self) -> Tensor:
        raise NotImplementedError

    @full_precision  # a norm that was rounded up is no bound
    def kernel(self) -> Tensor:
        """The kernel: computed anew at every call, but for calls inside ``kernels_once``."""
        if not self._keeps:
            return self._make_kernel()
        if self._kept is None or (torch.is_grad_enabled() and not self._kept.requires_grad):
            self._kept = self._make_kernel()
        return self._kept


class LipschitzLayer(KernelLayer):
    """A linear layer whose Lipschitz constant stays below ``bound`` for all weights."""

    bound: float

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant, as the weights are now."""
        raise NotImplementedError


@contextlib.contextmanager
def kernels_once(module: nn.Module) -> Iterator[None]:
    """Inside, every KernelLayer of ``module`` computes its kernel at most once.

    For evaluations of one branch at one moment (a value and its Jacobian, the steps of a solver): a kernel with a
    certified norm costs more than its use. Nothing is kept afterwards, so no weight can go stale; in inference mode,
    whose tensors autograd refuses, nothing is kept at all.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, KernelLayer) and not layer._keeps]
    if torch.is_inference_mode_enabled():
        layers = []
    try:
        for layer in layers:
            layer._keeps = True
        yield
    finally:
        for layer in layers:
            layer._keeps, layer._kept = False, None
