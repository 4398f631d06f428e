"""ConstantMemory: a log-det whose gradient leaves the terms of its series behind."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from torch import Tensor, enable_grad, nn

from pyro_gflows.numerics.jacobian import Branch
from pyro_gflows.numerics.log_det import LogDet, Orbit
from pyro_gflows.numerics.replay import replayed
from pyro_gflows.registry import registered

__all__ = ["ConstantMemory"]


@registered
class ConstantMemory(LogDet):
    r"""The same f(x) and log-det as an estimator gives, the gradients too, with no activation stored for them.

    Between the forward and the backward pass a residual layer then holds its input and, in a training call of
    RouletteLogDet, two more events: the probe eps (its signs alone) and the Neumann vector

    .. math:: w = \sum_k c_k\,(-J^T)^k \varepsilon,

    which carries all that the series says about the gradient. The backward pass computes f once and differentiates
    :math:`w^T J_f(x)\,\varepsilon`, row by row under the weights that come in, so that masks and importance weights
    act as without it. What the gradient costs does not depend on the number of terms; recomputing the whole layer
    (:class:`~pyro_gflows.transforms.Recompute`) pays for them twice. Deterministic estimators are computed again.

    Arguments:
        estimator: what is to be estimated, and how.

    Raises:
        TypeError: estimator is no LogDet; (in a call) the branch is neither a Module nor has a ``captured()`` that
            lists the tensors it reads, which here would silently have no gradient.
        RuntimeError: (in a backward pass) a second derivative is taken, or the weights are not those of the forward
            pass (``functional_call``).

    Source: the memory-efficient gradient of Residual Flows for Invertible Generative Modeling, arXiv 1906.02735,
    section 3.2; there the gradient itself is taken in the forward pass, for equal weights of all rows.

    >>> import torch
    >>> from pyro_gflows.numerics import RouletteLogDet
    >>> f, x = torch.nn.Linear(2, 2), torch.zeros(4, 2)
    >>> _ = f.weight.data.copy_(0.5 * torch.eye(2))
    >>> value, log_det = ConstantMemory(RouletteLogDet())(f, x, 1, lipschitz=0.5, training=True)
    >>> torch.autograd.grad(log_det.sum(), f.weight)[0].shape
    torch.Size([2, 2])
    """

    def __init__(self, estimator: LogDet) -> None:
        if not isinstance(estimator, LogDet):
            raise TypeError(f"expected a LogDet such as RouletteLogDet(), received {type(estimator).__name__}")
        self.estimator = estimator

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
        if not create_graph:
            return self.estimator.estimate(
                f, x, event_dim, lipschitz=lipschitz, training=training, orbit=orbit, create_graph=False
            )
        known = {"lipschitz": lipschitz, "training": training, "orbit": orbit}

        def first(x: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            with enable_grad():
                (value, log_det), kept = self.estimator.rehearse(f, x.detach(), event_dim, **known)  # type: ignore[arg-type]
            return (value.detach(), log_det.detach()), tuple(tensor.detach() for tensor in kept)

        def again(x: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
            return self.estimator.replay(f, x, event_dim, *kept, **known)  # type: ignore[arg-type]

        value, log_det = replayed(first, again, [x], captured=functools.partial(_captured, f))
        return value, log_det

    def evaluator(self) -> LogDet:
        return self.estimator.evaluator()

    def describe(self, *, lipschitz: float | Tensor, dim: int) -> str:
        return f"{self.estimator.describe(lipschitz=lipschitz, dim=dim)}; in constant memory"

    def __repr__(self) -> str:
        return f"ConstantMemory({self.estimator!r})"


def _captured(f: Branch) -> Sequence[Tensor]:
    if isinstance(f, nn.Module):
        return list(f.parameters())
    captured = getattr(f, "captured", None)
    if captured is None:
        raise TypeError(
            f"expected a branch that is a Module, or has a captured() method, received {type(f).__name__}: the "
            "gradient of the tensors it reads would be lost; write captured() -> list of them"
        )
    found: Sequence[Tensor] = captured()
    return found
