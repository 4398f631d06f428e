"""Endless streams of minibatches whose position can be stored in a checkpoint and restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_gflows.datasets.array_rows import event_part, tensor_of
from pyro_gflows.datasets.orders import DrawnOrder, Order, is_drawn, new_order
from pyro_gflows.datasets.rows import Rows
from pyro_gflows.datasets.share import Share
from pyro_gflows.training.identity import name_of, repeated_values
from pyro_gflows.training.loader import LoaderBatches
from pyro_gflows.training.step_noise import StepNoise

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
    """An endless stream of minibatches, whose position ``state`` returns and ``restore`` sets.

    Of several processes each takes its share of the same global batches.

    Attributes:
        batch_size: The number of events in a global batch, of all processes together.
        generator: The random generator for augmentation, which differs between processes.
    """

    batch_size: int
    generator: torch.Generator

    def next(self, *, whole: bool = False) -> Tensor:
        """Return the next batch.

        Args:
            whole: Whether to return the global batch, the same in all processes, instead of this process's share; a
                loader and a sampler with a state have no such batch, and return the share.
        """

    def state(self) -> dict[str, Tensor]: ...

    def restore(self, state: dict[str, Tensor]) -> None: ...


class ShuffledEpochs:
    """Minibatches of stored rows: every row once per epoch, in a new random order, without an incomplete last batch.

    The position is the random state from which the order of the epoch was drawn, and the number of rows that are used.
    Every one of several processes knows the order of all rows and takes its share of each batch, so that a run can be
    resumed by another number of processes and sees the same rows.

    Args:
        data: The rows.
        batch_size: The number of rows in a batch of all processes together.
        seed: The seed of the orders, the same in all processes.
        share: Which of several processes this is.
    """

    def __init__(self, data: Rows, batch_size: int, seed: int, *, share: Share = Share()) -> None:
        self.data = data
        self.batch_size = min(batch_size, len(data))
        self._orders = torch.Generator().manual_seed(seed)
        self._noise = StepNoise(self._orders, share)
        self._share = share
        self._is_drawn = is_drawn(data)
        self._began: Tensor | None = None
        self._order: Order = DrawnOrder(torch.empty(0, dtype=torch.long))
        self._used = 0

    @property
    def generator(self) -> torch.Generator:
        """The random generator for augmentation."""
        return self._noise.generator

    def next(self, *, whole: bool = False) -> Tensor:
        if len(self._order) - self._used < self.batch_size:
            self._began, self._used = self._orders.get_state(), 0
            self._order = self._new_order(self._orders)
        part = slice(0, self.batch_size) if whole else self._share.of(self.batch_size)
        rows = self._order.rows(self._used + part.start, self._used + part.stop)
        self._used += self.batch_size
        self._noise.next(whole=whole)
        return self.data.take(rows)

    def state(self) -> dict[str, Tensor]:
        epoch = {} if self._began is None else {"epoch": self._began, "used": torch.tensor(self._used)}
        computed = {} if self._is_drawn else {"computed": torch.tensor(True)}
        return {"generator": self._orders.get_state(), **epoch, **computed, **self._noise.state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._orders.set_state(state["generator"])
        self._noise.restore(state)
        self._began = state.get("epoch")
        self._used = int(state["used"]) if "used" in state else 0
        self.take_kind_of(state)
        # the oldest files hold the rest of the order itself
        self._order = DrawnOrder(state.get("order", torch.empty(0, dtype=torch.long)))
        if self._began is not None:
            generator = torch.Generator()
            generator.set_state(self._began)
            self._order = self._new_order(generator)

    def take_kind_of(self, state: dict[str, Tensor]) -> None:
        """Draw orders as a whole from here on, as older runs did, or compute them, as an earlier run did.

        Args:
            state: The state of the earlier run.
        """
        self._is_drawn = "computed" not in state

    def _new_order(self, generator: torch.Generator) -> Order:
        return new_order(self.data, generator, drawn=self._is_drawn)


class FreshDraws:
    """Minibatches of fresh events from a sampler, such as an exact density.

    One of several processes draws its share of a batch from a generator that is seeded anew at every step, by the seed
    of the run, the step and the process. A run that is resumed by another number of processes therefore goes on with
    other draws, and by the same number with the same ones.

    Args:
        sampler: The sampler.
        batch_size: The number of events in a batch of all processes together.
        seed: The seed of the random generator for the sampler, the same in all processes.
        share: Which of several processes this is.
    """

    def __init__(self, sampler: Sampler, batch_size: int, seed: int, *, share: Share = Share()) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self._share = share
        self._noise = StepNoise(torch.Generator().manual_seed(seed), share)

    @property
    def generator(self) -> torch.Generator:
        """The random generator for augmentation."""
        return self._noise.generator

    def next(self, *, whole: bool = False) -> Tensor:
        if whole and self._share.size > 1 and not isinstance(self.sampler, StatefulSampler):
            return self._of_all_processes()
        self._noise.next()
        return self.sampler(self._share.count(self.batch_size), self.generator)

    def _of_all_processes(self) -> Tensor:
        """What all processes together would draw in this step, in every process."""
        shares = [Share(rank, self._share.size) for rank in range(self._share.size)]
        drawn = [self.sampler(share.count(self.batch_size), self._noise.of(share.rank)) for share in shares]
        self._noise.next(whole=True)
        return torch.cat([event_part(part) for part in drawn])

    def state(self) -> dict[str, Tensor]:
        own = self.sampler.state() if isinstance(self.sampler, StatefulSampler) else {}
        parts = {f"sampler/{name}": value for name, value in own.items()}
        return {"generator": self._noise.origin.get_state(), **parts, **self._noise.state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._noise.origin.set_state(state["generator"])
        self._noise.restore(state)
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
    """The stream of minibatches from stored rows, from a loader (with its own batches), or from a sampler.

    Args:
        data: The rows, the loader or the sampler.
        batch_size: The number of events in a batch of all processes together.
        seed: The seed, the same in all processes.
        share: Which of several processes this is.

    Raises:
        ValueError: Several processes would see the same rows of a loader.
    """
    if isinstance(data, DataLoader):
        return LoaderBatches(data, seed, share=share)
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
