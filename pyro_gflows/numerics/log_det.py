"""The protocol of the log-determinant estimators of residual maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, event_numel
from pyro_gflows.precision import full_precision, refuse_low

__all__ = ["LogDet", "Orbit", "as_float", "require_contraction"]

#: Maps a probe with its event dimensions last to all its group images, of shape (order of the group,) + probe shape.
Orbit = Callable[[Tensor], Tensor]


def as_float(bound: float | Tensor) -> float:
    """A Lipschitz bound as a number."""
    return float(bound.detach()) if isinstance(bound, Tensor) else float(bound)


def require_contraction(lipschitz: float) -> None:
    """Raise where the power series of log(1 + z) is not known to converge.

    Raises:
        ValueError: the bound is not in [0, 1).
    """
    if not 0 <= lipschitz < 1:
        raise ValueError(
            f"expected a Lipschitz bound in [0, 1) for the power series of the log-det, received {lipschitz}; "
            "scale the branch down, or use ExactLogDet"
        )


class LogDet(ABC):
    """Estimates log|det(I + J_f(x))| together with f(x), for the map x -> x + f(x).

    A subclass writes ``estimate``; this class handles the autograd modes, so that every estimator works under
    ``torch.no_grad()`` and ``torch.inference_mode()`` (the results are then detached), and is differentiable
    with respect to x and to all that f has captured otherwise.

    Arguments of a call:
        f: the branch, a map of batch_shape + event_shape to the same shape, row by row. Where it also has
            ``call_and_jacobian(x) -> (f(x), J)`` with J of shape batch_shape + (d, d), the exact estimator uses that.
        x: the input, of shape batch_shape + event_shape.
        event_dim: the number of event dimensions.
        lipschitz: an upper bound of the Lipschitz constant of f in the Euclidean norm.
        training: whether a random estimate is allowed. Without it the result is a deterministic function of x.
        orbit: all group images of a probe (an action's ``act_all``): a deterministic estimator averages over them,
            so that its estimate is invariant where f is equivariant. None: no averaging.

    Returns:
        f(x), and the log-det of shape batch_shape.
    """

    @full_precision
    def __call__(
        self,
        f: Branch,
        x: Tensor,
        event_dim: int,
        *,
        lipschitz: float | Tensor,
        training: bool,
        orbit: Orbit | None = None,
    ) -> tuple[Tensor, Tensor]:
        if not x.is_floating_point():
            raise TypeError(f"expected a floating point input, received {x.dtype}; convert it first")
        refuse_low(x, "an input")
        event_numel(x, event_dim)
        bound = as_float(lipschitz)
        if torch.is_grad_enabled():
            return self.estimate(f, x, event_dim, lipschitz=bound, training=training, orbit=orbit, create_graph=True)
        # Leaving inference mode needs a copy of x: inference tensors can never be recorded.
        with torch.inference_mode(False), torch.enable_grad():
            value, log_det = self.estimate(
                f, x.clone(), event_dim, lipschitz=bound, training=training, orbit=orbit, create_graph=False
            )
        return value.detach(), log_det.detach()

    @abstractmethod
    def estimate(
        self,
        f: Branch,
        x: Tensor,
        event_dim: int,
        *,
        lipschitz: float,
        training: bool,
        orbit: Orbit | None,
        create_graph: bool,
    ) -> tuple[Tensor, Tensor]:
        """f(x) and the log-det, differentiable if ``create_graph``; called with gradients enabled."""

    def rehearse(
        self,
        f: Branch,
        x: Tensor,
        event_dim: int,
        *,
        lipschitz: float,
        training: bool,
        orbit: Orbit | None,
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        """f(x) and the log-det without a graph, and what to keep for ``replay``; called with gradients enabled."""
        found = self.estimate(f, x, event_dim, lipschitz=lipschitz, training=training, orbit=orbit, create_graph=False)
        return found, ()

    def replay(
        self,
        f: Branch,
        x: Tensor,
        event_dim: int,
        *kept: Tensor,
        lipschitz: float,
        training: bool,
        orbit: Orbit | None,
    ) -> tuple[Tensor, Tensor]:
        """f(x), and a number for each row with the gradient of the log-det that ``rehearse`` gave.

        By default the estimate once more, from the same random numbers; one with a shorter way to its gradient
        overrides both methods.
        """
        return self.estimate(f, x, event_dim, lipschitz=lipschitz, training=training, orbit=orbit, create_graph=True)

    def evaluator(self) -> LogDet:
        """The estimator that is used outside training: itself, or the one that it defers to."""
        return self

    @abstractmethod
    def describe(self, *, lipschitz: float | Tensor, dim: int) -> str:
        """What is certified for a branch with this Lipschitz bound on events of ``dim`` entries, for a repr."""
