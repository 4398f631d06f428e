"""Equivariant linear maps of rows that are permuted and may change sign."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import RowTables, VectorAction
from pyro_gflows.nn.feature_maps import Shift, feature_map, side_by_side, size_of
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.rows_mean import mean_over_rows

__all__ = ["PooledFeatures", "RowsLinear", "require_same_sizes"]


class PooledFeatures(nn.Module):
    """The features that are the same for all rows: the means of the even features of every block, and the rest.

    The means of mean-free features are 0, so they are not among them.

    Args:
        layout: What the rows consist of.

    Attributes:
        action: How H acts on these features; None where there are none.
        count: The number of these features.
    """

    kept: Tensor
    places: Tensor

    def __init__(self, layout: RowFeatures) -> None:
        super().__init__()
        self.sizes = [*map(size_of, layout.even), size_of(layout.rest)]
        free = [~mask for mask in layout.mean_free]
        kept = torch.cat([*free, torch.ones(self.sizes[-1], dtype=torch.bool)])
        self.action = side_by_side(
            [*(_without(action, mask) for action, mask in zip(layout.even, free, strict=True)), layout.rest]
        )
        self._all, self.count = bool(kept.all()), int(kept.sum())
        self.register_buffer("kept", kept.nonzero().flatten(), persistent=False)
        # a feature without a mean reads the column of zeros that stands behind all others
        places = torch.where(kept, kept.cumsum(0) - 1, self.count)
        self.register_buffer("places", places, persistent=False)

    def gather(self, means: Sequence[Tensor], rest: Tensor) -> Tensor:
        """The features, from the mean of the even features of each block and the rest."""
        found = torch.cat([*means, rest], -1)
        return found if self._all else found.index_select(-1, self.kept)

    def spread(self, features: Tensor) -> tuple[Tensor, ...]:
        """The features of each block, and those of the rest; 0 for mean-free features."""
        if not self._all:
            features = nn.functional.pad(features, (0, 1)).index_select(-1, self.places)
        return features.split(self.sizes, -1)


def _without(action: VectorAction | None, kept: Tensor) -> VectorAction | None:
    """The action on the fields that are kept; a mask has one entry for each coordinate."""
    if action is None:
        return None
    starts = [0, *torch.tensor(action.field_sizes).cumsum(0).tolist()]
    fields = [field for field, start in zip(action.fields, starts, strict=False) if kept[start]]
    return action.with_fields(fields) if fields else None


def require_same_sizes(layout_in: RowFeatures, layout_out: RowFeatures) -> None:
    """Raise unless both layouts have the same blocks of rows."""
    if tuple(layout_in.sizes) != tuple(layout_out.sizes):
        raise ValueError(
            f"expected an input and an output with the same blocks of rows, got {tuple(layout_in.sizes)} and "
            f"{tuple(layout_out.sizes)} rows"
        )


class RowsLinear(nn.Module):
    r"""The most general equivariant linear map of rows, computed in a time that is linear in the number of rows.

    The rows are permuted; in a signed group each row may also change its sign, which changes the sign of its odd
    features and leaves its even features as they are. With :math:`x_i` the even and :math:`z_i` the odd features of
    row i,

    .. math:: y_i = W_1 x_i + W_2 \bar x + b, \qquad w_i = W_3 z_i, \qquad \bar x = \frac{1}{n} \sum_j x_j

    Nothing leads from even to odd features or back, since a linear map cannot follow the sign. With several blocks of
    rows, the means of all blocks and the features that no permutation changes (the rest) feed the rows of each block
    and the rest. A row of a block of one row is its own mean, so it has no :math:`W_1`. All matrices commute with the
    group H that acts on the features of a row.

    Args:
        layout_in: What the rows of the input consist of.
        layout_out: What the rows of the output consist of.
        bias: Whether to learn the shift b along the features that H leaves as they are.

    Raises:
        ValueError: If the two layouts do not have the same blocks of rows.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> action = RowsAction(50, 2)
        >>> features = RowFeatures.of(action.layout)
        >>> layer = RowsLinear(features, features)
        >>> sum(weight.numel() for weight in layer.parameters())  # W_1, W_2 and b
        10
        >>> layer(action.unpack(torch.zeros(5, 100))).even[0].shape
        torch.Size([5, 50, 2])
    """

    def __init__(self, layout_in: RowFeatures, layout_out: RowFeatures, *, bias: bool = True) -> None:
        super().__init__()
        require_same_sizes(layout_in, layout_out)
        self.pool, self.spread = PooledFeatures(layout_in), PooledFeatures(layout_out)
        sizes = layout_in.sizes
        self.even = nn.ModuleList(
            self._map(a, b if n > 1 else None) for a, b, n in zip(layout_in.even, layout_out.even, sizes, strict=True)
        )
        self.odd = nn.ModuleList(self._map(a, b) for a, b in zip(layout_in.odd, layout_out.odd, strict=True))
        self.pooled = self._map(self.pool.action, self.spread.action)
        self.shift = Shift(self.spread.action if bias else None)
        self._several = [n > 1 for n in sizes]

    def _map(self, action_in: VectorAction | None, action_out: VectorAction | None) -> KernelLayer:
        return feature_map(action_in, action_out)

    def forward(self, rows: RowTables, mask: Tensor | None = None) -> RowTables:
        pooled = self.pool.gather([mean_over_rows(x, mask) for x in rows.even], rows.rest)
        *shared, rest = self.spread.spread(self.shift(self.pooled(pooled)))
        even = []
        for layer, x, same, several in zip(self.even, rows.even, shared, self._several, strict=True):
            same = same.unsqueeze(-2)
            even.append(layer(x) + same if several else same)
        odd = [layer(z) for layer, z in zip(self.odd, rows.odd, strict=True)]
        return RowTables(tuple(even), tuple(odd), rest)
