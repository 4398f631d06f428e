"""Networks on rows, deep sets and attention, for a pair of RowsActions."""

from __future__ import annotations

from typing import NoReturn

from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, RowsAction
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.rows_attention import AttentiveRows, Over
from pyro_gflows.nn.rows_chain import RowsChain, require_rows
from pyro_gflows.serialization.registry import registered

__all__ = ["RowsAttention", "RowsNetwork"]


@registered
class RowsNetwork(RowsChain):
    r"""A deep set: an equivariant network from rows to rows whose cost is linear in the number of rows.

    It computes, for example, the parameters of a coupling layer for every row of a set, and is what :func:`conditioner`
    makes for a :class:`~pyro_gflows.RowsAction`. In each layer a row reads its own features, the mean of the features
    of all rows (of every block), and the features that belong to no row, which are the context of a whole set, say:

    .. math:: h_i \mapsto \sigma\big(W_1 h_i + W_2 \bar h + W_3 c + b\big), \qquad \bar h = \frac{1}{n} \sum_j h_j

    Odd features, whose sign follows that of their row, are activated in sums and differences with the even features of
    the same row, :math:`\sigma((x \pm z)/\sqrt2)`. So products of two odd features of a row feed its even features, and
    odd features stay odd. Where a group H acts on the features of each row, all matrices commute with H, and hidden
    features are regular fields (H a small finite group) or invariants and vectors with gates. A call maps
    ``batch_shape + action_in.event_shape`` to ``batch_shape + action_out.event_shape``.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output: rows of the same blocks.
        width: The number of hidden fields of a row.
        depth: The number of hidden layers.
        activation: The name of the activation, as for :class:`EquivariantNetwork`; the default is "lipswish" where H
            permutes the hidden features of a row, else "gated".

    Raises:
        TypeError: If an action is not a RowsAction, or has matrix fields.
        ValueError: If the two actions have other groups, the width is below 1, the depth is negative, or the activation
            is unknown.

    Source: Deep Sets, arXiv:1703.06114.

    Example:
        >>> import torch
        >>> from pyro_gflows import RowsAction
        >>> action = RowsAction(50, 2)
        >>> network = RowsNetwork(action, action.direct_sum(action.trivial_fields(3)))
        >>> network(torch.zeros(5, 100)).shape
        torch.Size([5, 103])
    """

    def __init__(
        self,
        action_in: LinearAction,
        action_out: LinearAction,
        *,
        width: int = 16,
        depth: int = 2,
        activation: str | None = None,
    ) -> None:
        source, target = require_rows(action_in), require_rows(action_out)
        if source.group != target.group:
            raise ValueError(f"expected two actions of one group on rows, got {source} and {target}")
        self._last = RowFeatures.of(target.layout)
        super().__init__(RowFeatures.of(source.layout), self._last, width=width, depth=depth, activation=activation)
        self.action_in: RowsAction = source
        self.action_out: RowsAction = target

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The output; with a mask, means run over the rows that it keeps, and only these rows of the output count.

        Args:
            x: Events, shape ``batch_shape + action_in.event_shape``.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``; None where all are.
        """
        return self.action_out.pack(self.run(self.action_in.unpack(x), mask))


@registered
class RowsAttention(RowsNetwork):
    r"""A network on rows in which a row also reads the others by attention, in place of their plain mean alone.

    It suits sets in which a few rows matter to each row. Each hidden layer adds
    :math:`\sum_j a_{ij} V h_j` to that of a :class:`RowsNetwork`, where the weights :math:`a_{ij}` are functions of
    invariant features of the rows. With ``over="means"`` a row mixes ``keys`` weighted means of all rows, each a
    softmax over the rows, at a cost that is linear in the number of rows; with ``over="pairs"`` it reads every row, at
    a quadratic cost. Odd features are read through products of two of them, in which the sign of the other row cancels.

    Attention is not Lipschitz, so it has no place in the branch of a residual layer.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output: rows of the same blocks.
        width: The number of hidden fields of a row.
        depth: The number of hidden layers.
        activation: The name of the activation, as for :class:`RowsNetwork`.
        keys: The number of weighted means, or, over pairs, of scalars in a query.
        over: "means" or "pairs".

    Raises:
        TypeError: As for RowsNetwork.
        ValueError: As for RowsNetwork, or if there is no key, or ``over`` is unknown.

    Source: Attention is all you need, arXiv:1706.03762; Efficient attention, arXiv:1812.01243.

    Example:
        >>> import torch
        >>> from pyro_gflows import RowsAction
        >>> action = RowsAction(50, 2)
        >>> RowsAttention(action, action, over="pairs")(torch.zeros(5, 100)).shape
        torch.Size([5, 100])
    """

    def __init__(
        self,
        action_in: LinearAction,
        action_out: LinearAction,
        *,
        width: int = 16,
        depth: int = 2,
        activation: str | None = None,
        keys: int = 8,
        over: Over = "means",
    ) -> None:
        if keys < 1 or over not in ("means", "pairs"):
            raise ValueError(f"expected keys >= 1 and over='means' or over='pairs', got {keys} and {over!r}")
        self._keys, self._over = keys, over
        super().__init__(action_in, action_out, width=width, depth=depth, activation=activation)

    def layer(self, layout_in: RowFeatures, layout_out: RowFeatures) -> nn.Module:
        if layout_out is self._last:
            return super().layer(layout_in, layout_out)
        return AttentiveRows(layout_in, layout_out, keys=self._keys, over=self._over)

    def lipschitz_bound(self) -> NoReturn:
        """Refuse to be the branch of a residual layer.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            "expected a contraction, got RowsAttention: the weights of attention depend on the rows, so that its slope "
            "grows with them without bound; take PooledBranch or LipschitzRowsNetwork"
        )
