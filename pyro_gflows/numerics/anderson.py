"""Anderson acceleration of the Banach iteration for x + f(x) = y."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch
from pyro_gflows.numerics.solvers import Solver, Steps, row_norm
from pyro_gflows.serialization.registry import registered

__all__ = ["AndersonSolver"]

_MEMORY = 5
_DEPENDENT = 0.5  # the power of eps below which what is left of a change is not worth its rounding errors


@registered
class AndersonSolver(Solver):
    r"""The Banach iteration with Anderson acceleration, for contractions of any size: the default above 3 components.

    It takes one evaluation of f in a step, like :class:`BanachSolver`, and needs about 10 steps where the Banach
    iteration takes 40 to 150 because the Lipschitz constant is close to 1. Each event remembers how its residual r
    changed in the last 5 steps, and takes from its Banach step what these changes explain:

    .. math:: x \leftarrow x + r - \sum_i \gamma_i\,(\Delta x_i + \Delta r_i), \qquad
        \gamma = \arg\min \Big|r - \sum_i \gamma_i\,\Delta r_i\Big|

    The changes :math:`\Delta r_i` are made orthonormal as they come, so that the least-squares problem has the solution
    :math:`\gamma_i = \langle \Delta r_i, r\rangle`, and rounding errors stay small. If a step does not shrink the Euclidean residual of the event at
    least as much as the Lipschitz bound promises for a Banach step, the event returns to the point before it and takes
    the Banach step. So the method converges wherever the Banach iteration does, with at most twice as many evaluations.

    Args:
        tolerance: The largest accepted residual, as for :class:`Solver`.
        max_iterations: The largest number of steps, as for :class:`Solver`.
        strict: Whether to raise above the tolerance, as for :class:`Solver`.

    Source: Anderson (1965), Iterative procedures for nonlinear integral equations; the orthonormal form is the
    truncated GCR method of He, Tang, Saad et al., arXiv:2210.15813.

    Example:
        >>> y = torch.ones(3, 5, dtype=torch.float64)
        >>> root, report = AndersonSolver()(lambda x: 0.9 * x.sin(), y, 1, lipschitz=0.9)
        >>> bool((root + 0.9 * root.sin() - y).abs().max() < 1e-12), report.evaluations < 15
        (True, True)
    """

    steps_per_banach_step = 2  # one that is refused, and the Banach step after it

    def steps(self) -> Steps:
        return _Accelerated(self)

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        return self.steps().step(f, y, x, residual, event_dim=event_dim, lipschitz=lipschitz)


class _Accelerated(Steps):
    """The steps of one call, with a memory of the last changes for each row.

    Changes of the residual are kept as orthonormal vectors, and beside each the combination of the changes of x + r
    that belongs to it. A change that depends on the others up to rounding is kept as zeros, which have no effect.
    """

    _residuals: Tensor | None = None  # (rows, memory, components)
    _images: Tensor
    _refused: Tensor  # the rows whose last step was refused

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        batch = x.shape[: x.dim() - event_dim]
        following = x + (residual if self._residuals is None else self._accelerated(residual))
        following_residual = y - following - f(following)
        accepted = row_norm(following_residual, event_dim) <= min(lipschitz, 1.0) * row_norm(residual, event_dim)
        if self._residuals is None:
            accepted = torch.ones_like(accepted)  # this was a Banach step
        else:
            accepted = accepted | self._refused.reshape(batch)
        change = following_residual - residual
        self._remember(_flat(change, event_dim), _flat(following - x + change, event_dim))
        self._refused = ~accepted.flatten()
        mask = accepted.reshape(batch + (1,) * event_dim)
        return torch.where(mask, following, x), torch.where(mask, following_residual, residual)

    def keep(self, rows: Tensor) -> None:
        if self._residuals is not None:
            self._residuals, self._images = self._residuals.index_select(0, rows), self._images.index_select(0, rows)
            self._refused = self._refused.index_select(0, rows)

    def _accelerated(self, residual: Tensor) -> Tensor:
        """The step of each row: the residual itself, which is the Banach step, where the last step was refused."""
        assert self._residuals is not None
        flat = residual.reshape(len(self._refused), -1)
        weights = torch.where(self._refused[:, None], 0, _products(self._residuals, flat))
        return (flat - _combined(self._images, weights)).reshape(residual.shape)

    def _remember(self, change: Tensor, image: Tensor) -> None:
        size = torch.linalg.vector_norm(change, dim=-1)
        if self._residuals is not None:
            # the oldest changes go first: the new one may lie in the space that they leave
            kept = min(_MEMORY, change.shape[-1]) - 1
            self._residuals, self._images = (x[:, max(0, x.shape[1] - kept) :] for x in (self._residuals, self._images))
            for _ in range(2):  # a second time for what rounding has left
                weights = _products(self._residuals, change)
                change = change - _combined(self._residuals, weights)
                image = image - _combined(self._images, weights)
        left = torch.linalg.vector_norm(change, dim=-1)
        # a comparison with NaN is false, so that a change that is not finite is not remembered
        usable = (left > torch.finfo(left.dtype).eps ** _DEPENDENT * size) & left.isfinite()
        change, image = (torch.where(usable[:, None], x / left[:, None], 0).unsqueeze(1) for x in (change, image))
        if self._residuals is None:
            self._residuals, self._images = change, image
            return
        self._residuals = torch.cat([self._residuals, change], 1)
        self._images = torch.cat([self._images, image], 1)


def _flat(x: Tensor, event_dim: int) -> Tensor:
    """A batch of events as a matrix, one row for each."""
    return x.flatten(x.dim() - event_dim).reshape(-1, x[(0,) * (x.dim() - event_dim)].numel())


def _products(vectors: Tensor, x: Tensor) -> Tensor:
    """The inner products of x with each of the vectors of its row."""
    return (vectors @ x.unsqueeze(-1)).squeeze(-1)


def _combined(vectors: Tensor, weights: Tensor) -> Tensor:
    """The sum of the vectors of a row, each times its weight."""
    return (weights.unsqueeze(-2) @ vectors).squeeze(-2)
