"""Anderson acceleration of the Banach iteration for x + f(x) = y."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch
from pyro_gflows.numerics.safeguarded import SafeguardedSolver, SafeguardedSteps
from pyro_gflows.numerics.solvers import Steps, row_norm
from pyro_gflows.serialization.registry import registered

__all__ = ["AndersonSolver"]

_MEMORY = 16  # changes; most calls end before they have so many
_DEPENDENT = 0.5  # the power of eps below which what is left of a change is not worth its rounding errors


@registered
class AndersonSolver(SafeguardedSolver):
    r"""The Banach iteration with Anderson acceleration, for contractions of any size: the default above 3 components.

    It takes one evaluation of f in a step, like :class:`BanachSolver`, and needs about 10 steps where the Banach
    iteration takes 40 to 150 because the Lipschitz constant is close to 1. Each event remembers how its residual r
    changed in the last 16 steps, and takes from its Banach step what these changes explain:

    .. math:: x \leftarrow x + r - \sum_i \gamma_i\,(\Delta x_i + \Delta r_i), \qquad
        \gamma = \arg\min \Big|r - \sum_i \gamma_i\,\Delta r_i\Big|

    The changes :math:`\Delta r_i` are made orthonormal as they come. So :math:`\gamma_i` is the inner product of
    :math:`\Delta r_i` and r, and rounding errors stay small. If a step does not shrink the Euclidean residual of the
    event at least as much as the Lipschitz bound promises for a Banach step, the event returns to the point before it,
    forgets the earlier changes, and takes the Banach step. So the method converges wherever the Banach iteration does,
    with at most twice as many evaluations.

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

    def _steps(self) -> Steps:
        return _Accelerated(self)


class _Accelerated(SafeguardedSteps):
    """The steps of one call, with a memory of the last changes for each row.

    Changes of the residual are kept as orthonormal vectors, and beside each the combination of the changes of x + r
    that belongs to it. A change that depends on the others up to rounding is kept as zeros, which have no effect.
    """

    _memory: Tensor | None = None  # (rows, changes, 2 components): changes of r, and of x + r beside them

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        flat = _one_batch_dim(residual, event_dim)
        if self._memory is None:
            self.refused = torch.ones(len(flat), dtype=torch.bool, device=flat.device)  # the first is a Banach step
        move = flat - self._correction(flat)
        following = x + move.reshape(x.shape)
        following_residual = y - following - f(following)
        flat_following = _one_batch_dim(following_residual, event_dim)
        accepted = self.accepted(flat, flat_following, event_dim=1, lipschitz=lipschitz)
        change = flat_following - flat
        self._remember(change, move + change, row_norm(flat, 1))
        mask = accepted.reshape(x.shape[: x.dim() - event_dim] + (1,) * event_dim)
        return torch.where(mask, following, x), torch.where(mask, following_residual, residual)

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        if self._memory is not None:
            self._memory = self._memory.index_select(0, rows)

    def _correction(self, residual: Tensor) -> Tensor:
        """What the remembered changes explain of the Banach step."""
        if self._memory is None:
            return torch.zeros_like(residual)
        changes, images = self._memory.chunk(2, -1)
        weights = torch.where(self.refused[:, None, None], 0, changes @ residual.unsqueeze(-1))
        return (weights.mT @ images).squeeze(-2)

    def _remember(self, change: Tensor, image: Tensor, scale: Tensor) -> None:
        size = change.shape[-1]
        both, kept = torch.cat([change, image], -1), self._memory
        if kept is not None:
            # the oldest changes go first: the new one may lie in the space that they leave
            kept = torch.where(
                self.refused[:, None, None], 0, kept[:, max(0, kept.shape[1] + 1 - min(_MEMORY, size)) :]
            )
            both = both - ((kept[..., :size] @ change.unsqueeze(-1)).mT @ kept).squeeze(-2)
        left = row_norm(both[:, :size], 1)
        # a comparison with NaN is false, so that a change that is not finite is not remembered
        usable = (left > torch.finfo(left.dtype).eps ** _DEPENDENT * scale) & left.isfinite()
        both = torch.where(usable[:, None], both / left[:, None], 0).unsqueeze(1)
        self._memory = both if kept is None else torch.cat([kept, both], 1)


def _one_batch_dim(x: Tensor, event_dim: int) -> Tensor:
    """A batch of events as a matrix, one row for each."""
    return x.reshape(math.prod(x.shape[: x.dim() - event_dim]), -1)
