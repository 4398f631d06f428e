"""RowStretch: a map of the vector of each row, along its radius about a center and along two directions."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction, RowsAction
from pyro_gflows.groups import TrivialRepresentation
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.nn import BoundedKnots, Knots
from pyro_gflows.nn.radius_splines import radius_knots, stretched
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.transformers import Transformer

__all__ = ["RowStretch"]

_VECTORS = 4  # the center, the shift, and the directions of stretching and of shrinking


@registered
class RowStretch(Transformer):
    r"""A transformer of rows that are vectors: each is stretched along its radius, then along two directions.

    It is the map of an augmented coupling on particles (:func:`g_augmented_coupling`). A scale for each row, as in
    :class:`RowScale`, cannot tell one direction from another; this map can, for every group of rotations, since all
    directions are vectors that the network computes.

    .. math:: \rho_i = x_i - m_i, \qquad
        y_i = m_i + t_i + e^{u_i u_i^T} e^{-w_i w_i^T}\, R_i(|\rho_i|)\,\frac{\rho_i}{|\rho_i|}

    .. math:: \log|\det J| = \sum_i \Big(|u_i|^2 - |w_i|^2 + \log R_i'(|\rho_i|)
        + (d - 1) \log\frac{R_i(|\rho_i|)}{|\rho_i|}\Big)

    The parameters of row i are the center m_i, the shift t_i, the directions u_i and w_i, all of them vectors, and the
    knots of the increasing spline R_i with R_i(0) = 0, which are scalars. The exponential of the symmetric matrix
    :math:`u u^T` has a closed form: it stretches by :math:`e^{|u|^2}` along u. The map is bijective because each factor
    is, and all inverses have a closed form. It is equivariant since a rotation takes the vectors with it and leaves the
    knots as they are.

    Args:
        action: How the group acts on the rows: fields of one vector for each row.
        bins: The number of pieces of each spline.
        limit: The radius at which the linear tail of the spline begins.
        max_log_scale: Bound of the log-scales along u and w.
        knots: How parameters become widths, heights and slopes; by default ``BoundedKnots(secant=16.0)``.

    Raises:
        TypeError: ``action`` is not a RowsAction.
        ValueError: The fields are not one vector for each row, all alike, or bins or limit is not positive.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> layer = RowStretch(RowsAction(4, VectorAction.plane("O(2)")), bins=2)
        >>> layer.params_action
        RowsAction(S4 x O(2) on R^64: rows of 8 + rows of 8)
        >>> layer(torch.ones(8), torch.zeros(64))[0].tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    start = 0.1  # at u = 0 and w = 0 the gradient of both would be 0

    def __init__(
        self,
        action: LinearAction,
        *,
        bins: int = 8,
        limit: float = 4.0,
        max_log_scale: float = 3.0,
        knots: Knots | None = None,
    ) -> None:
        super().__init__(action, max_log_scale=max_log_scale)
        if not isinstance(action, RowsAction):
            raise TypeError(f"expected a RowsAction, whose rows are permuted, got {action}")
        if bins < 1 or not 0 < limit < float("inf"):
            raise ValueError(f"expected bins >= 1 and a positive limit, got {bins} and {limit}")
        first = action.fields[0]
        alike = all(field == first for field in action.fields)
        if not alike or not isinstance(first, RowField) or first.mean_free or any(first.odd):
            raise ValueError(f"expected one vector for each row, such as ParticleAction(4, 2).rows, got {action}")
        self.bins, self.limit = bins, limit
        self.knots = BoundedKnots(secant=16.0) if knots is None else knots
        self._clouds, self._rows, self._d = len(action.fields), first.rows, first.width
        trivial = TrivialRepresentation(first.features[0].group)
        scalars = [trivial] * (self._clouds * (3 * bins + 2))
        vectors = first.features * (self._clouds * _VECTORS)
        self.params_action = action.with_fields(
            [RowField(first.structure, features, blocks=first.blocks) for features in (scalars, vectors)]
        )
        self._scalars = self._rows * len(scalars)

    def _read(self, params: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """The knots and the four vectors of each row, of the shape of :meth:`_table`."""
        scalars, vectors = self._halves(params, self._scalars)
        raw = scalars.unflatten(-1, (self._rows, self._clouds, -1)).transpose(-3, -2)
        table = vectors.unflatten(-1, (self._rows, self._clouds, _VECTORS, self._d)).transpose(-4, -3)
        return radius_knots(raw, self.knots, self.limit), list(table.unbind(-2))

    def _table(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self._clouds, self._rows, self._d))

    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        at_knots, (center, shift, along, against) = self._read(params)
        image, ladj = stretched(self._table(x) - center, at_knots)
        image, shrunk = self._scaled(image, against, -1.0)
        image, grown = self._scaled(image, along, 1.0)
        return (image + center + shift).flatten(-3), (ladj + shrunk + grown).flatten(-2).sum(-1)

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        at_knots, (center, shift, along, against) = self._read(params)
        image, shrunk = self._scaled(self._table(y) - shift - center, along, -1.0)
        image, grown = self._scaled(image, against, 1.0)
        image, ladj = stretched(image, at_knots, inverse=True)
        return (image + center).flatten(-3), (ladj + shrunk + grown).flatten(-2).sum(-1)

    def _scaled(self, x: Tensor, direction: Tensor, sign: float) -> tuple[Tensor, Tensor]:
        """The vectors exp(sign u u^T) x, and the log-det, for a direction that is bounded to u."""
        square = direction.square().sum(-1, keepdim=True)
        bounded = square / (1 + square / self.max_log_scale)  # |u|^2
        growth = torch.expm1(sign * bounded) / square.clamp_min(torch.finfo(x.dtype).tiny)
        inner = (direction * x).sum(-1, keepdim=True)
        return x + growth * inner * direction, sign * bounded.squeeze(-1)

    def extra_repr(self) -> str:
        return f"{self.bins} bins on [0, {self.limit:g}], {super().extra_repr()}"
