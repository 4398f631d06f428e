"""Training, validation and test parts of a data set: disjoint, and the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Splits", "random_splits", "stratified_rows"]


@dataclass(frozen=True)
class Splits:
    """Three disjoint parts of a data set, each of shape (rows,) + event_shape.

    Attributes:
        train: Events to train on.
        validation: Events for early stopping.
        test: Events for the reported figures.

    Example:
        >>> parts = random_splits(torch.randn(50, 2))
        >>> len(parts.train), len(parts.validation), len(parts.test)
        (40, 5, 5)
    """

    train: Tensor
    validation: Tensor
    test: Tensor


def stratified_rows(labels: Tensor, *, parts: Sequence[float], seed: int = 0) -> list[Tensor]:
    """Split rows at random into disjoint parts that have the same share of every label.

    Args:
        labels: One integer label a row, shape (n,).
        parts: The fraction of the rows in each part; positive, with the sum one. A label with few rows may be missing
            in a small part.
        seed: The seed of the shuffle.

    Returns:
        A sorted tensor of row indices for each part; every row is in exactly one part.

    Raises:
        ValueError: If a fraction is not positive, or if the fractions do not sum to one.

    Example:
        >>> [len(rows) for rows in stratified_rows(torch.zeros(10), parts=(0.7, 0.1, 0.2))]
        [7, 1, 2]
    """
    if min(parts) <= 0 or abs(sum(parts) - 1) > 1e-9:
        raise ValueError(f"expected positive fractions that sum to 1, got {tuple(parts)}; for example (0.8, 0.1, 0.1)")
    generator = torch.Generator().manual_seed(seed)
    dealt: list[list[Tensor]] = [[] for _ in parts]
    for label in labels.unique():
        rows = torch.nonzero(labels == label).squeeze(-1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        ends = [0] + [round(len(rows) * sum(parts[: k + 1])) for k in range(len(parts))]
        for k, part in enumerate(dealt):
            part.append(rows[ends[k] : ends[k + 1]])
    return [torch.cat(part).sort().values for part in dealt]


def random_splits(x: Tensor, *, seed: int = 0) -> Splits:
    """Split rows at random: 80 % to train, 10 % for validation, 10 % to test.

    Args:
        x: Events, shape (rows,) + event_shape.
        seed: The seed of the shuffle.

    Raises:
        ValueError: If there are fewer than 10 rows, so that a part would be empty.

    Example:
        >>> random_splits(torch.arange(10.0).unsqueeze(-1)).train.shape
        torch.Size([8, 1])
    """
    if len(x) < 10:
        raise ValueError(f"expected at least 10 rows to split into train, validation and test, got {len(x)}")
    one_label = torch.zeros(len(x), dtype=torch.long)
    train, validation, test = stratified_rows(one_label, parts=(0.8, 0.1, 0.1), seed=seed)
    return Splits(train=x[train], validation=x[validation], test=x[test])
