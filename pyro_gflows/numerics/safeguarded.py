"""Steps that fall back to the Banach step where they do not shrink the residual."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch
from pyro_gflows.numerics.solvers import Solver, Steps, row_norm

__all__ = ["SafeguardedSolver", "SafeguardedSteps"]


class SafeguardedSolver(Solver):
    """The base class of solvers whose steps remember something, and which converge wherever the Banach iteration does.

    A step that does not shrink the Euclidean residual of a row at least as much as the Lipschitz bound promises for a
    Banach step is refused: the row returns to the point before it, and takes the Banach step.
    """

    steps_per_banach_step = 2  # one that is refused, and the Banach step after it

    @abstractmethod
    def _steps(self) -> Steps:
        """The steps of one call, usually :class:`SafeguardedSteps`."""

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        return self._steps().step(f, y, x, residual, event_dim=event_dim, lipschitz=lipschitz)


class SafeguardedSteps(Steps):
    """The steps of one call, which know the rows whose last step was refused.

    Attributes:
        refused: These rows, of the batch shape, which take the Banach step next; a subclass sets it before the first.
    """

    refused: Tensor

    def accepted(self, residual: Tensor, following_residual: Tensor, *, event_dim: int, lipschitz: float) -> Tensor:
        """The rows whose step is taken, of the batch shape; notes the others as refused.

        Args:
            residual: The residual before the step.
            following_residual: The residual after it; a row with NaN is refused, since a comparison with it is false.
            event_dim: The number of event dimensions.
            lipschitz: An upper bound of the Lipschitz constant.
        """
        after, before = row_norm(following_residual, event_dim), row_norm(residual, event_dim)
        accepted = (after <= min(lipschitz, 1.0) * before) | self.refused
        self.refused = ~accepted
        return accepted

    def keep(self, rows: Tensor) -> None:
        if hasattr(self, "refused"):  # rows may be left out before the first step
            self.refused = self.refused.flatten().index_select(0, rows)
