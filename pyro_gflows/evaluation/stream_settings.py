"""How any number of events are scored or drawn in shards, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ScoreReport", "StreamSettings"]


@dataclass(frozen=True)
class StreamSettings:
    """How events are scored or drawn in shards.

    Args:
        shard_rows: The number of rows of a shard. Each shard has random draws of its own, so that neither the number of
            processes nor an interruption changes the result; another number of rows does where something is random.
        batch_size: The number of events that are scored at a time.
        seed: The seed of all random draws; the first shard has the seed itself.
        resume: Whether to go on with the shards that an earlier run has left, which must have had the same flow, data
            and settings.
        progress: Whether to show a progress bar, where the standard error is a terminal.

    Raises:
        ValueError: A number of rows is not positive.

    Example:
        >>> StreamSettings(shard_rows=1000).shards(2500)
        3
    """

    shard_rows: int = 2**17
    batch_size: int = 1024
    seed: int = 0
    resume: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("shard_rows", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"expected {name} >= 1, got {value!r}")

    def shards(self, rows: int) -> int:
        """The number of shards.

        Args:
            rows: The number of rows of all shards together.
        """
        return -(-rows // self.shard_rows)

    def rows(self, shard: int, count: int) -> range:
        """The numbers of the rows of a shard.

        Args:
            shard: The number of the shard.
            count: The number of rows of all shards together.
        """
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, count))


@dataclass(frozen=True)
class ScoreReport:
    """The result of :func:`score_rows`.

    Attributes:
        rows: The number of events.
        total: The sum of their log-densities in nats, added in float64 without loss of digits (``math.fsum``).
        shards: The number of shards.
        resumed: The number of shards that an earlier run had done.

    Example:
        >>> ScoreReport(rows=4, total=-6.0, shards=1).nll
        1.5
    """

    rows: int
    total: float
    shards: int
    resumed: int = 0

    @property
    def nll(self) -> float:
        """The mean negative log-density in nats."""
        return -self.total / self.rows
