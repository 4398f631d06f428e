"""The exact log-determinant, for small events."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.precision import at_least_single
from pyro_gflows.numerics.probe_images import ProbeImages
from pyro_gflows.numerics.residual_map import ResidualMap
from pyro_gflows.numerics.transforms_active import transforming
from pyro_gflows.serialization.registry import registered

__all__ = ["ExactLogDet", "log_abs_det"]


@at_least_single
def log_abs_det(matrix: Tensor) -> Tensor:
    """The logarithm log|det A| of square matrices, in closed form up to size 3.

    Args:
        matrix: A, of shape ``(..., d, d)``.

    Raises:
        ValueError: If the matrices are not square.

    Example:
        >>> log_abs_det(torch.diag(torch.tensor([1.0, -1.0])))
        tensor(0.)
    """
    size = matrix.shape[-1]
    if matrix.dim() < 2 or matrix.shape[-2] != size:
        raise ValueError(f"expected square matrices of shape (..., d, d), got {tuple(matrix.shape)}")
    if not 1 <= size <= 3:
        return _expanded(matrix) if transforming() else torch.linalg.slogdet(matrix).logabsdet
    if size == 1:
        return matrix[..., 0, 0].abs().log()
    if size == 2:
        a, b, c, d = matrix.flatten(-2).unbind(-1)
        return (a * d - b * c).abs().log()
    first, second, third = matrix.unbind(-2)
    return (first * torch.linalg.cross(second, third)).sum(-1).abs().log()


def _expanded(matrix: Tensor) -> Tensor:
    """The logarithm log|det A| with its derivatives up to the third, by the power series about A itself.

    It serves forward mode, in which the second derivative of torch's slogdet is wrong.
    """
    constant = matrix.detach()
    inverse, _ = torch.linalg.inv_ex(constant)
    change = inverse @ (matrix - constant)  # its value is zero, its derivatives are not
    series = change - change @ change / 2 + change @ change @ change / 3
    return torch.linalg.slogdet(constant).logabsdet + series.diagonal(dim1=-2, dim2=-1).sum(-1)


@registered
class ExactLogDet(LogDet):
    """The exact log-det of I + J_f(x), from the dense Jacobian.

    Here J_f(x) is the Jacobian of f at x. This estimator suits events with few components d; its call is that of
    :class:`LogDet`. The cost for each row is d vector-Jacobian products in one pass (or the
    branch's own ``call_and_jacobian``) and a determinant of size d x d. If f is equivariant, the result is invariant up
    to rounding. It is the same in training and in evaluation.

    Example:
        >>> x = torch.zeros(4, 2, dtype=torch.float64)
        >>> value, log_det = ExactLogDet()(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=False)
        >>> log_det.shape, round(float(log_det[0]), 6)
        (torch.Size([4]), 0.81093)
    """

    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(create_graph):
            value, jacobian = residual_map.f.call_and_jacobian(x)
            return value, log_abs_det(jacobian + torch.eye(jacobian.shape[-1], dtype=x.dtype, device=x.device))

    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        return "exact"

    def __repr__(self) -> str:
        return "ExactLogDet(exact)"
