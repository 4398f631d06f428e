"""Endless minibatches whose position can be written down and taken up again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_gflows.datasets.rows import Rows, random_order, tensor_of
from pyro_gflows.training.identity import name_of, repeated_values
from pyro_gflows.training.loader import LoaderBatches

__all__ = ["Batches", "FreshDraws", "Sampler", "ShuffledEpochs", "StatefulSampler", "batches_of", "hidden_state"]

#: Draws fresh events: from their count and a random generator, a tensor whose first dimension is the count.
Sampler = Callable[[int, torch.Generator], Tensor]


@runtime_checkable
class StatefulSampler(Protocol):
    """A sampler with a state of its own, which a checkpoint carries; ``OwnDraws`` is one.

    ``state`` gives the state as tensors by name, and ``restore`` takes it up.
    """

    def __call__(self, n: int, generator: torch.Generator) -> Tensor: ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: dict[str, Tensor]) -> None: ...


class Batches(Protocol):
    """An endless stream of minibatches; ``state`` and ``restore`` carry its position through a checkpoint."""

    batch_size: int
    generator: torch.Generator

    def next(self) -> Tensor: ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: dict[str, Tensor]) -> None: ...


class ShuffledEpochs:
    """Every row once an epoch, in a fresh order each time; an incomplete last batch is left out.

    A position is the random state from which the epoch's order was drawn, and how much of it is used.
    """

    def __init__(self, data: Rows, batch_size: int, generator: torch.Generator) -> None:
        self.data = data
        self.batch_size = min(batch_size, len(data))
        self.generator = generator
        self._began: Tensor | None = None
        self._order = torch.empty(0, dtype=torch.long)
        self._used = 0

    def next(self) -> Tensor:
        if len(self._order) - self._used < self.batch_size:
            self._began, self._used = self.generator.get_state(), 0
            self._order = random_order(len(self.data), self.generator)
        rows = self._order[self._used : self._used + self.batch_size]
        self._used += self.batch_size
        return self.data.take(rows.long())

    def state(self) -> dict[str, Tensor]:
        epoch = {} if self._began is None else {"epoch": self._began, "used": torch.tensor(self._used)}
        return {"generator": self.generator.get_state(), **epoch}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        self._began = state.get("epoch")
        self._used = int(state["used"]) if "used" in state else 0
        # older files hold what is left of the order itself
        self._order = state.get("order", torch.empty(0, dtype=torch.long))
        if self._began is not None:
            generator = torch.Generator()
            generator.set_state(self._began)
            self._order = random_order(len(self.data), generator)


class FreshDraws:
    """New events from a sampler at every step, as exact densities give them."""

    def __init__(self, sampler: Sampler, batch_size: int, generator: torch.Generator) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.generator = generator

    def next(self) -> Tensor:
        return self.sampler(self.batch_size, self.generator)

    def state(self) -> dict[str, Tensor]:
        own = self.sampler.state() if isinstance(self.sampler, StatefulSampler) else {}
        return {"generator": self.generator.get_state(), **{f"sampler/{name}": value for name, value in own.items()}}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        if isinstance(self.sampler, StatefulSampler):
            parts = {name.removeprefix("sampler/"): value for name, value in state.items() if "/" in name}
            if not parts:
                raise ValueError(
                    f"the checkpoint holds no state of the sampler {self.sampler!r}: it was written by an older "
                    "version; start anew in another folder"
                )
            self.sampler.restore(parts)


def batches_of(
    data: Rows | DataLoader[Any] | Sampler, batch_size: int, generator: torch.Generator
) -> ShuffledEpochs | FreshDraws | LoaderBatches:
    """The stream of minibatches of stored rows, of a loader (in its own batches), or of a sampler."""
    if isinstance(data, DataLoader):
        return LoaderBatches(data, generator)
    if callable(data):
        return FreshDraws(data, batch_size, generator)
    return ShuffledEpochs(data, batch_size, generator)


def hidden_state(sampler: Sampler, n: int, device: torch.device) -> str | None:
    """What is wrong with a sampler that gives different events in two calls from the same random state, or None.

    A sampler whose state is carried in checkpoints may do so.
    """
    if isinstance(sampler, StatefulSampler):
        return None

    def draw() -> Tensor:
        events: Any = sampler(n, torch.Generator().manual_seed(20))
        return tensor_of(events) if isinstance(events, np.ndarray) else torch.as_tensor(events)

    if repeated_values(draw, device) is not None:
        return None
    return (
        f"the sampler {name_of(sampler)} gave different events in two calls from the same random state, so it has a "
        "state that a checkpoint does not hold; give it methods state() -> tensors by name and restore(state), or let "
        "it draw from the generator that it is given"
    )
