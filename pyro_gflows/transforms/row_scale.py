"""RowScale: an affine map of rows, with one scale for each row and each irreducible part of its features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, RowsAction
from pyro_gflows.groups import Representation, TrivialRepresentation
from pyro_gflows.groups.decomposition import decompose, side_by_side
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.groups.structured_field import InnerField
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.transformers import BasisAffine

__all__ = ["RowScale"]


class _FieldScale(nn.Module):
    """The scales of one field: the basis of the irreps of H in a row, and how the scales spread over the rows.

    Attributes:
        scales: The fields of the log-scales.
    """

    copy: Tensor

    def __init__(self, field: Representation) -> None:
        super().__init__()
        features, self._rows, self._per_row = _features(field)
        parts = side_by_side([decompose(feature) for feature in features], [feature.size for feature in features])
        dims = torch.tensor([isotype.dim for isotype in parts for _ in range(isotype.multiplicity)])
        rows = torch.cat([isotype.basis.flatten(0, 1) for isotype in parts])
        single = all(feature.size == 1 for feature in features)
        self.basis = None if single else FixedBasis(rows)
        self.register_buffer("copy", torch.arange(len(dims)).repeat_interleave(dims), persistent=False)
        trivial = TrivialRepresentation(features[0].group)
        self.scales: list[Representation]
        if isinstance(field, RowField) and self._per_row:
            self.scales = [RowField(field.structure, [trivial] * len(dims), blocks=field.blocks)]
        else:
            self.scales = [TrivialRepresentation(field.group)] * len(dims)
        self.count, self.size, self._width = sum(scale.size for scale in self.scales), field.size, len(rows)

    def log_scales(self, raw: Tensor) -> Tensor:
        """The log-scale of each coordinate in the basis, from the log-scale of each irrep (in each row)."""
        table = raw.unflatten(-1, (self._rows if self._per_row else 1, -1)).index_select(-1, self.copy)
        return table.expand(*table.shape[:-2], self._rows, -1).flatten(-2)

    def change(self, x: Tensor, *, back: bool) -> Tensor:
        """The coordinates of x in the basis, or the vector with these coordinates."""
        if self.basis is None:
            return x
        basis = self.basis(x)
        return (x.unflatten(-1, (self._rows, self._width)) @ (basis if back else basis.T)).flatten(-2)


@registered
class RowScale(BasisAffine):
    r"""A transformer with one scale for each row and each irreducible part of its features, for rows that are permuted.

    .. math:: y_i = \sum_a e^{s_{ia}} P_a x_i + t_i, \qquad \log|\det J| = \sum_{i, a} d_a s_{ia}

    It is the default where a group H acts on the features of every row, such as rotations on points of the plane, and
    where some features sum to 0 over the rows. P_a projects the features of a row onto the a-th smallest piece (irrep)
    that H maps to itself, of dimension d_a; where H does nothing, that is a single feature. The parameters are a
    log-scale s_ia for each row i and each piece a, which goes with its row and which neither H nor a sign of the row
    changes (invariant pieces first), and a shift t, on which the group acts as on x. A feature of sum 0 has one scale
    for all rows and a shift of sum 0, which keep the sum. Coordinates that no permutation changes have one scale for
    each piece.

    Args:
        action: How the group acts on the part, a RowsAction.
        max_log_scale: Smooth bound of \|s\|.

    Raises:
        TypeError: ``action`` is not a RowsAction.
        ValueError: The event holds matrices whose rows and columns are permuted.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> RowScale(RowsAction(13, VectorAction.space("O(3)"))).params_action
        RowsAction(S13 x O(3) on R^52: rows + rows of 3)
        >>> RowScale(RowsAction(20, mean_free=True)).params_action
        RowsAction(S20 on R^20: trivial + mean-free rows)
    """

    def __init__(self, action: LinearAction, *, max_log_scale: float = 3.0) -> None:
        super().__init__(action, max_log_scale=max_log_scale)
        if not isinstance(action, RowsAction):
            raise TypeError(f"expected a RowsAction, whose rows are permuted, got {action}; use IrrepScale")
        self.parts = nn.ModuleList(_FieldScale(field) for field in action.fields)
        self._counts = [part.count for part in self._parts()]
        self._sizes = [part.size for part in self._parts()]
        scales = [scale for part in self._parts() for scale in part.scales]
        self.params_action = action.with_fields(scales).direct_sum(action)

    def _parts(self) -> list[_FieldScale]:
        return list(self.parts)  # type: ignore[arg-type]

    def _to_basis(self, x: Tensor) -> Tensor:
        return self._changed(x, back=False)

    def _from_basis(self, x: Tensor) -> Tensor:
        return self._changed(x, back=True)

    def _changed(self, x: Tensor, *, back: bool) -> Tensor:
        if all(part.basis is None for part in self._parts()):
            return x
        pieces = zip(self._parts(), x.split(self._sizes, -1), strict=True)
        return torch.cat([part.change(piece, back=back) for part, piece in pieces], -1)

    def _log_scale_and_shift(self, params: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        raw, shift = self._halves(params, sum(self._counts))
        pieces = zip(self._parts(), self._bounded(raw).split(self._counts, -1), strict=True)
        log_scale = torch.cat([part.log_scales(piece) for part, piece in pieces], -1)
        return (log_scale, shift) if mask is None else (log_scale * mask, shift * mask)


def _features(field: Representation) -> tuple[tuple[Representation, ...], int, bool]:
    """How H acts on the columns of a field, the number of its rows, and whether each row has scales of its own."""
    if isinstance(field, RowField):
        return field.features, field.rows - int(field.mean_free), not field.mean_free
    if isinstance(field, InnerField):
        return (field.feature,), 1, False
    raise ValueError(f"expected fields of rows, got {field}; canonical forms carry matrices along (Canonicalized)")
