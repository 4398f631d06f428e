"""The unbiased random estimator of the log-determinant (Russian roulette)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.numerics.exact import ExactLogDet
from pyro_gflows.numerics.held import RandomEstimate, RandomLogDet, row_dot
from pyro_gflows.numerics.jacobian import Product
from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.probe_images import ProbeImages
from pyro_gflows.numerics.probes import random_probes
from pyro_gflows.numerics.residual_map import ResidualMap, as_float, require_contraction
from pyro_gflows.numerics.tracing import refuse_tracing
from pyro_gflows.numerics.transforms_active import largest
from pyro_gflows.serialization.registry import registered

__all__ = ["RouletteLogDet"]


@registered
class RouletteLogDet(RandomLogDet):
    """The power series of log|det(I + J)| cut at a random length, unbiased in value and in gradient together.

    It makes training on large events, such as images, possible without bias. For each row there is one random probe
    eps, and a random length n + N with P(N >= m) = q^m:

    - The value is the sum over k <= n + N of  b_k (-1)^(k+1) / k  eps^T J^k eps.
    - The gradient is that of  w^T J eps  with  w = sum over k < n + N of  b_(k+1) (-1)^k (J^T)^k eps  held fixed.

    Here b_k = 1 for k <= n and q^-(k-n) beyond. Both have the right mean, since the gradient of tr(J^k) / k is
    tr(J^(k-1) dJ). Each row keeps its own term, so that weights, masks and scales of rows have the same effect as on an
    exact log-det. The gradient needs the graph of one product, not of n + N, so memory does not grow with the length.

    Variance: The weighted gradient terms grow as (L / q)^m and occur with probability q^m. So the second moment is
    finite if q > L^2, which is required. The default q = L gives a second moment and an expected length that are both
    of the order of 1 / (1 - L), which is the least product of the two among powers of L. The expected cost is n + q /
    (1 - q) products (for L = 0.9: n + 9; for L = 0.98: n + 49).

    With ``training=False`` the estimator defers to ``evaluation``, so that a score is deterministic. All randomness
    comes from torch's default generators: the length from the generator of the CPU, the probes from that of the device
    of x.

    Args:
        exact_terms: The number n of terms that are always summed.
        continuation: The probability q; None for the Lipschitz bound of the branch.
        shared_length: Whether the whole batch shares one length, which is faster. With a length for each row, a batch
            costs as much as its longest row, and the mean over the batch has less variance.
        evaluation: The estimator outside training; None for ExactLogDet().

    Raises:
        ValueError: If exact_terms is below 1 or continuation is outside (0, 1); in a training call, if the Lipschitz
            bound is outside [0, 1) or continuation is at most the square of the bound.
        RuntimeError: In a backward pass, if a second derivative is taken, which would not be unbiased. (Inside
            torch.func all orders are unbiased, with memory that grows with the length.) In a training call, if
            torch.jit.trace, make_fx or torch.func.linearize is recording.

    Source: Chen et al., Residual Flows for Invertible Generative Modeling, arXiv:1906.02735, for the series and its
    Neumann gradient. The distribution of the length, the weights by row and the value differ from theirs.

    Example:
        >>> x = torch.zeros(4, 2, dtype=torch.float64)
        >>> estimator = RouletteLogDet()
        >>> value, log_det = estimator(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=True)
        >>> log_det.shape, estimator
        (torch.Size([4]), RouletteLogDet(roulette, unbiased, 4 exact terms, evaluation=ExactLogDet(exact)))
    """

    def __init__(
        self,
        *,
        exact_terms: int = 4,
        continuation: float | None = None,
        shared_length: bool = True,
        evaluation: LogDet | None = None,
    ) -> None:
        if exact_terms < 1:
            raise ValueError(f"expected exact_terms >= 1, got {exact_terms}")
        if continuation is not None and not 0 < continuation < 1:
            raise ValueError(f"expected a continuation probability in (0, 1), got {continuation}")
        self.exact_terms = exact_terms
        self.continuation = continuation
        self.shared_length = shared_length
        self.evaluation = ExactLogDet() if evaluation is None else evaluation

    @property
    def outside_training(self) -> LogDet:
        return self.evaluation

    def require_bound(self, lipschitz: float) -> None:
        self._continuation(lipschitz)

    def _random(self, residual_map: ResidualMap, x: Tensor, product: Product) -> RandomEstimate:
        refuse_tracing("the roulette log-det, in training,")
        event_dim = residual_map.event_dim
        split = x.dim() - event_dim
        weights = self._weights(x, split, self._continuation(residual_map.lipschitz))
        probe = random_probes(x)
        power, log_det, neumann = probe, x.new_zeros(x.shape[:split]), torch.zeros_like(probe)
        for k, weight in enumerate(weights, start=1):
            neumann = neumann - (-1) ** k * weight.reshape(*weight.shape, *(1,) * event_dim) * power
            power = product(power, create_graph=False)
            log_det = log_det - (-1) ** k / k * weight * row_dot(power, probe, event_dim)
        return RandomEstimate(log_det, neumann, probe)

    def _continuation(self, lipschitz: float) -> float:
        require_contraction(lipschitz)
        if self.continuation is None:
            return lipschitz
        if self.continuation <= lipschitz**2:
            raise ValueError(
                f"expected a continuation probability above the squared Lipschitz bound {lipschitz**2:.6g}, got "
                f"{self.continuation}: the variance would be infinite; raise it, or leave it to the bound with None"
            )
        return self.continuation

    def _weights(self, x: Tensor, split: int, q: float) -> Tensor:
        """The b_k for k = 1, 2, ..., of shape (length,) + batch_shape, or (length, 1, ..., 1) for a shared length."""
        shape = (1,) * split if self.shared_length else x.shape[:split]
        # 1 - u lies in (0, 1], so the logarithm is finite; P(N >= m) = P(1 - u <= q^m) = q^m.
        uniform = 1 - torch.rand(shape, dtype=torch.float64)
        tail = torch.floor(uniform.log() / math.log(q)) if q > 0 else torch.zeros_like(uniform)
        length = self.exact_terms + (int(largest(tail)) if tail.numel() else 0)
        beyond = (torch.arange(1, length + 1) - self.exact_terms).clamp(min=0).reshape(-1, *(1,) * split)
        weights = torch.where(beyond <= tail, max(q, 1e-300) ** -beyond.double(), 0.0)
        return weights.to(device=x.device, dtype=x.dtype)

    def evaluator(self) -> LogDet:
        return self.evaluation.evaluator()

    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        q = self.continuation or as_float(lipschitz)
        length = self.exact_terms + q / (1 - q) if q < 1 else math.inf
        evaluation = self.evaluation.describe(lipschitz=lipschitz, dim=dim, images=images)
        return f"roulette, unbiased, {length:.1f} terms on average; in evaluation: {evaluation}"

    def __repr__(self) -> str:
        tail = "" if self.continuation is None else f", continuation={self.continuation:g}"
        rows = "" if self.shared_length else ", a length for each row"
        return (
            f"RouletteLogDet(roulette, unbiased, {self.exact_terms} exact terms{tail}{rows}, "
            f"evaluation={self.evaluation!r})"
        )
