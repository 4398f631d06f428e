"""Endless minibatches whose position can be written down and taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Batches", "FreshDraws", "Sampler", "ShuffledEpochs", "fingerprint"]

Sampler = Callable[[int, torch.Generator], Tensor]


class Batches(Protocol):
    """An endless stream of minibatches; ``state`` and ``restore`` carry its position through a checkpoint."""

    batch_size: int
    generator: torch.Generator

    def next(self) -> Tensor: ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: dict[str, Tensor]) -> None: ...


class ShuffledEpochs:
    """Every row once an epoch, in a fresh order each time; an incomplete last batch is left out."""

    def __init__(self, data: Tensor, batch_size: int, generator: torch.Generator) -> None:
        self.data = data
        self.batch_size = min(batch_size, len(data))
        self.generator = generator
        self._order = torch.empty(0, dtype=torch.long)

    def next(self) -> Tensor:
        if len(self._order) < self.batch_size:
            self._order = torch.randperm(len(self.data), generator=self.generator)
        rows, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
        return self.data[rows.to(self.data.device)]

    def state(self) -> dict[str, Tensor]:
        return {"order": self._order, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._order = state["order"]
        self.generator.set_state(state["generator"])


class FreshDraws:
    """New events from a sampler at every step, as exact densities give them."""

    def __init__(self, sampler: Sampler, batch_size: int, generator: torch.Generator) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.generator = generator

    def next(self) -> Tensor:
        return self.sampler(self.batch_size, self.generator)

    def state(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])


def fingerprint(data: Tensor | Sampler) -> str:
    """Tells two data sets apart: shape and hash of a tensor, the repr or name of a sampler."""
    if isinstance(data, Tensor):
        digest = hashlib.sha256(data.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
        return f"{tuple(data.shape)} {data.dtype} {digest}"
    return getattr(data, "__qualname__", None) or repr(data)
