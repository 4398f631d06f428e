"""A transformer with a full matrix."""

from __future__ import annotations

from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.numerics import expm_apply, limit_norm, low_rank_expm_apply, low_rank_matrix
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.transformers import Transformer

__all__ = ["MatrixScale"]

_DENSE_UP_TO = 32  # coordinates


@renamed_arguments(cap="max_log_scale")
@registered
class MatrixScale(Transformer):
    r"""A transformer with a full matrix for vectors: the exponential of a matrix of low rank.

    .. math:: y = \exp(S)\,x + t, \qquad S = \sum_i a_i u_i v_i^T, \qquad \log|\det J| = \mathrm{tr}\,S

    It stretches and rotates x along directions that depend on the other parts of the event, while :class:`IrrepScale`
    only scales. The parameters are the scalars a_i, the vectors u_i and v_i of the size of x, and the shift t. If a
    group element g acts on the other parts, a network leaves a_i unchanged and multiplies u_i, v_i and t by the matrix
    :math:`\rho(g)`, by which g acts on x. So S becomes :math:`\rho(g) S \rho(g)^T` and, if g acts on x too, y becomes
    :math:`\rho(g) y`.
    The norm of S has a smooth bound. The map is invertible because an exponential is. On events of more than 32
    coordinates the matrix is never built, so that the cost grows linearly with their size.

    Args:
        action: How the group acts on vectors.
        rank: The number of terms in S.
        max_log_scale: Smooth bound of the norm of S.

    Raises:
        ValueError: Events are not vectors.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> MatrixScale(VectorAction.space("SO(3)"), rank=1).params_action
        VectorAction(SO(3) on R^10: trivial + 3 x defining)
    """

    start = 0.3  # at 0 the product of a, u and v would have no gradient

    def __init__(self, action: LinearAction, *, rank: int = 2, max_log_scale: float = 3.0) -> None:
        super().__init__(action, max_log_scale=max_log_scale)
        if action.event_dim != 1:
            raise ValueError(f"MatrixScale works on vectors, got {action}")
        self.rank = rank
        self.params_action = action.trivial_fields(rank).direct_sum(action.copies(2 * rank + 1))

    def _factors_and_shift(self, params: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        coefficients, vectors = self._halves(params, self.rank)
        columns = vectors.unflatten(-1, (2 * self.rank + 1, self.action.numel)).mT
        left, right, shift = columns.split([self.rank, self.rank, 1], -1)
        return (left, coefficients, right), shift.squeeze(-1)

    def _exponential(self, factors: tuple[Tensor, Tensor, Tensor], x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        if self.action.numel > _DENSE_UP_TO:
            return low_rank_expm_apply(x, *factors, bound=self.max_log_scale, inverse=inverse)
        return expm_apply(limit_norm(low_rank_matrix(*factors), self.max_log_scale), x, inverse=inverse)

    def extra_repr(self) -> str:
        return f"rank {self.rank}, norm of S within {self.max_log_scale:g}"

    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        factors, shift = self._factors_and_shift(params)
        image, ladj = self._exponential(factors, x, False)
        return image + shift, ladj

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        factors, shift = self._factors_and_shift(params)
        return self._exponential(factors, y - shift, True)
