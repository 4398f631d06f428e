"""The Krylov space of a transposed Jacobian and a probe, with what it says about the log-det."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.numerics.hessenberg_log import HessenbergLog, log_quadrature
from pyro_gflows.numerics.tracing import refuse_tracing
from pyro_gflows.numerics.transforms_active import anywhere

__all__ = ["KrylovSpace", "StoppingRule", "krylov_space"]


@dataclass(frozen=True)
class StoppingRule:
    r"""When the Krylov space of a row is large enough.

    A row stops at the first order m at which the estimates of the orders m - 1 and m differ by at most ``difference``,
    and the residuals of all equations :math:`(I + t J^T) w = \varepsilon` with t in [0, 1] are at most ``residual``
    times the probe; or where the space is invariant under :math:`J^T`; or else at the order ``most``.

    Args:
        difference: The largest accepted difference of two orders, in nats. At 0 all products are taken, and no value is
            read by the host, which would make it wait for a GPU.
        residual: The largest accepted residual, relative to the norm of the probe.
        most: The largest order.

    Example:
        >>> StoppingRule(difference=0.01, residual=0.01, most=20).most
        20
    """

    difference: float
    residual: float
    most: int


@dataclass(frozen=True)
class KrylovSpace:
    r"""An orthonormal basis of the Krylov space of :math:`A = J^T` and a probe for each row, and estimates from it.

    Each row has its own order m, after which its basis vectors do not count.

    Attributes:
        log_det: The estimate :math:`|\varepsilon|^2\, e_1^T \log(I + H_m)\, e_1` of
            :math:`\varepsilon^T \log(I + A)\, \varepsilon`, of shape ``batch_shape``.
        orders: The order m of each row, which is its number of products with A.
        observed: The difference of the estimates of the orders m - 1 and m; zero where the space is invariant under A.
        certified: A bound of the error of ``log_det``, which holds if the norm of A is at most the Lipschitz bound.
        basis: The vectors :math:`v_1, v_2, ...`, each of shape ``batch_shape + (d,)``.
        following: The vector :math:`v_{m+1}` of each row.
        last: :math:`h_{m+1, m}\,|\varepsilon|\, y_m(t)` at the nodes t, with :math:`y(t) = (I + t H_m)^{-1} e_1`.
        columns: The columns of H.
        norm: The norm of the probe of each row.
    """

    log_det: Tensor
    orders: Tensor
    observed: Tensor
    certified: Tensor
    basis: list[Tensor]
    following: Tensor
    last: Tensor
    columns: list[list[Tensor]]
    norm: Tensor

    def solution(self) -> tuple[Tensor, Tensor]:
        r"""The Galerkin solution w of :math:`(I + A)\, w = \varepsilon`, and c with the residual :math:`-c\, v_{m+1}`.

        They have the shapes ``batch_shape + (d,)`` and ``batch_shape``.
        """
        size = len(self.columns)
        zero = torch.zeros_like(self.norm)
        matrix = torch.stack(
            [torch.stack(column[:size] + [zero] * (size - len(column)), -1) for column in self.columns], -1
        )
        inside = torch.arange(size, device=matrix.device) < self.orders.unsqueeze(-1)
        matrix = torch.where(inside.unsqueeze(-1) & inside.unsqueeze(-2), matrix, 0.0)
        identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
        unit = identity[:, :1].expand(*matrix.shape[:-1], 1)
        weights = torch.linalg.solve_ex(identity + matrix, unit)[0].squeeze(-1)
        solution = (weights * self.norm.unsqueeze(-1)).unsqueeze(-2) @ torch.stack(self.basis[:size], -2)
        below = torch.stack([column[-1] for column in self.columns], -1)
        final = torch.arange(1, size + 1, device=matrix.device) == self.orders.unsqueeze(-1)
        return solution.squeeze(-2), self.norm * torch.where(final, below * weights, 0.0).sum(-1)


def krylov_space(
    product: Callable[[Tensor], Tensor],
    probe: Tensor,
    rule: StoppingRule,
    *,
    lipschitz: float,
    orders: tuple[Tensor, int] | None = None,
) -> KrylovSpace:
    r"""The Krylov space of :math:`A = J^T` and the probe, by Arnoldi's method with orthogonalization done twice.

    All rows take part in every product. Rows that have stopped keep their estimates.

    Args:
        product: The map v -> A v, row by row.
        probe: A probe for each row, of shape ``batch_shape + (d,)``.
        rule: When a row stops.
        lipschitz: A bound of the norm of A, below 1.
        orders: The order of each row and the largest of them, if they are known already; else None.
    """
    refuse_tracing("the Krylov log-det")
    nodes, weights = log_quadrature(lipschitz, probe)
    squared = probe.square().sum(-1)
    norm = _root(squared)
    grown, basis = HessenbergLog(nodes), [_scaled(probe, norm)]
    columns: list[list[Tensor]] = []
    log_det = observed = torch.zeros_like(norm)
    count = torch.zeros_like(norm, dtype=torch.int64)
    active = torch.ones_like(norm, dtype=torch.bool)
    following, last = torch.zeros_like(probe), norm.unsqueeze(-1) * torch.zeros_like(nodes)
    for order in range(1, (rule.most if orders is None else orders[1]) + 1):
        column, height, vector = _step(product(basis[-1]), basis)
        change, end = grown.append(column, None if not columns else columns[-1][-1])
        change, end = squared * (weights * change).sum(-1), norm.unsqueeze(-1) * height.unsqueeze(-1) * end
        columns.append([*column, height])
        basis.append(vector)
        log_det = torch.where(active, log_det + change, log_det)
        with torch.no_grad():
            # the next order of an invariant space adds nothing
            observed = torch.where(active, torch.where(height > 0, change.detach().abs(), 0.0), observed)
            count = count + active
        following = torch.where(active.unsqueeze(-1), vector, following)
        last = torch.where(active.unsqueeze(-1), end, last)
        if orders is not None:
            active = orders[0] > order
            continue
        with torch.no_grad():
            far = (observed > rule.difference) | (last.abs().amax(-1) > rule.residual * norm)
            active = active & far & (height > 0)  # a row with NaN stops
        if rule.difference > 0 and _may_stop(active) and not anywhere(active):
            break
    with torch.no_grad():
        beyond = nodes * lipschitz / (1 - nodes * lipschitz)
        certified = norm * (weights * beyond * last.abs()).sum(-1)
    return KrylovSpace(log_det, count, observed, certified, basis, following, last, columns, norm)


def _step(image: Tensor, basis: list[Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
    """A column of H, the entry below its diagonal, and the next basis vector, from A times the last basis vector.

    Where only rounding is left of the image, the entry and the vector are zero, and so is all that follows from them.
    """
    vectors = torch.stack(basis, -2)
    before = image.square().sum(-1)
    first = (vectors @ image.unsqueeze(-1)).squeeze(-1)
    image = image - (first.unsqueeze(-2) @ vectors).squeeze(-2)
    second = (vectors @ image.unsqueeze(-1)).squeeze(-1)
    image = image - (second.unsqueeze(-2) @ vectors).squeeze(-2)
    after = image.square().sum(-1)
    left = after > (64 * torch.finfo(image.dtype).eps) ** 2 * before
    height = _root(torch.where(left, after, 0.0))
    return list((first + second).unbind(-1)), height, _scaled(image, height)


def _root(squared: Tensor) -> Tensor:
    """The square root, with derivative zero at zero."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def _scaled(vector: Tensor, norm: Tensor) -> Tensor:
    """The vector divided by its norm; zero where the norm is zero."""
    positive = (norm > 0).unsqueeze(-1)
    return torch.where(positive, vector / torch.where(positive, norm.unsqueeze(-1), 1.0), 0.0)


def _may_stop(active: Tensor) -> bool:
    """Whether the number of products may depend on the values of tensors; it may not where they have none."""
    return not active.is_meta


def certified_factor(lipschitz: float) -> float:
    r"""The integral of :math:`t L / (1 - t L)` over t in [0, 1], which turns a residual into a bound of the error.

    Args:
        lipschitz: The bound L.
    """
    return -math.log1p(-lipschitz) / lipschitz - 1 if lipschitz else 0.0
