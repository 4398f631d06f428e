"""The log-determinant by Krylov spaces: as many products as each row is observed to need."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

from torch import Tensor

from pyro_gflows.numerics.fixed_probes import FixedProbes
from pyro_gflows.numerics.held import RandomEstimate, RandomLogDet
from pyro_gflows.numerics.jacobian import Branch, Product, event_numel
from pyro_gflows.numerics.krylov_average import averaged, flattened, report_of
from pyro_gflows.numerics.krylov_remainder import random_remainder
from pyro_gflows.numerics.krylov_report import KrylovReport
from pyro_gflows.numerics.krylov_space import KrylovSpace, StoppingRule, certified_factor, krylov_space
from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.precision import guarded_method
from pyro_gflows.numerics.probe_images import Orbit, ProbeImages
from pyro_gflows.numerics.probes import random_probes
from pyro_gflows.numerics.residual_map import ResidualMap, as_float, require_contraction
from pyro_gflows.numerics.series import SeriesLogDet
from pyro_gflows.numerics.tracing import uncompiled
from pyro_gflows.serialization.registry import registered

__all__ = ["KrylovLogDet"]


@registered
class KrylovLogDet(RandomLogDet, FixedProbes):
    r"""The log-det of I + J from the Krylov spaces of probes, which end where two successive orders agree.

    It suits training and evaluation on events that are too large for the exact log-det. For a probe
    :math:`\varepsilon` with entries 1 and -1, products of :math:`A = J^T` with vectors span the space of
    :math:`\varepsilon, A \varepsilon, A^2 \varepsilon, ...` Arnoldi's method turns m products into an orthonormal basis
    of it and a small matrix :math:`H_m`, which represents A there. Then

    .. math:: \varepsilon^T \log(I + A)\, \varepsilon \approx |\varepsilon|^2\, e_1^T \log(I + H_m)\, e_1,

    exactly so for polynomials up to degree m in place of the logarithm, and far better than a power series where A is
    nearly symmetric. Each row stops by itself, so that the number of products follows from the branch as it is, and not
    from its Lipschitz bound L: typically 4 to 8 where a power series plans 49 (L = 0.9) to 509 (L = 0.99).

    - In training the probes are random. The gradient is that of :math:`w^T J \varepsilon` with w, from the same space,
      close to :math:`(I + J^T)^{-1} \varepsilon` and held fixed. For one probe this is not the gradient of the value;
      their means over all probes agree.
    - In evaluation the probes are fixed, and followed by all their images under a group where a layer asks for it, as
      for :class:`SeriesLogDet`. The gradient is that of the value, to any order.

    Errors: That of the mean over few probes is the largest; :func:`pyro_gflows.evaluation.log_det_error` measures it.
    For a given probe the difference of two orders is observed, and at most ``tolerance`` for each component where a row
    stops early. What is certified, :math:`|\varepsilon|^2 h_{m+1,m} \int_0^1 |y_m(t)|\, t L / (1 - t L)\, dt` with
    :math:`y(t) = (I + t H_m)^{-1} e_1`, is far larger (:meth:`report`). With ``unbiased``, training adds a random
    remainder, with which value and gradient have the right mean to the last digit. It is a series of random length,
    empty nine times out of ten.

    The number of products changes with x, so that the estimate in evaluation may jump by about the tolerance. With
    tolerance 0 every row takes all ``max_terms`` products: the estimate is smooth, and no product waits for a GPU.

    Args:
        tolerance: The largest difference of two orders at which a row stops, in nats for each component of the event.
            Its square root is the largest relative residual of w.
        max_terms: The largest number of products m for each probe.
        probes: The number of fixed probes in evaluation.
        seed: The seed of the fixed probes.
        unbiased: Whether training adds the random remainder.
        evaluation: The estimator outside training; None for this one with fixed probes.

    Raises:
        ValueError: If the tolerance is negative, or max_terms or probes is below 1; in a call, if the Lipschitz bound
            is outside [0, 1).
        RuntimeError: In a backward pass of training, if a second derivative is taken, as for
            :class:`RouletteLogDet`. In a call, if torch.jit.trace, make_fx or torch.func.linearize is
            recording.

    Source: Y. Saad, Iterative Methods for Sparse Linear Systems, chapter 6, for Arnoldi's method; the certificate is
    the residual of the shifted systems, integrated.

    Example:
        >>> import torch
        >>> x = torch.zeros(4, 100, dtype=torch.float64)
        >>> value, log_det = KrylovLogDet()(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=True)
        >>> round(float(log_det[0]), 6)  # 100 log 1.5
        40.546511
    """

    probes: int
    _reports: list[KrylovReport] | None = None  # of evaluations, where they are watched

    def __init__(
        self,
        *,
        tolerance: float = 1e-5,
        max_terms: int = 64,
        probes: int = 4,
        seed: int = 0,
        unbiased: bool = False,
        evaluation: LogDet | None = None,
    ) -> None:
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"expected a finite tolerance >= 0, got {tolerance}")
        if max_terms < 1:
            raise ValueError(f"expected max_terms >= 1, got {max_terms}")
        if probes < 1:
            raise ValueError(f"expected probes >= 1, got {probes}")
        self.tolerance = tolerance
        self.max_terms = max_terms
        self.probes = probes
        self.seed = seed
        self.unbiased = unbiased
        self.evaluation = evaluation

    @property
    def outside_training(self) -> LogDet:
        return _OfFixedProbes(self) if self.evaluation is None else self.evaluation

    def require_bound(self, lipschitz: float) -> None:
        require_contraction(lipschitz)

    def _random(self, residual_map: ResidualMap, x: Tensor, product: Product) -> RandomEstimate:
        split = x.dim() - residual_map.event_dim
        probe = random_probes(x)
        flat = flattened(product, x.shape, create_graph=False)
        space = self._space(
            flat, probe.reshape(*x.shape[:split], event_numel(x, residual_map.event_dim)), residual_map.lipschitz
        )
        log_det, (held, beyond) = space.log_det, space.solution()
        beyond = beyond.unsqueeze(-1)
        if self.unbiased:
            more, following = random_remainder(space, flat, lipschitz=residual_map.lipschitz)
            log_det, held = log_det + more, held - beyond * following
        else:  # one step of the Neumann series of the residual, which takes no product
            held = held - beyond * space.following
        return RandomEstimate(log_det, held.reshape(x.shape), probe)

    @uncompiled
    def _deterministic(self, residual_map: ResidualMap, x: Tensor, create_graph: bool) -> tuple[Tensor, Tensor]:
        """The value f(x) and the log-det from fixed probes."""
        require_contraction(residual_map.lipschitz)
        spaces: list[KrylovSpace] | None = None if self._reports is None else []
        value, log_det = averaged(self, residual_map, x, self._space, create_graph=create_graph, spaces=spaces)
        if self._reports is not None and spaces is not None:
            self._reports.append(report_of(log_det, spaces))
        return value, log_det

    def _space(
        self,
        product: Callable[[Tensor], Tensor],
        probe: Tensor,
        lipschitz: float,
        orders: tuple[Tensor, int] | None = None,
    ) -> KrylovSpace:
        dim = probe.shape[-1]
        rule = StoppingRule(self.tolerance * dim, math.sqrt(self.tolerance), max(1, min(self.max_terms, dim)))
        return krylov_space(product, probe, rule, lipschitz=lipschitz, orders=orders)

    def watched(self) -> tuple[KrylovLogDet, list[KrylovReport]]:
        """The same estimator, and a list to which it will append a report of each evaluation with fixed probes.

        Example:
            >>> import torch
            >>> estimator, reports = KrylovLogDet(probes=2).watched()
            >>> _ = estimator(torch.sin, torch.ones(3, 2) / 2, 1, lipschitz=0.9, training=False)
            >>> reports[0].products.tolist()
            [1.0, 1.0, 1.0]
        """
        other = copy.copy(self)
        other._reports = []
        return other, other._reports

    @guarded_method
    def report(
        self,
        f: Branch,
        x: Tensor,
        event_dim: int,
        *,
        lipschitz: float | Tensor,
        orbit: Orbit | ProbeImages | None = None,
    ) -> KrylovReport:
        """What is observed and what is certified of the estimate with the fixed probes, for each row.

        Args:
            f: The branch, as for :class:`LogDet`.
            x: The input, of shape ``batch_shape + event_shape``.
            event_dim: The number of event dimensions.
            lipschitz: An upper bound of the Lipschitz constant of f in the Euclidean norm.
            orbit: How the fixed probes follow the group, as for :class:`LogDet`.

        Example:
            >>> import torch
            >>> x = torch.ones(1, 2, dtype=torch.float64)
            >>> report = KrylovLogDet(tolerance=1e-3).report(torch.sin, x, 1, lipschitz=0.99)
            >>> float(report.observed) < 2e-3, float(report.certified) < 1
            (True, True)
        """
        estimator, reports = self.watched()
        estimator.evaluation = None
        estimator(f, x, event_dim, lipschitz=lipschitz, training=False, orbit=orbit)
        return reports[0]

    def evaluator(self) -> LogDet:
        return self if self.evaluation is None else self.evaluation.evaluator()

    def truncation_error(self, *, lipschitz: float | Tensor, dim: int) -> float:
        r"""A certified bound of the error for given probes, in nats, which holds for every x; inf if L >= 1.

        It is the larger one of two: of rows that stop early, :math:`d \sqrt{\mathrm{tolerance}}\, (-\log(1 - L) / L
        - 1)`; of rows that take all n = ``max_terms`` products, :math:`2 d \sum_{k>n} L^k / k`. It is far from the
        error, and from what :meth:`report` certifies.

        Args:
            lipschitz: The Lipschitz bound L of the branch.
            dim: The number d of components of an event.

        Example:
            >>> round(KrylovLogDet(tolerance=1e-6).truncation_error(lipschitz=0.9, dim=2), 4)
            0.0031
        """
        bound = as_float(lipschitz)
        if not bound < 1:
            return math.inf
        if dim <= self.max_terms:  # where all products are taken, nothing is left out
            return dim * math.sqrt(self.tolerance) * certified_factor(bound)
        series = SeriesLogDet(self.max_terms).truncation_error(lipschitz=bound, dim=dim)
        return max(dim * math.sqrt(self.tolerance) * certified_factor(bound), 2 * series)

    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        """A short text that says what is observed, what is certified, and what is estimated."""
        certified = self.truncation_error(lipschitz=lipschitz, dim=dim)
        errors = (
            f"difference of two orders <= {self.tolerance * dim:.2g} (observed), error <= {certified:.2g} (certified)"
        )
        if self.evaluation is not None:
            evaluation = self.evaluation.describe(lipschitz=lipschitz, dim=dim, images=images)
            return f"Krylov{', unbiased' if self.unbiased else ''}, {errors}; in evaluation: {evaluation}"
        note = "" if images is None else images.note
        unbiased = ", unbiased in training" if self.unbiased else ""
        return f"Krylov{unbiased}, {errors} + error of the mean of {self.named_probes()}{note}"

    def __repr__(self) -> str:
        unbiased = ", unbiased" if self.unbiased else ""
        evaluation = self.named_probes() if self.evaluation is None else f"evaluation={self.evaluation!r}"
        return (
            f"KrylovLogDet(Krylov{unbiased}, at most {self.max_terms} products, tolerance {self.tolerance:g} for each "
            f"component, {evaluation})"
        )


class _OfFixedProbes(LogDet):
    """The estimate with fixed probes of a KrylovLogDet."""

    def __init__(self, of: KrylovLogDet) -> None:
        self._of = of

    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        return self._of._deterministic(residual_map, x, create_graph)

    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        return self._of.describe(lipschitz=lipschitz, dim=dim, images=images)
