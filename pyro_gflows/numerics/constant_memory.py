"""ConstantMemory: a log-det estimator whose memory for the backward pass does not grow with the number of terms."""

from __future__ import annotations

from torch import Tensor, enable_grad

from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.probe_images import ProbeImages
from pyro_gflows.numerics.reading import modules_in
from pyro_gflows.numerics.replay import replayable, replayed
from pyro_gflows.numerics.residual_map import ResidualMap
from pyro_gflows.serialization.registry import registered

__all__ = ["ConstantMemory"]


@registered
class ConstantMemory(LogDet):
    r"""Another estimator, with the same values and gradients, but without stored activations.

    Deep stacks of residual layers fit into memory with it. Between the forward and the backward pass a residual layer
    holds its input and, for RouletteLogDet in training, two more events: the signs of the probe eps and the Neumann
    vector

    .. math:: w = \sum_k c_k\,(-J^T)^k \varepsilon,

    which contains all that the gradient needs of the series. The backward pass computes f once and differentiates
    :math:`w^T J_f(x)\,\varepsilon`, row by row with the incoming weights, so that masks and importance weights have
    their usual effect. The cost of the gradient does not depend on the number of terms, whereas recomputing the whole
    layer (:class:`~pyro_gflows.transforms.Recompute`) computes all terms twice. Deterministic estimators are computed
    again. Gradients reach all tensors that the branch reads, including tensors that other modules own. Inside
    ``torch.func`` and forward mode, and where the branch samples its weights (PyroSample), the graph is stored as
    usual.

    Args:
        estimator: The estimator of the log-det.

    Raises:
        TypeError: If the estimator is not a LogDet.
        RuntimeError: In a backward pass, if a second derivative is taken, or if the tensors that the branch reads are
            no longer those of the forward pass.

    Source: The memory-efficient gradient of Residual Flows for Invertible Generative Modeling, arXiv:1906.02735,
    section 3.2; there the gradient itself is taken in the forward pass, for equal weights of all rows.

    Example:
        >>> import torch
        >>> from pyro_gflows.numerics.roulette import RouletteLogDet
        >>> f, x = torch.nn.Linear(2, 2), torch.zeros(4, 2)
        >>> _ = f.weight.data.copy_(0.5 * torch.eye(2))
        >>> value, log_det = ConstantMemory(RouletteLogDet())(f, x, 1, lipschitz=0.5, training=True)
        >>> torch.autograd.grad(log_det.sum(), f.weight)[0].shape
        torch.Size([2, 2])
    """

    def __init__(self, estimator: LogDet) -> None:
        if not isinstance(estimator, LogDet):
            raise TypeError(f"expected a LogDet such as RouletteLogDet(), got {type(estimator).__name__}")
        self.estimator = estimator

    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        modules = modules_in(residual_map.f)
        if not create_graph or not replayable(modules):
            return self.estimator.estimate(residual_map, x, create_graph=create_graph)

        def first(x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            with enable_grad():
                (value, log_det), kept = self.estimator.rehearse(residual_map, x.detach())
            return (value.detach(), log_det.detach()), tuple(tensor.detach() for tensor in kept)

        def again(x: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
            return self.estimator.replay(residual_map, x, *kept)

        value, log_det = replayed(first, again, [x], modules=modules)
        return value, log_det

    def evaluator(self) -> LogDet:
        return self.estimator.evaluator()

    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        return f"{self.estimator.describe(lipschitz=lipschitz, dim=dim, images=images)}; in constant memory"

    def __repr__(self) -> str:
        return f"ConstantMemory({self.estimator!r})"
