"""LogDet: the base class of the log-determinant estimators of residual maps."""

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
    """The base class of estimators of the log-det log|det(I + J_f(x))| of the map x -> x + f(x).

    Here J_f(x) is the Jacobian of f at x. Residual layers take an estimator as ``log_det=``. Choose
    :class:`ExactLogDet` for small events and :class:`KrylovLogDet` for large ones. :class:`RouletteLogDet` (in
    training) and :class:`SeriesLogDet` (in evaluation) sum power series, whose lengths follow from a Lipschitz bound. A
    call ``estimator(f, x, event_dim, lipschitz=..., training=...)`` returns the value f(x), of the shape ``batch_shape
    + event_shape`` of x, and the log-det, of shape ``batch_shape``.

    A subclass of your own writes ``estimate`` and ``describe``. This class
    handles the autograd modes: every estimator works under ``torch.no_grad()`` and ``torch.inference_mode()``, where
    its results are detached, and is otherwise differentiable with respect to x and to everything that f has captured.

    Example:
        >>> from pyro_gflows.numerics import ExactLogDet
        >>> estimator: LogDet = ExactLogDet()
        >>> value, log_det = estimator(lambda x: 0.5 * x, torch.ones(3, 1), 1, lipschitz=0.5, training=False)
        >>> bool((log_det - torch.tensor(1.5).log()).abs().max() < 1e-6)
        True
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
        """The value f(x), and the log-det of shape ``batch_shape``.

        Args:
            f: The branch, a map of ``batch_shape + event_shape`` to the same shape, row by row. If it has a method
                ``call_and_jacobian(x) -> (f(x), J)`` with J of shape ``batch_shape + (d, d)``, the exact estimator uses
                it.
            x: The input, of shape ``batch_shape + event_shape``.
            event_dim: The number of event dimensions.
            lipschitz: An upper bound of the Lipschitz constant of f in the Euclidean norm.
            training: Whether a random estimate is allowed; otherwise the result is a deterministic function of x.
            orbit: A function that gives all images of a probe under the group (such as an action's ``act_all``), over
                which a deterministic estimator averages, so that its estimate is invariant if f is equivariant. It may
                also be another :class:`~pyro_gflows.numerics.ProbeImages`. With None the probes are used as they are.

        Raises:
            TypeError: If x is not of float32 or float64.
            ValueError: If x has fewer dimensions than an event.
        """
        residual_map = ResidualMap.of(f, event_dim, lipschitz=lipschitz, training=training, orbit=orbit)
        return self.value_and_log_det(residual_map, x)

    @guarded_method
    def value_and_log_det(self, residual_map: ResidualMap, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x) and the log-det of a map x -> x + f(x) that is described by one object.

        Args:
            residual_map: The map, with its Lipschitz bound.
            x: The input, of shape ``batch_shape + event_shape``.
        """
        if not x.is_floating_point():
            raise TypeError(f"expected a floating point input, got {x.dtype}; convert it first")
        refuse_low(x, "an input")
        event_numel(x, residual_map.event_dim)
        graph = torch.is_grad_enabled()
        if graph or transforming():  # tangents of forward mode flow under torch.no_grad() as well
            return self.estimate(residual_map, x, create_graph=graph)
        # Leaving inference mode needs a copy of x, since autograd never records inference tensors.
        with torch.inference_mode(False), torch.enable_grad():
            value, log_det = self.estimate(residual_map, x.clone(), create_graph=False)
        return value.detach(), log_det.detach()

    @abstractmethod
    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        """The value f(x) and the log-det, differentiable if ``create_graph`` is set; called with gradients enabled.

        Inside ``torch.func`` and forward mode the results must have their tangents in any case, and gradients may be
        disabled.

        Args:
            residual_map: The map, with its Lipschitz bound.
            x: The input, of shape ``batch_shape + event_shape``.
            create_graph: Whether the results are differentiable.
        """

    def rehearse(self, residual_map: ResidualMap, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        """The results of ``estimate`` without a graph, and the tensors to keep for ``replay``.

        It is called with gradients enabled.

        Args:
            residual_map: The map, with its Lipschitz bound.
            x: The input, of shape ``batch_shape + event_shape``.
        """
        return self.estimate(residual_map, x, create_graph=False), ()

    def replay(self, residual_map: ResidualMap, x: Tensor, *kept: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x), and a value for each row with the gradient of the log-det that ``rehearse`` gave.

        The default computes the estimate again with the same random state. An estimator with a shorter way to its
        gradient overrides both methods.

        Args:
            residual_map: The map, with its Lipschitz bound.
            x: The input, of shape ``batch_shape + event_shape``.
            kept: The tensors that ``rehearse`` asked to keep.
        """
        return self.estimate(residual_map, x, create_graph=True)

    def evaluator(self) -> LogDet:
        """The estimator that is used outside training: this one, or the one to which it defers."""
        return self

    @abstractmethod
    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        """A short text for a ``repr`` that says what is certified for a branch and its events.

        Args:
            lipschitz: An upper bound of the Lipschitz constant of the branch.
            dim: The number of components of an event.
            images: How fixed probes follow the group; None where they do not.
        """
