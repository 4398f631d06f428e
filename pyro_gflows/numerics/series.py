"""The truncated power series of the log-determinant: deterministic, with a stated error."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, dense_jacobian, pullback
from pyro_gflows.numerics.log_det import LogDet, Orbit, as_float, require_contraction
from pyro_gflows.numerics.probes import fixed_probes
from pyro_gflows.registry import registered

__all__ = ["SeriesLogDet"]


@registered
class SeriesLogDet(LogDet):
    """log|det(I + J)| cut after n terms: sum over k <= n of (-1)^(k+1) tr(J^k) / k.

    The truncation error is at most d sum_{k>n} L^k / k (:meth:`truncation_error`). The traces are exact with
    ``probes=None``. Otherwise they are means of eps^T J^k eps over fixed probes, the same for every row, call, device
    and dtype, and the spread of that mean comes on top of the truncation error.

    Deterministic, so fit for evaluation, HMC and NUTS. With ``orbit`` the probes are averaged over their group images:
    the estimate is then exactly invariant where f is equivariant, and, by Schur's lemma, the exact trace where the
    action is irreducible over the complex numbers. Cost: n vector-Jacobian products on probes x |G| copies of x.

    Arguments:
        terms: the number n of terms.
        probes: the number of probe vectors; None for exact traces, from the dense Jacobian.
        seed: of the probe vectors.

    Raises:
        ValueError: terms or probes below 1; (in a call) a Lipschitz bound outside [0, 1).

    >>> import torch
    >>> x = torch.zeros(4, 2, dtype=torch.float64)
    >>> estimator = SeriesLogDet(30, probes=None)
    >>> value, log_det = estimator(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=False)
    >>> round(float(log_det[0]), 6), estimator.describe(lipschitz=0.5, dim=2)
    (0.81093, 'series, 30 terms, error <= 6e-11')
    """

    def __init__(self, terms: int, *, probes: int | None = 4, seed: int = 0) -> None:
        if terms < 1:
            raise ValueError(f"expected terms >= 1, received {terms}")
        if probes is not None and probes < 1:
            raise ValueError(f"expected probes >= 1, or None for exact traces, received {probes}")
        self.terms = terms
        self.probes = probes
        self.seed = seed

    @classmethod
    def within(cls, error: float, *, lipschitz: float | Tensor, probes: int | None = 4) -> SeriesLogDet:
        """The shortest series whose truncation error is at most ``error`` nats for each number of the event.

        >>> SeriesLogDet.within(1e-3, lipschitz=0.9).terms
        49
        """
        bound = as_float(lipschitz)
        require_contraction(bound)
        if not error > 0:
            raise ValueError(f"expected a positive error, received {error}")
        terms = 1
        while cls(terms).truncation_error(lipschitz=bound, dim=1) > error:
            terms += 1
        return cls(terms, probes=probes)

    def truncation_error(self, *, lipschitz: float | Tensor, dim: int) -> float:
        """The bound d sum_{k>n} L^k / k on the error of cutting the series; inf where L >= 1.

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
        require_contraction(lipschitz)
        if self.probes is None:
            return self._exact_traces(f, x, event_dim, create_graph)
        split = x.dim() - event_dim
        event_shape = x.shape[split:]
        probes = fixed_probes(self.probes, event_shape, seed=self.seed, like=x)
        if orbit is not None:
            probes = orbit(probes).reshape(-1, *event_shape)
        copies = x.expand(len(probes), *x.shape)
        value, product = pullback(f, copies)
        probe = probes.reshape(len(probes), *(1,) * split, *event_shape).expand_as(copies)
        power, log_det = probe, x.new_zeros(x.shape[:split])
        for k in range(1, self.terms + 1):
            power = product(power, create_graph=create_graph)
            trace = (power * probe).flatten(1 + split).sum(-1).mean(0)
            log_det = log_det - (-1) ** k / k * trace
        return value[0], log_det

    def _exact_traces(self, f: Branch, x: Tensor, event_dim: int, create_graph: bool) -> tuple[Tensor, Tensor]:
        value, jacobian = dense_jacobian(f, x, event_dim, create_graph=create_graph)
        power, log_det = jacobian, jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
        for k in range(2, self.terms + 1):
            power = power @ jacobian
            log_det = log_det - (-1) ** k / k * power.diagonal(dim1=-2, dim2=-1).sum(-1)
        return value, log_det

    def describe(self, *, lipschitz: float | Tensor, dim: int) -> str:
        error = f"error <= {self.truncation_error(lipschitz=lipschitz, dim=dim):.2g}"
        spread = "" if self.probes is None else f" + spread of {self._traces()}"
        return f"series, {self.terms} terms, {error}{spread}"

    def __repr__(self) -> str:
        return f"SeriesLogDet(series, {self.terms} terms, error <= d sum_(k>{self.terms}) L^k/k, {self._traces()})"

    def _traces(self) -> str:
        if self.probes is None:
            return "exact traces"
        return "1 fixed probe" if self.probes == 1 else f"{self.probes} fixed probes"
