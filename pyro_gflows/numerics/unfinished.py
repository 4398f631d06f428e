"""The rows of a batch of equations x + f(x) = y that a solver still works on."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch
from pyro_gflows.numerics.counted import Counted
from pyro_gflows.numerics.transforms_active import anywhere, transforming

__all__ = ["Unfinished", "row_norm"]

# Rows that are done are left out when they are so many that an evaluation without them saves more than the copies cost.
_LARGEST_SHARE = 0.7
_LEAST_SAVED = 8


def row_norm(x: Tensor, event_dim: int, order: float = 2) -> Tensor:
    """The norm of each event, of the batch shape."""
    return torch.linalg.vector_norm(x.flatten(x.dim() - event_dim), order, dim=-1)


class Unfinished:
    """The points and residuals of a batch of equations, of which those that are done are set aside.

    A row is done if its residual is within the tolerance, or not finite. A row that is done does not change any more.
    If the branch has ``of_rows``, such as every :class:`~pyro_gflows.nn.Contraction`, a batch with many such rows is
    replaced by a smaller one with a single batch dimension.

    Args:
        counted: The branch; its ``f`` is replaced by the branch of the remaining rows.
        y: The right-hand side.
        x: The first points.
        residual: y - x - f(x).
        tolerance: The largest accepted max-norm of the residual, of the batch shape.
        event_dim: The number of event dimensions.
    """

    def __init__(
        self, counted: Counted, y: Tensor, x: Tensor, residual: Tensor, *, tolerance: Tensor, event_dim: int
    ) -> None:
        self.y, self.x, self.residual = y, x, residual
        self._counted, self._branch, self._tolerance, self._event_dim = counted, counted.f, tolerance, event_dim
        self._batch = tolerance.shape
        self._rows: Tensor | None = None  # the indices of the present rows in the whole batch, if some are set aside
        self._all_x, self._all_residual = x, residual
        self._active = self._unfinished()

    def remain(self, keep: Callable[[Tensor], None]) -> bool:
        """Whether any row is not done.

        Args:
            keep: Is called with the indices of the rows that stay in the batch, when the others are set aside.
        """
        self._active = self._unfinished()
        select = getattr(self._branch, "of_rows", None)
        if select is None or transforming():
            return anywhere(self._active)
        left, total = int(self._active.count_nonzero()), self._active.numel()
        if left == 0 or left > _LARGEST_SHARE * total or total - left < _LEAST_SAVED:
            return left > 0
        chosen = self._active.flatten().nonzero().squeeze(-1)
        rows = chosen if self._rows is None else self._rows.index_select(0, chosen)
        branch: DifferentiableBranch | None = select(self._batch, rows)
        if branch is not None:
            self._set_aside()
            self._counted.f, self._rows = branch, rows
            self.y, self.x, self.residual = (self._chosen(t, chosen) for t in (self.y, self.x, self.residual))
            self._tolerance = self._tolerance.flatten().index_select(0, chosen)
            self._active = self._active.flatten().index_select(0, chosen)
            keep(chosen)
        return True

    def update(self, x: Tensor, residual: Tensor) -> None:
        """Take the points after a step, in the rows that are not done.

        Args:
            x: The points.
            residual: Their residuals.
        """
        mask = self._active.reshape(self._active.shape + (1,) * self._event_dim)
        self.x, self.residual = torch.where(mask, x, self.x), torch.where(mask, residual, self.residual)

    def all_rows(self) -> tuple[Tensor, Tensor]:
        """The points and residuals of the whole batch."""
        self._set_aside()
        return self._all_x, self._all_residual

    def _unfinished(self) -> Tensor:
        norm = row_norm(self.residual, self._event_dim, math.inf)
        return norm.isfinite() & (norm > self._tolerance)

    def _chosen(self, x: Tensor, rows: Tensor) -> Tensor:
        return self._one_batch_dim(x).index_select(0, rows)

    def _one_batch_dim(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *x.shape[x.dim() - self._event_dim :])

    def _set_aside(self) -> None:
        if self._rows is None:
            self._all_x, self._all_residual = self.x, self.residual
            return
        self._all_x, self._all_residual = (
            self._one_batch_dim(whole).index_copy(0, self._rows, part).reshape(whole.shape)
            for whole, part in ((self._all_x, self.x), (self._all_residual, self.residual))
        )
