"""An endless stream of the batches of a torch DataLoader."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from pyro_gflows.datasets.array_rows import event_part
from pyro_gflows.datasets.share import Share
from pyro_gflows.numerics.random_state import random_state_kept, seed_of_rank
from pyro_gflows.training.step_noise import StepNoise

__all__ = ["LoaderBatches", "check_different", "check_shared"]

_SAME_EVERYWHERE = (RandomSampler, SequentialSampler)
_INSTEAD = (
    "pass the Dataset itself, whose rows fit deals out to the processes, or give the DataLoader a "
    "DistributedSampler(dataset, num_replicas={size}, rank=...)"
)


class LoaderBatches:
    """The batches of a ``DataLoader`` in its own order, over as many passes as needed.

    The position is the random state at the start of the pass and the number of batches since then. To restore it, these
    batches are read once more; their order is the same if torch's generators determine it.

    With several processes, each has a loader of its own, with a ``DistributedSampler`` that gives it other rows than
    the other processes; a global batch is one batch of each. The sampler is told which process this is, and the number
    of the pass at the start of each (``set_epoch``). The position is the numbers of passes and batches.

    Args:
        loader: The loader.
        seed: The seed of the random generator for augmentation, the same in all processes.
        share: Which of several processes this is.

    Raises:
        ValueError: Several processes would see the same rows (see :func:`check_shared`).
    """

    def __init__(self, loader: DataLoader[Any], seed: int, *, share: Share = Share()) -> None:
        check_shared(loader, share.size)
        self.loader = loader
        own = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1
        self.batch_size: int = own * share.size
        self._share = share
        self._seed = seed
        self._noise = StepNoise(torch.Generator().manual_seed(seed), share)
        self._sampler = _sampler_of(loader) if share.size > 1 else None
        if isinstance(self._sampler, DistributedSampler):
            self._sampler.rank = share.rank
        self._pass: Iterator[Any] | None = None
        self._passes = 0
        self._used = 0
        self._began: dict[str, Tensor] = {}

    @property
    def generator(self) -> torch.Generator:
        """The random generator for augmentation."""
        return self._noise.generator

    def next(self, *, whole: bool = False) -> Tensor:
        """Return the next batch of this process.

        Args:
            whole: Ignored, since a process has no access to the batches of the others.
        """
        for _ in range(2):
            if self._pass is None:
                self._began, self._used = self._random_state(), 0
                self._pass = self._new_pass()
                self._passes += 1
            batch = next(self._pass, None)
            if batch is not None:
                self._used += 1
                self._noise.next()
                return event_part(batch)
            self._pass = None
        raise ValueError(
            "expected a DataLoader with batches of events, got none; a dataset that is an iterator can be read only "
            "once, so pass one that can be read again"
        )

    def state(self) -> dict[str, Tensor]:
        used = {"used": torch.tensor(self._used)} if self._pass is not None else {}
        processes = {"passes": torch.tensor(self._passes), "processes": torch.tensor(self._share.size)}
        return {"generator": self._noise.origin.get_state(), **used, **self._began, **processes, **self._noise.state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore the position.

        Args:
            state: The tensors of :meth:`state`, by name.

        Raises:
            ValueError: Another number of processes wrote it.
        """
        size = int(state.get("processes", torch.tensor(1)))
        if size != self._share.size:
            raise ValueError(
                f"cannot resume: the run was on {size} processes and is now on {self._share.size}, and the rows of a "
                f"DataLoader's batches depend on their number; resume on {size}, or start a new run in another folder "
                "with the Dataset itself, whose runs resume on any number of processes"
            )
        self._noise.origin.set_state(state["generator"])
        self._noise.restore(state)
        self._passes = int(state.get("passes", torch.tensor(0)))
        self._pass = None
        if "used" not in state:
            return
        self._began = {name: state[name] for name in ("pass", "pass_loader") if name in state}
        self._used = int(state["used"])
        if self._began:
            torch.set_rng_state(self._began["pass"])
            own = getattr(self.loader, "generator", None)
            if own is not None and "pass_loader" in self._began:
                own.set_state(self._began["pass_loader"])
        self._passes = max(0, self._passes - 1)
        self._pass = self._new_pass()
        self._passes += 1
        for _ in range(self._used):
            next(self._pass)

    def _new_pass(self) -> Iterator[Any]:
        if self._share.size == 1:
            return iter(self.loader)
        if isinstance(self._sampler, DistributedSampler):
            self._sampler.set_epoch(self._passes)
        seed = seed_of_rank(self._seed, self._share.rank, self._share.size, self._passes, 1)
        own = getattr(self.loader, "generator", None)
        if own is not None:
            own.manual_seed(seed)
        with random_state_kept(torch.device("cpu"), seed=seed):
            batches = iter(self.loader)
            first = list(itertools.islice(batches, 1))  # a sampler draws its order when it is first asked
        return itertools.chain(first, batches)

    def _random_state(self) -> dict[str, Tensor]:
        if self._share.size > 1:
            return {}  # the number of the pass determines it
        own = getattr(self.loader, "generator", None)
        return {"pass": torch.get_rng_state(), **({} if own is None else {"pass_loader": own.get_state()})}


def check_shared(loader: DataLoader[Any], size: int) -> None:
    """Check, as far as its type tells, that several processes with the same loader see different rows.

    A loader with a sampler of the user's own, or of a stream, may know by itself which process it is in; its first
    batches are compared when the processes run (:func:`check_different`).

    Args:
        loader: The loader.
        size: The number of processes.

    Raises:
        ValueError: All processes would see the same rows, or the loader's ``DistributedSampler`` is for another number
            of processes.

    Example:
        >>> check_shared(DataLoader([1.0, 2.0], shuffle=True), 2)
        Traceback (most recent call last):
        ...
        ValueError: all 2 processes would see the same rows of this DataLoader: pass the Dataset itself, ...
    """
    if size == 1:
        return
    sampler = _sampler_of(loader)
    if isinstance(sampler, _SAME_EVERYWHERE) and not isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            f"all {size} processes would see the same rows of this DataLoader: {_INSTEAD.format(size=size)}"
        )
    replicas = getattr(sampler, "num_replicas", size)
    if replicas != size:
        raise ValueError(
            f"expected a {type(sampler).__name__} for {size} processes, got one for num_replicas={replicas}: "
            f"{_INSTEAD.format(size=size)}"
        )


def check_different(first_batches: Sequence[Tensor]) -> None:
    """Check that the first batches of several processes differ, where nothing else tells that their rows do.

    Args:
        first_batches: The first batch of each process, or its first rows.

    Raises:
        ValueError: Two of them are the same.

    Example:
        >>> check_different([torch.zeros(2), torch.ones(2)])
    """
    for rank, batch in enumerate(first_batches):
        for other in range(rank):
            if batch.shape == first_batches[other].shape and torch.equal(batch, first_batches[other]):
                raise ValueError(
                    f"processes {other} and {rank} see the same rows of this DataLoader: "
                    f"{_INSTEAD.format(size=len(first_batches))}"
                )


def _sampler_of(loader: DataLoader[Any]) -> Any:
    """What picks the rows of a loader: the sampler, or the one inside of a batch sampler."""
    batches = loader.batch_sampler
    return loader.sampler if batches is None else getattr(batches, "sampler", batches)
