"""The rows that a model's minibatched plates hold in one run, and sets of runs that together cover all rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Minibatch", "cover", "random_minibatch"]


@dataclass(frozen=True)
class Minibatch:
    """The rows of each minibatched plate in one run of a model, and the factors of the run's log-probabilities.

    Attributes:
        rows: For each plate, the indices of its rows.
        weights: For each plate, a factor for the log-probability of each of its rows; a missing plate has the factor 1.
        shares: For each plate, a factor for the log-probabilities of sites outside the plate.
    """

    rows: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The factor for the log-probability of a site outside all minibatched plates."""
        return math.prod(self.shares.values())

    def weighed(self, site: Any) -> Tensor:
        """The log-probabilities of a site, multiplied by their factors.

        Args:
            site: A scored site of a trace.
        """
        score: Tensor = site["log_prob"]
        frames = {frame.name: frame for frame in site["cond_indep_stack"]}
        for plate, weights in self.weights.items():
            frame = frames.get(plate)
            if frame is None:
                score = score * self.shares[plate]
            elif frame.vectorized:
                score = score * weights.to(score).reshape(-1, *[1] * (-frame.dim - 1))
            else:  # the model loops over the plate: one site for each row, counted from 1
                score = score * weights[frame.counter - 1].to(score)
        return score


def random_minibatch(plates: Mapping[str, Any]) -> Minibatch:
    """A minibatch of rows as Pyro draws them.

    Args:
        plates: For each minibatched plate, the distribution of its rows.
    """
    return Minibatch(rows={name: rows.sample() for name, rows in plates.items()})


def cover(plates: Mapping[str, Any]) -> Iterator[Minibatch]:
    """Minibatches whose weighted log-probabilities add up to the log-joint of all rows of all plates.

    A plate of N rows is covered by windows of its minibatch size B. The last window may overlap the window before it,
    and the rows in both then count half each time. The weights also undo the factor N / B by which Pyro scales the
    log-probabilities of a minibatch. A site outside the plate occurs in every window and is divided by their number.

    Args:
        plates: For each minibatched plate, the distribution of its rows.

    Example:
        >>> from pyro.poutine.subsample_messenger import _Subsample
        >>> [batch.rows["data"].tolist() for batch in cover({"data": _Subsample(5, 2)})]
        [[0, 1], [2, 3], [3, 4]]
    """
    windows = {name: _windows(rows.size, rows.subsample_size, rows.device) for name, rows in plates.items()}
    for chosen in itertools.product(*windows.values()):
        yield Minibatch(
            rows={name: rows for name, (rows, _) in zip(windows, chosen, strict=True)},
            weights={name: weights for name, (_, weights) in zip(windows, chosen, strict=True)},
            shares={name: 1.0 / len(parts) for name, parts in windows.items()},
        )


def _windows(size: int, length: int, device: Any) -> list[tuple[Tensor, Tensor]]:
    starts = [min(index * length, size - length) for index in range(math.ceil(size / length))]
    rows = [torch.arange(start, start + length, device=device) for start in starts]
    seen = torch.bincount(torch.cat(rows), minlength=size)
    return [(part, (length / size) / seen[part].double()) for part in rows]
