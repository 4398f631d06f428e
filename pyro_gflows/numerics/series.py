"""The truncated power series of the log-determinant: deterministic, with a stated error."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_gflows.numerics.branch import pullbacks
from pyro_gflows.numerics.fixed_probes import FixedProbes
from pyro_gflows.numerics.probe_images import ProbeImages
from pyro_gflows.numerics.residual_map import ResidualMap, as_float, require_contraction
from pyro_gflows.numerics.transforms_active import transforming
from pyro_gflows.serialization.registry import registered

__all__ = ["SeriesLogDet"]

# the most components in the terms whose graphs are kept for the gradient; each graph holds several times as many
_MOST_STORED = 2**20
# the most components in the copies of x that are held at once
_MOST_AT_ONCE = 2**22


@registered
class SeriesLogDet(FixedProbes):
    """The power series of log|det(I + J)| cut after n terms, sum over k <= n of (-1)^(k+1) tr(J^k) / k.

    It is deterministic, so it suits evaluation, HMC and NUTS on events that are too large for the exact log-det; not
    HMC and NUTS where probes follow x (see below), since the estimate then jumps. The
    truncation error is at most d sum_{k>n} L^k / k (:meth:`truncation_error`). With ``probes=None`` the traces are
    exact. Otherwise they are means of eps^T J^k eps over fixed probes eps, which are the same for every row, call,
    device and dtype. The error of such a mean comes on top of the truncation error. It is much the same for every row,
    so that averaging over many rows does not reduce it; the spread between the probes measures it
    (:func:`pyro_gflows.evaluation.log_det_error`).

    With ``orbit``, the estimate is averaged over the images of the probes under the group. It is then exactly invariant
    if f is equivariant, and, by Schur's lemma, the trace is exact if the action is irreducible over C. The cost is n
    vector-Jacobian products on probes x |G| copies of x, of which only as many are held at once as memory allows. Under
    a large group, one image of each probe that follows x (:class:`~pyro_gflows.numerics.CarriedProbes`) makes the
    estimate exactly invariant at no extra cost.

    Args:
        terms: The number n of terms.
        probes: The number of probe vectors; None for exact traces, from the dense Jacobian.
        seed: The seed of the probe vectors.

    Raises:
        ValueError: If terms or probes is below 1; in a call, if the Lipschitz bound is outside [0, 1).

    Example:
        >>> import torch
        >>> x = torch.zeros(4, 2, dtype=torch.float64)
        >>> estimator = SeriesLogDet(30, probes=None)
        >>> value, log_det = estimator(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=False)
        >>> round(float(log_det[0]), 6), estimator.describe(lipschitz=0.5, dim=2)
        (0.81093, 'series, 30 terms, error <= 6e-11')
    """

    def __init__(self, terms: int, *, probes: int | None = 4, seed: int = 0) -> None:
        if terms < 1:
            raise ValueError(f"expected terms >= 1, got {terms}")
        if probes is not None and probes < 1:
            raise ValueError(f"expected probes >= 1, or None for exact traces, got {probes}")
        self.terms = terms
        self.probes = probes
        self.seed = seed

    @classmethod
    def within(cls, error: float, *, lipschitz: float | Tensor, probes: int | None = 4) -> SeriesLogDet:
        """The shortest series whose truncation error is at most ``error`` nats for each component of the event.

        Args:
            error: The largest truncation error for each component, in nats.
            lipschitz: The Lipschitz bound of the branch, in [0, 1).
            probes: The number of probe vectors; None for exact traces.

        Raises:
            ValueError: If the error is not positive, or the Lipschitz bound is outside [0, 1).

        Example:
            >>> SeriesLogDet.within(1e-3, lipschitz=0.9).terms
            49
        """
        bound = as_float(lipschitz)
        require_contraction(bound)
        if not error > 0:
            raise ValueError(f"expected a positive error, got {error}")
        terms = 1
        while cls(terms).truncation_error(lipschitz=bound, dim=1) > error:
            terms += 1
        return cls(terms, probes=probes)

    def truncation_error(self, *, lipschitz: float | Tensor, dim: int) -> float:
        """The bound d sum_{k>n} L^k / k of the error of cutting the series, in nats; inf if L >= 1.

        Args:
            lipschitz: The Lipschitz bound L of the branch.
            dim: The number d of components of an event.

        Example:
            >>> round(SeriesLogDet(8).truncation_error(lipschitz=0.9, dim=2), 3)
            0.524
        """
        bound = as_float(lipschitz)
        if not bound < 1:
            return math.inf
        total = -math.log1p(-bound) - sum(bound**k / k for k in range(1, self.terms + 1))
        if total > 1e-6:
            return dim * total
        # Rounding of the difference would hide small sums; the geometric series is just above them.
        return dim * bound ** (self.terms + 1) / ((self.terms + 1) * (1 - bound))

    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        require_contraction(residual_map.lipschitz)
        if self.probes is None:
            return self._exact_traces(residual_map, x, create_graph)

        def sum_over(probes: Tensor) -> tuple[Tensor, Tensor]:
            return self._by_probes(residual_map, x, probes, create_graph)

        return self.average(residual_map, x, sum_over, at_once=_MOST_AT_ONCE)

    def _by_probes(
        self, residual_map: ResidualMap, x: Tensor, probes: Tensor, create_graph: bool
    ) -> tuple[Tensor, Tensor]:
        """The value f(x), and the sum of the estimates over the first axis of the probes, which broadcast with x."""
        split = x.dim() - residual_map.event_dim
        value, product = pullbacks(residual_map.f, x, len(probes))
        probe = probes.expand(len(probes), *x.shape)

        def some(terms: range, power: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
            for k in terms:
                power = product(power, create_graph=create_graph)
                trace = (power * probe).flatten(1 + split).sum(-1).sum(0)
                log_det = log_det - (-1) ** k / k * trace
            return power, log_det

        all_terms, power, log_det = range(1, self.terms + 1), probe, x.new_zeros(x.shape[:split])
        if not create_graph or transforming() or self.terms * probe.numel() <= _MOST_STORED:
            return value, some(all_terms, power, log_det)[1]
        # the graph of all terms at once may exceed the memory, so the graph of each part is computed again
        length = math.isqrt(self.terms - 1) + 1
        for start in range(0, self.terms, length):
            part = all_terms[start : start + length]
            power, log_det = checkpoint(some, part, power, log_det, use_reentrant=False, preserve_rng_state=False)
        return value, log_det

    def _exact_traces(self, residual_map: ResidualMap, x: Tensor, create_graph: bool) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(create_graph):
            value, jacobian = residual_map.f.call_and_jacobian(x)
            power, log_det = jacobian, jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
            for k in range(2, self.terms + 1):
                power = power @ jacobian
                log_det = log_det - (-1) ** k / k * power.diagonal(dim1=-2, dim2=-1).sum(-1)
        return value, log_det

    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        error = f"error <= {self.truncation_error(lipschitz=lipschitz, dim=dim):.2g}"
        if self.probes is None:
            return f"series, {self.terms} terms, {error}"
        note = "" if images is None else images.note
        return f"series, {self.terms} terms, {error} + error of the mean of {self.named_probes()}{note}"

    def __repr__(self) -> str:
        return f"SeriesLogDet(series, {self.terms} terms, error <= d sum_(k>{self.terms}) L^k/k, {self.named_probes()})"
