"""The part of a global batch, or of all rows, that one of several processes takes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Share"]


@dataclass(frozen=True)
class Share:
    """The part of the rows that one of several processes takes, so that all processes together take every row once.

    Every process knows the whole order of the rows and takes its own slice of it, so that neither the order nor the
    mean loss of a global batch depends on the number of processes.

    Args:
        rank: The number of this process, from 0.
        size: The number of processes.

    Raises:
        ValueError: ``rank`` is not in [0, size).

    Example:
        >>> [Share(rank, 3).of(8) for rank in range(3)]
        [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"expected a rank in [0, size), got rank {self.rank} of {self.size} processes")

    def of(self, count: int) -> slice:
        """The slice of ``count`` rows that belongs to this process; slices of two processes differ by at most one row.

        Args:
            count: The number of rows of all processes together.
        """
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def count(self, count: int) -> int:
        """The number of rows in :meth:`of`.

        Args:
            count: The number of rows of all processes together.
        """
        part = self.of(count)
        return int(part.stop) - int(part.start)
