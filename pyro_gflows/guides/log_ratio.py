"""Coordinates for sites on the simplex in which permutations of the categories act by orthogonal matrices."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor
from torch.distributions import Distribution, Independent, biject_to, constraints, transform_to
from torch.distributions.transforms import Transform

from pyro_gflows.numerics.constants import as_constants
from pyro_gflows.numerics.contrasts import contrasts, from_contrasts
from pyro_gflows.numerics.precision import full_precision

__all__ = ["IsometricLogRatio", "LogRatioReparam", "log_ratio_basis", "log_ratio_simplex"]


@functools.cache
@as_constants()
def log_ratio_basis(categories: int) -> Tensor:
    """An orthonormal basis (Helmert's) of the vectors whose components sum to 0.

    Args:
        categories: The number of components of a vector.

    Returns:
        The basis as the rows of a float64 matrix, shape ``(categories - 1, categories)``.

    Example:
        >>> basis = log_ratio_basis(4)
        >>> torch.allclose(basis @ basis.T, torch.eye(3, dtype=torch.float64)), basis.sum(1).abs().max().item() < 1e-15
        (True, True)
    """
    rows = torch.zeros(categories - 1, categories, dtype=torch.float64)
    for k in range(1, categories):
        rows[k - 1, :k] = 1.0 / math.sqrt(k * (k + 1))
        rows[k - 1, k] = -k / math.sqrt(k * (k + 1))
    return rows


class _LogRatioSimplex(type(constraints.simplex)):  # type: ignore[misc]
    """The simplex, for which ``biject_to`` returns an :class:`IsometricLogRatio`."""


log_ratio_simplex = _LogRatioSimplex()


class IsometricLogRatio(Transform):
    r"""A map from unconstrained vectors to the simplex that makes permuting the categories a rotation or reflection.

    Pyro's default map to the simplex is stick breaking, which treats the categories in order, so that a permutation of
    the categories is not a linear map of the unconstrained vector. With this map it is, so an invariant guide can be
    used.

    .. math:: x = \mathrm{softmax}(H^T y), \qquad \log|\det J| = \sum_i \log x_i + \tfrac12 \log K,

    where y is the unconstrained vector, of shape ``batch_shape + (K - 1,)``, x is the point on the simplex, of shape
    ``batch_shape + (K,)``, K is the number of categories, and the rows of H, shape (K - 1, K), are an orthonormal basis
    of the vectors of sum 0. The determinant is taken in the first K - 1 coordinates of x, as for densities on the
    simplex. The map is bijective with inverse :math:`y = H \log x`. A permutation P of the categories acts on y as the
    orthogonal matrix :math:`H P H^T`.

    Args:
        cache_size: The number of values to cache, as for all transforms of torch.

    Source: Egozcue et al., Isometric logratio transformations for compositional data analysis (2003).

    Example:
        >>> IsometricLogRatio()(torch.zeros(2)).tolist()
        [0.3333333432674408, 0.3333333432674408, 0.3333333432674408]
    """

    bijective = True
    domain = constraints.real_vector
    codomain = log_ratio_simplex

    @full_precision
    def _call(self, x: Tensor) -> Tensor:
        return torch.softmax(from_contrasts(x), -1)

    @full_precision
    def _inverse(self, y: Tensor) -> Tensor:
        return contrasts(y.clamp_min(torch.finfo(y.dtype).tiny).log())

    @full_precision
    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the log-det at the unconstrained vector x (y in the formula of the class), for its image y."""
        log_y = torch.log_softmax(from_contrasts(x), -1)
        return log_y.sum(-1) + 0.5 * math.log(y.shape[-1])

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """Returns the shape of a point on the simplex, with one more component."""
        return torch.Size([*shape[:-1], shape[-1] + 1])

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """Returns the shape of an unconstrained vector, with one component less."""
        return torch.Size([*shape[:-1], shape[-1] - 1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IsometricLogRatio)

    __hash__ = Transform.__hash__


@transform_to.register(_LogRatioSimplex)
@biject_to.register(_LogRatioSimplex)
def _biject_to_log_ratio_simplex(_: Any) -> IsometricLogRatio:
    return IsometricLogRatio()


class _InLogRatios(TorchDistribution):
    """A distribution on the simplex with log-ratios as its unconstrained coordinates; otherwise equal to its base."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it as an instance attribute)
    support = log_ratio_simplex

    def __init__(self, base: Distribution) -> None:
        self.base = base
        self.has_rsample = base.has_rsample
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> _InLogRatios:
        return _InLogRatios(self.base.expand(torch.Size(batch_shape)))

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self.base.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self.base.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        return self.base.variance


class LogRatioReparam(Reparam):
    """A reparametrizer that makes log-ratios the unconstrained coordinates of a site on the simplex.

    Use it if permuting the categories of a Dirichlet site is a symmetry of the model, and the model is used with
    :class:`AutoGFlow`, NeuTra or HMC. K categories have K - 1 coordinates (:class:`IsometricLogRatio`). The site keeps
    its name, its value and its density. Only its map from unconstrained space changes: from stick breaking, which does
    not commute with permutations of the categories, to log-ratios, on which permutations act by orthogonal matrices.

    Raises:
        ValueError: When the model runs: the site's support is not the simplex.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro import poutine
        >>> def model():
        ...     return pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
        >>> trace = poutine.trace(poutine.reparam(model, config={"weights": LogRatioReparam()})).get_trace()
        >>> biject_to(trace.nodes["weights"]["fn"].support)
        IsometricLogRatio()
    """

    def apply(self, msg: Any) -> Any:
        """Replaces the site's distribution by the same distribution with log-ratio coordinates; Pyro calls this."""
        fn, depth = msg["fn"], 0
        while isinstance(fn, Independent):
            fn, depth = fn.base_dist, depth + fn.reinterpreted_batch_ndims
        if not isinstance(fn.support, type(constraints.simplex)):
            raise ValueError(
                f"site {msg['name']!r}: log-ratios are for sites on the simplex, such as Dirichlet, got "
                f"{type(fn).__name__} with support {fn.support}"
            )
        changed = _InLogRatios(fn)
        wrapped = changed.to_event(depth) if depth else changed
        return {"fn": wrapped, "value": msg["value"], "is_observed": msg["is_observed"]}
