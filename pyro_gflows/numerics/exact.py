"""The exact log-determinant, for small events."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, dense_jacobian
from pyro_gflows.numerics.log_det import LogDet, Orbit
from pyro_gflows.precision import at_least_single
from pyro_gflows.registry import registered

__all__ = ["ExactLogDet", "log_abs_det"]


@at_least_single
def log_abs_det(matrix: Tensor) -> Tensor:
    """log|det A| of square matrices of shape (..., d, d); in closed form for d <= 3.

    >>> log_abs_det(torch.diag(torch.tensor([1.0, -1.0])))
    tensor(0.)
    """
    size = matrix.shape[-1]
    if matrix.dim() < 2 or matrix.shape[-2] != size:
        raise ValueError(f"expected square matrices of shape (..., d, d), received {tuple(matrix.shape)}")
    if not 1 <= size <= 3:
        return torch.linalg.slogdet(matrix).logabsdet
    if size == 1:
        return matrix[..., 0, 0].abs().log()
    if size == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
        return (a * d - b * c).abs().log()
    first, second, third = matrix.unbind(-2)
    return (first * torch.linalg.cross(second, third)).sum(-1).abs().log()


@registered
class ExactLogDet(LogDet):
    """The exact log-det of I + J_f(x), from the dense Jacobian.

    Cost: d vector-Jacobian products in one pass, or the branch's own ``call_and_jacobian``, and a determinant of
    d x d for each row. Exactly invariant up to rounding where f is equivariant; the same in training and evaluation.

    >>> x = torch.zeros(4, 2, dtype=torch.float64)
    >>> value, log_det = ExactLogDet()(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=False)
    >>> log_det.shape, round(float(log_det[0]), 6)
    (torch.Size([4]), 0.81093)
    """

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
        if hasattr(f, "call_and_jacobian"):
            with torch.set_grad_enabled(create_graph):
                value, jacobian = f.call_and_jacobian(x)
        else:
            value, jacobian = dense_jacobian(f, x, event_dim, create_graph=create_graph)
        with torch.set_grad_enabled(create_graph):
            return value, log_abs_det(jacobian + torch.eye(jacobian.shape[-1], dtype=x.dtype, device=x.device))

    def describe(self, *, lipschitz: float | Tensor, dim: int) -> str:
        return "exact"

    def __repr__(self) -> str:
        return "ExactLogDet(exact)"
