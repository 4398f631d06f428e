"""Deep sets as residual branches: networks on rows with a certified Lipschitz constant at any number of rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.actions import RowsAction, RowTables, VectorAction
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.nn.feature_maps import feature_map, size_of
from pyro_gflows.nn.kernel import KernelLayer, LipschitzLayer
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.rows_chain import RowsChain, require_rows
from pyro_gflows.nn.rows_hidden import RowsActivation, hidden_features
from pyro_gflows.nn.rows_linear import RowsLinear
from pyro_gflows.nn.rows_mean import mean_over_rows, row_count
from pyro_gflows.serialization.registry import registered

__all__ = ["LipschitzRowsLinear", "LipschitzRowsNetwork", "require_finite_slope"]


class LipschitzRowsLinear(RowsLinear):
    r"""An equivariant linear map of rows whose norm is at most ``bound``, for all weights and any number of rows.

    In orthonormal coordinates the rows of a block of n rows are their differences and their scaled mean
    :math:`\sqrt n\,\bar x`. The map acts on differences by :math:`W_1`, and on the scaled means of all blocks and the
    rest, side by side, by one matrix M (for a single block :math:`M = W_1 + W_2` in the terms of :class:`RowsLinear`).
    These parts are orthogonal, so the norm of the map is exactly the largest of the norms of the small matrices
    :math:`W_1`, of each block, :math:`W_3`, of the odd features, and M. Each of them has norm at most the bound.

    Args:
        layout_in: What the rows of the input consist of.
        layout_out: What the rows of the output consist of.
        bound: The bound.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> features = RowFeatures.of(RowsAction(50, 2).layout)
        >>> bool(LipschitzRowsLinear(features, features, bound=0.9).lipschitz_bound() <= 0.9 + 1e-6)
        True
    """

    def __init__(self, layout_in: RowFeatures, layout_out: RowFeatures, *, bound: float = 1.0) -> None:
        self.bound = bound
        super().__init__(layout_in, layout_out)

    def _map(self, action_in: VectorAction | None, action_out: VectorAction | None) -> KernelLayer:
        return feature_map(action_in, action_out, bound=self.bound)

    def lipschitz_bound(self) -> Tensor:
        """The exact norm of the map for the present weights."""
        layers = [layer for layer in self.modules() if isinstance(layer, LipschitzLayer)]
        return torch.stack([layer.lipschitz_bound() for layer in layers]).max()

    def forward(self, rows: RowTables, mask: Tensor | None = None) -> RowTables:
        means = [mean_over_rows(x, mask) for x in rows.even]
        roots = [row_count(x, mask) ** 0.5 for x in rows.even]
        scaled = [root * mean for root, mean in zip(roots, means, strict=True)]
        *shared, rest = self.spread.spread(self.pooled(self.pool.gather(scaled, rows.rest)))
        *shifts, rest_shift = self.spread.spread(self.shift(rest.new_zeros(self.spread.count)))
        even = []
        for layer, x, mean, same, shift, root in zip(self.even, rows.even, means, shared, shifts, roots, strict=True):
            same = (same / root + shift).unsqueeze(-2)
            even.append(layer(x - mean.unsqueeze(-2)) + same if x.shape[-2] > 1 else same)
        odd = [layer(z) for layer, z in zip(self.odd, rows.odd, strict=True)]
        return RowTables(tuple(even), tuple(odd), rest + rest_shift)


def require_finite_slope(activation: type[Activation]) -> type[Activation]:
    """The class of an activation, if it has a finite Lipschitz constant.

    Args:
        activation: The class.

    Raises:
        ValueError: If no finite constant holds for all weights.
    """
    if not math.isfinite(activation.lipschitz):
        raise ValueError(
            f"expected a 1-Lipschitz activation for a contraction on rows, such as 'splines', 'lipswish' or (where H "
            f"does more than permute features) 'soft_threshold', got {activation.__name__}, whose slope has no bound"
        )
    return activation


@registered
class LipschitzRowsNetwork(RowsChain, Contraction):
    r"""A deep set whose Lipschitz constant is below ``bound`` for all weights and any number of rows.

    It is the branch f of a residual layer x + f(x) on rows: a chain of equivariant linear maps of rows and activations
    in turn, so that rows read means of features that have read means. Each linear map has norm at most
    :math:`c^{1/(depth + 1)}`, which is the exact norm at any number of rows: in orthonormal coordinates, the
    differences of the rows see one small matrix, and their mean another one. Each activation is 1-Lipschitz. Odd
    features, whose sign follows that of their row, go through the same activation in sums and differences with even
    features, :math:`\sigma((x \pm z)/\sqrt2)`, which keeps their sign and the Lipschitz constant.

    The log-det of such a layer has no form that is linear in the number of rows; :class:`PooledBranch` reads the mean
    once only, and has one.

    Args:
        action: How the group acts on the rows.
        width: The number of hidden fields of a row.
        depth: The number of hidden layers.
        bound: The constant c, in (0, 1).
        activation: The name of a 1-Lipschitz activation, as for :class:`RowsNetwork`; the default is learnable splines
            where H permutes the hidden features of a row, else the soft threshold.

    Raises:
        TypeError: If the action is not a RowsAction, or has matrix fields.
        ValueError: If the bound is outside (0, 1), or the activation is unknown or has no finite Lipschitz constant.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> branch = LipschitzRowsNetwork(RowsAction(50, 2), bound=0.9)
        >>> branch(torch.zeros(5, 100)).shape, bool(branch.lipschitz_bound() <= 0.9 + 1e-6)
        (torch.Size([5, 100]), True)
    """

    default_activations = ("splines", "soft_threshold")

    def __init__(
        self,
        action: RowsAction,
        *,
        width: int = 8,
        depth: int = 1,
        bound: float = 0.98,
        activation: str | None = None,
    ) -> None:
        if not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), got {bound}")
        layout = RowFeatures.of(require_rows(action).layout)
        self._layer_bound = bound ** (1 / (depth + 1))
        super().__init__(layout, layout, width=width, depth=depth, activation=activation)
        self.action: RowsAction = action
        self.bound = bound

    def layer(self, layout_in: RowFeatures, layout_out: RowFeatures) -> LipschitzRowsLinear:
        return LipschitzRowsLinear(layout_in, layout_out, bound=self._layer_bound)

    def hidden(self, layout_in: RowFeatures, layout_out: RowFeatures, width: int) -> VectorAction:
        # norm activations do not mix different irreps: invariants that no row contains would have no effect
        return hidden_features(layout_in, layout_out, width=width, invariants=False)

    def hidden_scale(self, layout_in: RowFeatures, features: VectorAction) -> float:
        # a map of norm 1 from few features to many makes each of the many small: by the root of the ratio
        counts = [size_of(x) + size_of(z) for x, z in zip(layout_in.even, layout_in.odd, strict=True)]
        return min(1.0, float(max(counts, default=1) / features.numel) ** 0.5)

    def checked(self, activation: type[Activation]) -> type[Activation]:
        return require_finite_slope(activation)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights, at any number of rows."""
        bounds = [layer.lipschitz_bound() for layer in each(self.layers, LipschitzRowsLinear)]
        constants = [activation.lipschitz for activation in each(self.activations, RowsActivation)]
        return torch.stack(bounds).prod() * math.prod(constants)

    def forward(self, x: Tensor) -> Tensor:
        return self.action.pack(self.run(self.action.unpack(x)))

    def extra_repr(self) -> str:
        return f"{self.action}, Lipschitz bound {self.bound:g}"
