"""Stand-in until RowsAction is there."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_gflows.actions import VectorAction

__all__ = ["Rows", "RowsLayout"]


@dataclass(frozen=True)
class Rows:
    even: tuple[Tensor, ...]
    odd: tuple[Tensor, ...]
    rest: Tensor


@dataclass(frozen=True)
class RowsLayout:
    sizes: tuple[int, ...]
    even: tuple[VectorAction | None, ...]
    odd: tuple[VectorAction | None, ...]
    rest: VectorAction | None
    mean_free_even: tuple[Tensor, ...]
    mean_free_odd: tuple[Tensor, ...]
