"""The only cache: the last value a transform produced, for the score that follows a draw."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

__all__ = ["LastDraw"]


class LastDraw:
    """Remembers what a transform last produced, from what, and with which log-det, until it is used once.

    Sampling and then scoring the same tensor, as every SVI guide does, must not invert the transform. But a value may
    outlive an optimizer step, and nothing that torch keeps (version counters, identities) betrays every kind of step;
    so the weights themselves are compared with a copy taken when the value was made. The product is held weakly: when
    it is gone, so is the memory of it.
    """

    def __init__(self) -> None:
        self._product: weakref.ref[Tensor] | None = None
        self._source: Tensor | None = None
        self._ladj: Tensor | None = None
        self._weights: list[tuple[weakref.ref[Tensor], Tensor]] = []

    def drop(self, _: object = None) -> None:
        """Forget everything."""
        self._product = self._source = self._ladj = None
        self._weights = []

    def keep(self, module: nn.Module, source: Tensor, product: Tensor, ladj: Tensor) -> None:
        """Remember that ``module`` made ``product`` from ``source``; ``ladj`` is the forward log-det there."""
        self._product, self._source, self._ladj = weakref.ref(product, self.drop), source, ladj
        with torch.no_grad():  # cheaper than to detach each
            self._weights = [(weakref.ref(tensor), tensor.clone()) for tensor in _weights(module)]

    def source_of(self, module: nn.Module, product: Tensor) -> Tensor | None:
        """What this very tensor was made from, if it was made last and nothing has changed since."""
        if self._product is None or self._product() is not product or not self._valid(module, product):
            return None
        return self._source

    def take(self, module: nn.Module, first: Tensor, second: Tensor) -> Tensor | None:
        """The log-det of this very pair (source and product, in any order), if still valid; it is given out once."""
        product = None if self._product is None else self._product()
        known = product is not None and (
            (first is self._source and second is product) or (first is product and second is self._source)
        )
        ladj = self._ladj if known and product is not None and self._valid(module, product) else None
        self.drop()
        return ladj

    def _valid(self, module: nn.Module, product: Tensor) -> bool:
        now = _weights(module)
        if self._ladj is None or self._source is None or len(now) != len(self._weights):
            return False
        if torch.is_grad_enabled() and not self._ladj.requires_grad:
            if any(tensor.requires_grad for tensor in [self._source, product, *now]):
                return False  # made under no_grad: it would be scored without a gradient
        try:
            return all(
                old() is tensor and torch.equal(copy, tensor)
                for (old, copy), tensor in zip(self._weights, now, strict=True)
            )
        except RuntimeError:  # under vmap values cannot be compared, so nothing is reused
            return False


def _weights(module: nn.Module) -> list[Tensor]:
    # not module.parameters(): it makes names and looks for duplicates, which costs more than small layers themselves
    own = [*module._parameters.values(), *module._buffers.values()]
    tensors = [tensor for tensor in own if tensor is not None]
    for child in module.children():
        tensors += _weights(child)
    return tensors
