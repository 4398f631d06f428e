"""Endless streams of minibatches whose position can be stored in a checkpoint and restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_gflows.datasets.rows import Rows, random_order, tensor_of
from pyro_gflows.datasets.share import Share
from pyro_gflows.numerics.random_state import seed_of_rank
from pyro_gflows.training.identity import name_of, repeated_values
from pyro_gflows.training.loader import LoaderBatches

__all__ = ["Batches", "FreshDraws", "Sampler", "ShuffledEpochs", "StatefulSampler", "batches_of", "hidden_state"]

#: A function that draws fresh events: from their count n and a random generator to a tensor with n rows.
Sampler = Callable[[int, torch.Generator], Tensor]


@runtime_checkable
class StatefulSampler(Protocol):
    """A sampler of events with its own state, which checkpoints store; :class:`OwnDraws` is one.

    A sampler whose draws depend only on the random generator needs no state and is a plain function.

    Example:
        >>> class Counter:
        ...     def __init__(self):
        ...         self.count = torch.tensor(0.0)
        ...     def __call__(self, n, generator):
        ...         self.count = self.count + 1
        ...         return self.count * torch.ones(n, 2)
        ...     def state(self):
        ...         return {"count": self.count}
        ...     def restore(self, state):
        ...         self.count = state["count"]
        >>> isinstance(Counter(), StatefulSampler)
        True
    """

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        """Returns n fresh events.

        Args:
            n: The number of events.
            generator: The random generator to draw from.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Returns the state as tensors by name."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores the state.

        Args:
            state: The tensors of :meth:`state`, by name.
        """
        ...


class Batches(Protocol):
    """An endless stream of minibatches, whose position ``state`` returns and ``restore`` sets."""

    batch_size: int
    generator: torch.Generator

    def next(self, *, whole: bool = False) -> Tensor: ...

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: dict[str, Tensor]) -> None: ...


class ShuffledEpochs:
    """Minibatches of stored rows: every row once per epoch, in a new random order, without an incomplete last batch.

    The position is the random state from which the order of the epoch was drawn, and the number of rows that are used.

    Args:
        data: The rows.
        batch_size: The number of rows in a batch.
        generator: The random generator of the orders.
    """

    def __init__(self, data: Rows, batch_size: int, seed: int, *, share: Share = Share()) -> None:
        generator = self._orders = torch.Generator().manual_seed(seed)
        if share.rank:
            generator = torch.Generator().manual_seed(seed_of_rank(seed, share.rank))
        self.share = share
        self.data = data
        self.batch_size = min(batch_size, len(data))
        self.generator = generator
        self._began: Tensor | None = None
        self._order = torch.empty(0, dtype=torch.long)
        self._used = 0

    def next(self, *, whole: bool = False) -> Tensor:
        if len(self._order) - self._used < self.batch_size:
            self._began, self._used = self._orders.get_state(), 0
            self._order = random_order(len(self.data), self._orders)
        rows = self._order[self._used : self._used + self.batch_size]
        self._used += self.batch_size
        if not whole:
            rows = rows[self.share.of(len(rows))]
        return self.data.take(rows.long())

    def state(self) -> dict[str, Tensor]:
        epoch = {} if self._began is None else {"epoch": self._began, "used": torch.tensor(self._used)}
        return {"generator": self._orders.get_state(), **epoch}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._orders.set_state(state["generator"])
        self._began = state.get("epoch")
        self._used = int(state["used"]) if "used" in state else 0
        # older files hold the rest of the order itself
        self._order = state.get("order", torch.empty(0, dtype=torch.long))
        if self._began is not None:
            generator = torch.Generator()
            generator.set_state(self._began)
            self._order = random_order(len(self.data), generator)


class FreshDraws:
    """Minibatches of fresh events from a sampler, such as an exact density.

    Args:
        sampler: The sampler.
        batch_size: The number of events in a batch.
        generator: The random generator for the sampler.
    """

    def __init__(self, sampler: Sampler, batch_size: int, seed: int, *, share: Share = Share()) -> None:
        self.share, generator = share, torch.Generator().manual_seed(seed_of_rank(seed, share.rank))
        self.sampler = sampler
        self.batch_size = batch_size
        self.generator = generator

    def next(self, *, whole: bool = False) -> Tensor:
        return self.sampler(self.share.count(self.batch_size), self.generator)

    def state(self) -> dict[str, Tensor]:
        own = self.sampler.state() if isinstance(self.sampler, StatefulSampler) else {}
        return {"generator": self.generator.get_state(), **{f"sampler/{name}": value for name, value in own.items()}}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        if isinstance(self.sampler, StatefulSampler):
            parts = {name.removeprefix("sampler/"): value for name, value in state.items() if "/" in name}
            if not parts:
                raise ValueError(
                    f"the checkpoint holds no state of the sampler {self.sampler!r}, since an older version wrote it; "
                    "start a new run in another folder"
                )
            self.sampler.restore(parts)


def batches_of(
    data: Rows | DataLoader[Any] | Sampler, batch_size: int, seed: int, *, share: Share = Share()
) -> ShuffledEpochs | FreshDraws | LoaderBatches:
    """The stream of minibatches from stored rows, from a loader (with its own batches), or from a sampler."""
    if isinstance(data, DataLoader):
        return LoaderBatches(data, torch.Generator().manual_seed(seed_of_rank(seed, share.rank)))
    if callable(data):
        return FreshDraws(data, batch_size, seed, share=share)
    return ShuffledEpochs(data, batch_size, seed, share=share)


def hidden_state(sampler: Sampler, n: int, device: torch.device) -> str | None:
    """Returns an error message if a sampler gives different events in two calls from the same random state, else None.

    The draws of such a sampler depend on a state that is not stored in checkpoints, so a run with it cannot be resumed.
    A :class:`StatefulSampler` is allowed to do so.

    Args:
        sampler: The sampler.
        n: The number of events to draw.
        device: The device whose random state is restored between the calls.
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
        "state that is not stored in checkpoints; add methods state() -> tensors by name and restore(state) to it, or "
        "let it draw from the generator in its arguments"
    )
