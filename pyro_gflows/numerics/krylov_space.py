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

_CACHE = 2**20  # bytes


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
        last: :math:`h_{m+1, m}\,|\varepsilon|\, y_m(t)` at the nodes t, with :math:`y(t) = (I + t H_m)^{-1} e_1`.
        columns: The columns of H without what is below the diagonal, of shapes ``(1,) + batch_shape`` and so on.
        heights: The entries of H below the diagonal, of shape ``(orders,) + batch_shape``.
        norm: The norm of the probe of each row.
    """

    log_det: Tensor
    orders: Tensor
    observed: Tensor
    certified: Tensor
    basis: list[Tensor]
    last: Tensor
    columns: list[Tensor]
    heights: Tensor
    norm: Tensor

    @property
    def following(self) -> Tensor:
        """The vector :math:`v_{m+1}` of each row."""
        return _of_order(torch.stack(self.basis), self.orders, 1)

    def solution(self) -> tuple[Tensor, Tensor]:
        r"""The Galerkin solution w of :math:`(I + A)\, w = \varepsilon`, and c with the residual :math:`-c\, v_{m+1}`.

        They have the shapes ``batch_shape + (d,)`` and ``batch_shape``.
        """
        size = len(self.columns)
        zero = torch.zeros_like(self.norm).unsqueeze(0)
        padded = []
        for index, column in enumerate(self.columns, start=1):
            below = [self.heights[index - 1 : index]] if index < size else []
            padded.append(torch.cat([column, *below, *[zero] * (size - index - len(below))]))
        matrix = torch.stack(padded, 1).movedim((0, 1), (-2, -1))
        inside = torch.arange(size, device=matrix.device) < self.orders.unsqueeze(-1)
        matrix = torch.where(inside.unsqueeze(-1) & inside.unsqueeze(-2), matrix, 0.0)
        identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
        unit = identity[:, :1].expand(*matrix.shape[:-1], 1)
        weights = torch.linalg.solve_ex(identity + matrix, unit)[0].squeeze(-1).movedim(-1, 0) * self.norm
        solution = _combined(weights, torch.stack(self.basis[:size]))
        return solution, _of_order(self.heights * weights, self.orders)


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
    norm, vector = _normalized(probe, squared, squared > 0)
    grown, basis = HessenbergLog(nodes), [vector]
    columns: list[Tensor] = []
    heights: list[Tensor] = []
    changes: list[Tensor] = []
    ends: list[Tensor] = []
    count = torch.zeros_like(norm, dtype=torch.int64)
    active = torch.ones_like(norm, dtype=torch.bool)
    for order in range(1, (rule.most if orders is None else orders[1]) + 1):
        column, height, vector = _step(product(vector), torch.stack(basis))
        change, end = grown.append(column, heights[-1] if heights else None)
        changes.append(squared * (weights * change).sum(-1))
        ends.append(end)
        columns.append(column)
        heights.append(height)
        basis.append(vector)
        count = count + active
        if orders is not None:
            active = orders[0] > order
            continue
        with torch.no_grad():
            far = (changes[-1].abs() > rule.difference) | (height * end.abs().amax(-1) > rule.residual)
            active = active & far & (height > 0)  # a row with NaN stops
        if rule.difference > 0 and _may_stop(active) and not anywhere(active):
            break
    # what comes after the order of a row does not count
    below, change = torch.stack(heights), torch.stack(changes)
    steps = torch.arange(len(heights), device=count.device).reshape(-1, *[1] * count.dim())
    log_det = torch.where(steps < count, change, 0.0).sum(0)
    last = _of_order((norm * below).unsqueeze(-1) * torch.stack(ends), count)
    with torch.no_grad():
        # the next order of an invariant space adds nothing
        observed = _of_order(torch.where(below > 0, change.abs(), 0.0), count)
        beyond = nodes * lipschitz / (1 - nodes * lipschitz)
        certified = norm * (weights * beyond * last.abs()).sum(-1)
    return KrylovSpace(log_det, count, observed, certified, basis, last, columns, below, norm)


def _step(image: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A column of H, the entry below its diagonal, and the next basis vector, from A times the last basis vector.

    Where only rounding is left of the image, the entry and the vector are zero, and so is all that follows from them.
    """
    before = image.square().sum(-1)
    first = _components(image, vectors)
    image = image - _combined(first, vectors)
    second = _components(image, vectors)
    image = image - _combined(second, vectors)
    after = image.square().sum(-1)
    left = after > (64 * torch.finfo(image.dtype).eps) ** 2 * before
    return first + second, *_normalized(image, after, left)


def _normalized(vector: Tensor, squared: Tensor, nonzero: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of a vector and the vector of norm one, from its squared norm; zero, with derivative zero, elsewhere."""
    root = torch.where(nonzero, squared, 1.0).sqrt()
    return torch.where(nonzero, root, 0.0), vector * (nonzero / root).unsqueeze(-1)


def _components(vector: Tensor, basis: Tensor) -> Tensor:
    """The inner products with the vectors of a basis, whose first axis counts them."""
    if _fits_cache(basis):
        return (basis * vector).sum(-1)
    return (basis.movedim(0, -2) @ vector.unsqueeze(-1)).squeeze(-1).movedim(-1, 0)


def _combined(weights: Tensor, basis: Tensor) -> Tensor:
    """The sum of the vectors of a basis, each times its weight."""
    if _fits_cache(basis):
        return (weights.unsqueeze(-1) * basis).sum(0)
    return (weights.movedim(0, -1).unsqueeze(-2) @ basis.movedim(0, -2)).squeeze(-2)


def _fits_cache(basis: Tensor) -> bool:
    """Whether products and sums are faster than many products of a small matrix with a vector."""
    return basis.numel() * basis.element_size() <= _CACHE


def _of_order(values: Tensor, orders: Tensor, after: int = 0) -> Tensor:
    """For each row the entry that belongs to its order, or to an order after it, along the first axis."""
    index = (orders - 1 + after).reshape(1, *orders.shape, *[1] * (values.dim() - orders.dim() - 1))
    return torch.take_along_dim(values, index, 0).squeeze(0)


def _may_stop(active: Tensor) -> bool:
    """Whether the number of products may depend on the values of tensors; it may not where they have none."""
    return not active.is_meta


def certified_factor(lipschitz: float) -> float:
    r"""The integral of :math:`t L / (1 - t L)` over t in [0, 1], which turns a residual into a bound of the error.

    Args:
        lipschitz: The bound L.
    """
    return -math.log1p(-lipschitz) / lipschitz - 1 if lipschitz else 0.0
