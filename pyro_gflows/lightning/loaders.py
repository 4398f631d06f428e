"""What the Trainer iterates over in place of a DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["OWN_VALIDATION", "Blocks", "NoEvents", "OwnBatch", "Steps"]


class OwnBatch:
    """Stands for a batch that the objective takes from its own data, or draws itself."""


class NoEvents:
    """Stands for the validation events of a process that has none; the Trainer would leave out its validation.

    The other processes would then wait for it.
    """


class Steps:
    """As many batches as an epoch of the Trainer has, each of which is taken when it is trained on.

    It is no DataLoader, so that the Trainer does not replace its sampler; and it has a length, so that the Trainer does
    not take batches ahead, and a checkpoint knows the position. The batches come from an endless stream whose position
    is stored elsewhere, so that it has no state of its own.

    Args:
        take: A function that returns the next batch.
        count: The number of batches in an epoch.
    """

    def __init__(self, take: Callable[[], Any], count: int) -> None:
        self._take = take
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._count):
            yield self._take()

    def state_dict(self) -> dict[str, Any]:
        """Returns no state, by which the Trainer knows that it may go on in the middle of an epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores no state.

        Args:
            state: Not used.
        """


class Blocks:
    """Validation events, which every pass reads anew.

    Args:
        read: A function that returns the blocks of events.
        count: The number of blocks.
    """

    def __init__(self, read: Callable[[], Iterable[Any]], count: int) -> None:
        self._read = read
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        yield from self._read()


OWN_VALIDATION = Blocks(lambda: [OwnBatch()], 1)
"""Stands for the validation events that an objective has itself; the Trainer warns of a module without any loader."""
