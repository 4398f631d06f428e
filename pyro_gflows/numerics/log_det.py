"""The protocol of the log-determinant estimators of residual maps."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, event_numel
from pyro_gflows.numerics.precision import guarded_method, refuse_low
from pyro_gflows.numerics.probe_images import Orbit, ProbeImages
from pyro_gflows.numerics.residual_map import ResidualMap
from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["LogDet"]


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
            so that its estimate is invariant where f is equivariant; or another way for probes to follow the group, a
            :class:`~pyro_gflows.numerics.ProbeImages`. None: the probes stay as they are.

    Returns:
        f(x), and the log-det of shape batch_shape.
    """

    def __call__(
        self,
        f: Branch,
        x: Tensor,
        event_dim: int,
        *,
        lipschitz: float | Tensor,
        training: bool,
        orbit: Orbit | ProbeImages | None = None,
    ) -> tuple[Tensor, Tensor]:
        residual_map = ResidualMap.of(f, event_dim, lipschitz=lipschitz, training=training, orbit=orbit)
        return self.value_and_log_det(residual_map, x)

    @guarded_method
    def value_and_log_det(self, residual_map: ResidualMap, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and the log-det of the map x -> x + f(x): the same as a call, for a map that is described already."""
        if not x.is_floating_point():
            raise TypeError(f"expected a floating point input, received {x.dtype}; convert it first")
        refuse_low(x, "an input")
        event_numel(x, residual_map.event_dim)
        graph = torch.is_grad_enabled()
        if graph or transforming():  # tangents of forward mode flow under torch.no_grad() as well
            return self.estimate(residual_map, x, create_graph=graph)
        # Leaving inference mode needs a copy of x: inference tensors can never be recorded.
        with torch.inference_mode(False), torch.enable_grad():
            value, log_det = self.estimate(residual_map, x.clone(), create_graph=False)
        return value.detach(), log_det.detach()

    @abstractmethod
    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        """f(x) and the log-det, differentiable if ``create_graph``; called with gradients enabled.

        Inside ``torch.func`` and forward mode it must have its tangents either way, and gradients may be disabled.
        """

    def rehearse(self, residual_map: ResidualMap, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        """f(x) and the log-det without a graph, and what to keep for ``replay``; called with gradients enabled."""
        return self.estimate(residual_map, x, create_graph=False), ()

    def replay(self, residual_map: ResidualMap, x: Tensor, *kept: Tensor) -> tuple[Tensor, Tensor]:
        """f(x), and a number for each row with the gradient of the log-det that ``rehearse`` gave.

        By default the estimate once more, from the same random numbers; one with a shorter way to its gradient
        overrides both methods.
        """
        return self.estimate(residual_map, x, create_graph=True)

    def evaluator(self) -> LogDet:
        """The estimator that is used outside training: itself, or the one that it defers to."""
        return self

    @abstractmethod
    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        """What is certified for a branch with this Lipschitz bound on events of ``dim`` entries, for a repr.

        Arguments:
            lipschitz: an upper bound of the Lipschitz constant.
            dim: the number of entries of an event.
            images: how fixed probes follow the group, if they do.
        """
