"""Which rows of its minibatched plates a model sees in one run, and runs that together see each row once."""

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
    """The rows of each minibatched plate in one run of a model, and how much the terms of this run count.

    Attributes:
        rows: for each plate, the indices of its rows.
        weights: for each plate, a factor for the term of each of its rows; no entry is a factor of 1.
        shares: for each plate, a factor for the terms that stand outside of it.
    """

    rows: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The factor for a term that stands outside of all these plates."""
        return math.prod(self.shares.values())

    def weighed(self, site: Any) -> Tensor:
        """The log-probabilities of a site, each times the factors that it has here."""
        score: Tensor = site["log_prob"]
        frames = {frame.name: frame for frame in site["cond_indep_stack"]}
        for plate, weights in self.weights.items():
            frame = frames.get(plate)
            if frame is None:
                score = score * self.shares[plate]
            elif frame.vectorized:
                score = score * weights.to(score).reshape(-1, *[1] * (-frame.dim - 1))
            else:  # a plate that the model loops over: one site for each row, counted from 1
                score = score * weights[frame.counter - 1].to(score)
        return score


def random_minibatch(plates: Mapping[str, Any]) -> Minibatch:
    """Rows of each plate as Pyro draws them.

    Args:
        plates: for each minibatched plate, the distribution of its rows.
    """
    return Minibatch(rows={name: rows.sample() for name, rows in plates.items()})


def cover(plates: Mapping[str, Any]) -> Iterator[Minibatch]:
    """Minibatches whose weighed terms add up to those of a run on all rows of all plates.

    A plate of N rows takes windows of the size B of its minibatch; the last one overlaps the one before, and rows that
    are seen twice count half each time. Pyro scales terms by N / B, which the weights undo. Terms outside of a plate
    occur in every window, and count that much less.

    Args:
        plates: for each minibatched plate, the distribution of its rows.

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
