"""Maps of rows that read the other rows through pooled features only, with a certified Lipschitz constant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_gflows.actions import RowTables, VectorAction
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.feature_maps import Shift, side_by_side, size_of
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.row_function import RowFunction, RowSignature
from pyro_gflows.nn.rows_linear import PooledFeatures
from pyro_gflows.nn.rows_mean import mean_over_rows, row_count
from pyro_gflows.numerics import PooledBlock, PooledJacobian

__all__ = ["PooledMap"]


class PooledMap(nn.Module):
    r"""The map :math:`f_i = F(\cos\theta\,x_i, \sin\theta\,m)` of rows, where m is the mean of :math:`h(x_j)`.

    With several blocks of rows and features that belong to no row (the rest, one row of its own), every reader a has a
    function :math:`F_a` and every block b a function :math:`h_b`. The pooled features in orthonormal coordinates are
    :math:`t = (\sqrt{n_b}\,\bar h_b)_b` and the rest. A row of block a reads :math:`\sin\theta\,t / \sqrt{s\,n_a}`,
    where there are s readers. Since a mean over n rows has norm :math:`1/\sqrt n`, t is a 1-Lipschitz function of all
    rows, and so are, together, all that is read: the Lipschitz constant of f is at most that of the :math:`F_a`.

    Args:
        layout: What the rows consist of.
        hidden: How H acts on the features of hidden layers.
        pooled: How H acts on the values of h.
        activation: The class of the activation.
        depth: The number of hidden layers of F and of h.
        bound: The Lipschitz bound.
    """

    def __init__(
        self,
        layout: RowFeatures,
        hidden: VectorAction,
        pooled: VectorAction,
        *,
        activation: type[Activation],
        depth: int,
        bound: float,
    ) -> None:
        super().__init__()
        means = side_by_side([pooled] * len(layout.sizes))

        def function(even: VectorAction | None, odd: VectorAction | None, read: VectorAction | None) -> nn.Module:
            signature = RowSignature(even, odd, read, even, odd)
            return RowFunction(signature, hidden, activation=activation, depth=depth, bound=bound)

        pairs = list(zip(layout.even, layout.odd, strict=True))
        self.functions = nn.ModuleList(function(even, odd, side_by_side([means, layout.rest])) for even, odd in pairs)
        if layout.rest is not None:
            self.functions.append(function(layout.rest, None, means))
        self.pools = nn.ModuleList(
            RowFunction(
                RowSignature(even, odd, None, pooled, None), hidden, activation=activation, depth=depth, bound=1.0
            )
            for even, odd in pairs
        )
        # one shift of all values, which no Jacobian depends on
        self.outputs = PooledFeatures(layout)
        self.shift = Shift(self.outputs.action)
        self.angle = nn.Parameter(torch.tensor(math.pi / 4))
        self._pooled, self._rest = pooled.numel, size_of(layout.rest)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights."""
        outer = torch.stack([function.lipschitz_bound() for function in each(self.functions, RowFunction)]).square()
        inner = torch.stack([pool.lipschitz_bound() for pool in each(self.pools, RowFunction)]).max().square()
        if self._rest:
            inner = inner.clamp_min(1.0)
        own, read = self.angle.detach().cos().square(), self.angle.detach().sin().square()
        return (own * outer.max() + read * outer.mean() * inner).sqrt()

    def forward(self, rows: RowTables, shift: RowTables | None = None, mask: Tensor | None = None) -> RowTables:
        """The value f(x), which is 0 in rows that are not there.

        Args:
            rows: x.
            shift: What a context does to the first hidden layers of the functions F.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``, if there is one block; None where all
                are.
        """
        pools = [pool(x, z)[0] for pool, x, z in zip(self.pools, rows.even, rows.odd, strict=True)]
        readers = self._read(rows, pools, shift, mask)
        return self._joined([reader.function(reader.x, reader.z, reader.shift) for reader in readers], mask)

    def call_and_jacobian(
        self, rows: RowTables, shift: RowTables | None = None, mask: Tensor | None = None
    ) -> tuple[RowTables, PooledJacobian]:
        """The value f(x), and its Jacobian; the features of a row are its even ones, then its odd ones.

        Args:
            rows: x.
            shift: As for the value.
            mask: As for the value.
        """
        found = [
            pool.call_and_jacobians(x, z)
            for pool, x, z in zip(each(self.pools, RowFunction), rows.even, rows.odd, strict=True)
        ]
        readers = self._read(rows, [value for (value, _), _ in found], shift, mask)
        feeds = self._feeds([slope for _, (slope, _) in found], rows.rest, mask)
        values, blocks = [], []
        for reader, feed in zip(readers, feeds, strict=True):
            value, slopes = reader.function.call_and_jacobians(reader.x, reader.z, reader.shift)
            values.append(value)
            own = reader.x.shape[-1] - reader.count
            slope = _kept(torch.cat(slopes, -2), reader.mask)
            in_x, in_shared, in_z = slope.split([own, reader.count, reader.z.shape[-1]], -1)
            in_shared = nn.functional.pad(in_shared, (0, feed.shape[-2] - reader.count))
            in_own = self.angle.cos() * torch.cat([in_x, in_z], -1)
            reading = self._reading(row_count(reader.x, reader.mask))
            blocks.append(PooledBlock(in_own, _for_matrices(reading) * in_shared, feed))
        return self._joined(values, mask), PooledJacobian(blocks)

    def _read(
        self, rows: RowTables, pools: Sequence[Tensor], shift: RowTables | None, mask: Tensor | None
    ) -> list[_Reader]:
        """What the functions F read, block by block; the rest is one row that does not read itself once more."""
        scaled = [row_count(x, mask) ** 0.5 * mean_over_rows(x, mask) for x in pools]
        shared = torch.cat([*scaled, rows.rest], -1)
        parts = [*zip(rows.even, rows.odd, [shared] * len(pools), strict=True)]
        shifts: list[tuple[Tensor, Tensor] | None] = [None] * len(parts)
        if shift is not None:
            shifts = [*zip(shift.even, shift.odd, strict=True)]
        if self._rest:
            row = rows.rest.unsqueeze(-2)
            parts.append((row, row[..., :0], shared[..., : -self._rest]))
            shifts.append(None if shift is None else (shift.rest.unsqueeze(-2), row[..., :0]))
        readers: list[_Reader] = []
        for function, (x, z, read), added in zip(each(self.functions, RowFunction), parts, shifts, strict=True):
            kept = mask if len(readers) < len(pools) else None
            read_by_each = (self._reading(row_count(x, kept)) * read).unsqueeze(-2).expand(*x.shape[:-1], -1)
            joined = torch.cat([self.angle.cos() * x, read_by_each], -1)
            readers.append(_Reader(function, joined, self.angle.cos() * z, added, read.shape[-1], kept))
        return readers

    def _reading(self, rows: int | Tensor) -> Tensor:
        """The factor of the pooled features in what the rows of a block of so many rows read."""
        return self.angle.sin() * (len(self.functions) * rows) ** -0.5

    def _feeds(self, slopes: Sequence[Tensor], rest: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The derivatives of all pooled features in each row; those of the rest are the rest itself."""
        count, found = self._pooled * len(slopes) + self._rest, []
        for index, slope in enumerate(slopes):
            start = index * self._pooled
            around = (0, 0, start, count - start - self._pooled)
            root = row_count(slope.flatten(-2), mask) ** -0.5
            found.append(nn.functional.pad(_for_matrices(root) * _kept(slope, mask), around))
        if self._rest:
            itself = torch.eye(self._rest, dtype=rest.dtype, device=rest.device)
            itself = nn.functional.pad(itself, (0, 0, count - self._rest, 0))
            found.append(itself.expand(*rest.shape[:-1], 1, *itself.shape))
        return found

    def _joined(self, values: Sequence[tuple[Tensor, Tensor]], mask: Tensor | None) -> RowTables:
        """The values of all functions with their shifts, and 0 in rows that are not there."""
        like = values[0][0]
        *shifts, rest_shift = self.outputs.spread(self.shift(like.new_zeros(self.outputs.count)))
        even = tuple(_kept(value + shift, mask) for (value, _), shift in zip(values, shifts, strict=False))
        odd = tuple(_kept(value, mask) for _, value in values[: len(shifts)])
        rest = values[-1][0].squeeze(-2) + rest_shift if self._rest else like.new_zeros(*like.shape[:-2], 0)
        return RowTables(even, odd, rest)


@dataclass(frozen=True)
class _Reader:
    """A function F with its arguments: even and shared features (and their count), odd ones, a shift, and a mask."""

    function: RowFunction
    x: Tensor
    z: Tensor
    shift: tuple[Tensor, Tensor] | None
    count: int
    mask: Tensor | None


def _for_matrices(factor: float | Tensor) -> float | Tensor:
    """A factor of all features, as a factor of a matrix for each row; one without dimensions stays as it is."""
    return factor[..., None, None] if isinstance(factor, Tensor) and factor.ndim else factor


def _kept(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Values or matrices of rows, of shape ``batch + (n, ...)``, with 0 in rows that are not there."""
    return rows if mask is None else rows * mask.reshape(*mask.shape, *[1] * (rows.ndim - mask.ndim)).to(rows.dtype)
