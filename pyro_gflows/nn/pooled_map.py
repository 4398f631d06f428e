"""Maps of rows that read the other rows through pooled features only, with a certified Lipschitz constant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import Rows, VectorAction
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.feature_maps import Shift, side_by_side, size_of
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.row_function import RowFunction, RowSignature
from pyro_gflows.nn.rows_linear import PooledFeatures
from pyro_gflows.nn.rows_mean import mean_over_rows, rows_there
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
        self.sizes = tuple(layout.sizes)
        shared = side_by_side([*[pooled] * len(self.sizes), layout.rest])
        own_shared = side_by_side([pooled] * len(self.sizes))

        def function(even: VectorAction | None, odd: VectorAction | None, read: VectorAction | None) -> nn.Module:
            signature = RowSignature(even, odd, read, even, odd)
            return RowFunction(signature, hidden, activation=activation, depth=depth, bound=bound)

        pairs = list(zip(layout.even, layout.odd, strict=True))
        self.functions = nn.ModuleList(function(even, odd, shared) for even, odd in pairs)
        if layout.rest is not None:
            self.functions.append(function(layout.rest, None, own_shared))
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
        self._readers = len(self.functions)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights."""
        outer = torch.stack([function.lipschitz_bound() for function in each(self.functions, RowFunction)]).square()
        inner = torch.stack([pool.lipschitz_bound() for pool in each(self.pools, RowFunction)]).max().square()
        if self._rest:
            inner = inner.clamp_min(1.0)
        own, read = self.angle.detach().cos().square(), self.angle.detach().sin().square()
        return (own * outer.max() + read * outer.mean() * inner).sqrt()

    def _reading(self, rows: int | Tensor) -> Tensor:
        """The factor of the pooled features in what the rows of a block of so many rows read."""
        return self.angle.sin() * (self._readers * rows) ** -0.5

    def _own_and_shared(self, x: Tensor, shared: Tensor, rows: int | Tensor) -> Tensor:
        read = (self._reading(rows) * shared).unsqueeze(-2)
        return torch.cat([self.angle.cos() * x, read.expand(*x.shape[:-1], read.shape[-1])], -1)

    def forward(self, rows: Rows, shift: Rows | None = None, mask: Tensor | None = None) -> Rows:
        """The value f(x), which is 0 in rows that are not there.

        Args:
            rows: x.
            shift: What a context does to the first hidden layers of the functions F.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``, if there is one block; None where all
                are.
        """
        pooled, counts = [], rows_there(self.sizes, mask, rows.rest)
        for pool, x, z, n in zip(self.pools, rows.even, rows.odd, counts, strict=True):
            pooled.append(n**0.5 * mean_over_rows(pool(x, z)[0], mask))
        shared = torch.cat([*pooled, rows.rest], -1)
        even, odd = [], []
        for index, (x, z, n) in enumerate(zip(rows.even, rows.odd, counts, strict=True)):
            value, odd_value = self.functions[index](
                self._own_and_shared(x, shared, n), self.angle.cos() * z, _shift(shift, index)
            )
            even.append(value)
            odd.append(odd_value)
        rest = rows.rest
        if self._rest:
            own = self._own_and_shared(rest.unsqueeze(-2), shared[..., : -self._rest], 1)
            rest = self.functions[-1](own, own[..., :0], _rest_shift(shift))[0].squeeze(-2)
        return self._shifted(even, odd, rest, mask)

    def call_and_jacobian(
        self, rows: Rows, shift: Rows | None = None, mask: Tensor | None = None
    ) -> tuple[Rows, PooledJacobian]:
        """The value f(x), and its Jacobian; the features of a row are its even ones, then its odd ones.

        Args:
            rows: x.
            shift: As for the value.
            mask: As for the value.
        """
        own, count = self.angle.cos(), self._pooled * len(self.sizes) + self._rest
        pooled, feeds, counts = [], [], rows_there(self.sizes, mask, rows.rest)
        for index, (x, z, n) in enumerate(zip(rows.even, rows.odd, counts, strict=True)):
            (value, _), (slope, _) = each(self.pools, RowFunction)[index].call_and_jacobians(x, z)
            pooled.append(n**0.5 * mean_over_rows(value, mask))
            start = index * self._pooled
            slope = (n if isinstance(n, int) else n[..., None, None]) ** -0.5 * _kept_matrices(slope, mask)
            feeds.append(nn.functional.pad(slope, (0, 0, start, count - start - self._pooled)))
        shared = torch.cat([*pooled, rows.rest], -1)
        even, odd, blocks = [], [], []
        for index, (x, z, n) in enumerate(zip(rows.even, rows.odd, counts, strict=True)):
            (value, odd_value), slopes = each(self.functions, RowFunction)[index].call_and_jacobians(
                self._own_and_shared(x, shared, n), own * z, _shift(shift, index)
            )
            even.append(value)
            odd.append(odd_value)
            slope = _kept_matrices(torch.cat(slopes, -2), mask)
            in_x, in_shared, in_z = slope.split([x.shape[-1], count, z.shape[-1]], -1)
            reading = self._reading(n) if isinstance(n, int) else self._reading(n)[..., None, None]
            blocks.append(PooledBlock(own * torch.cat([in_x, in_z], -1), reading * in_shared, feeds[index]))
        rest = rows.rest
        if self._rest:
            read = self._own_and_shared(rest.unsqueeze(-2), shared[..., : -self._rest], 1)
            (value, _), (slope, _) = each(self.functions, RowFunction)[-1].call_and_jacobians(
                read, read[..., :0], _rest_shift(shift)
            )
            in_x, in_shared = slope.split([self._rest, count - self._rest], -1)
            in_shared = nn.functional.pad(in_shared, (0, self._rest))
            itself = torch.eye(self._rest, dtype=rest.dtype, device=rest.device)
            feed = nn.functional.pad(itself, (0, 0, count - self._rest, 0))
            feed = feed.expand(*rest.shape[:-1], 1, *feed.shape)
            blocks.append(PooledBlock(own * in_x, self._reading(1) * in_shared, feed))
            rest = value.squeeze(-2)
        return self._shifted(even, odd, rest, mask), PooledJacobian(blocks)

    def _shifted(self, even: Sequence[Tensor], odd: Sequence[Tensor], rest: Tensor, mask: Tensor | None) -> Rows:
        """The value with the shift of its even features, and with 0 in rows that are not there."""
        *shifts, rest_shift = self.outputs.spread(self.shift(rest.new_zeros(self.outputs.count)))
        shifted = tuple(_kept(x + shift, mask) for x, shift in zip(even, shifts, strict=True))
        return Rows(shifted, tuple(_kept(z, mask) for z in odd), rest + rest_shift)


def _kept(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Features of rows, of shape ``batch + (n, F)``, with 0 in rows that are not there."""
    return rows if mask is None else rows * mask[..., None]


def _kept_matrices(rows: Tensor, mask: Tensor | None) -> Tensor:
    """Matrices of rows, of shape ``batch + (n, d, e)``, with 0 in rows that are not there."""
    return rows if mask is None else rows * mask[..., None, None]


def _shift(shift: Rows | None, index: int) -> tuple[Tensor, Tensor] | None:
    return None if shift is None else (shift.even[index], shift.odd[index])


def _rest_shift(shift: Rows | None) -> tuple[Tensor, Tensor] | None:
    return None if shift is None else (shift.rest.unsqueeze(-2), shift.rest[..., :0].unsqueeze(-2))
