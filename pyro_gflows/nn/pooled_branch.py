"""PooledBranch: a residual branch on rows that reads the mean of the rows once, with a log-det in linear time."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pyro_gflows.actions import RowsAction, RowTables
from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.nn.kernel import kernels_once
from pyro_gflows.nn.networks import activation_class
from pyro_gflows.nn.pooled_map import PooledMap
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.rows_chain import RowsChain, require_rows
from pyro_gflows.nn.rows_hidden import hidden_features
from pyro_gflows.nn.rows_lipschitz import require_finite_slope
from pyro_gflows.numerics import PooledJacobian, Product, jacobian_by_autograd, pullback
from pyro_gflows.serialization.registry import registered

__all__ = ["PooledBranch", "PooledBranchGiven"]


@registered
class PooledBranch(Contraction):
    r"""A contraction on rows in which every row reads itself and one mean, with its exact log-det in linear time.

    It is the default branch of a residual layer for a :class:`~pyro_gflows.RowsAction`, at any number of rows.

    .. math:: f_i(x) = F(\cos\theta\, x_i,\; \sin\theta\, m), \qquad m = \frac{1}{n} \sum_j h(x_j)

    F and h are small networks, applied to each row alike, with Lipschitz constants of at most c and 1; the angle
    :math:`\theta` is learnable. A mean over n rows shrinks distances by :math:`\sqrt n`, and n rows read it, so the
    Lipschitz constant of f is at most c at any n. Since the rows are coupled through m alone, the Jacobian is
    block-diagonal plus a product of low rank: :class:`~pyro_gflows.numerics.PooledLogDet` has its exact log-det, and
    :class:`~pyro_gflows.numerics.PooledNewtonSolver` the inverse of the layer, both in a time that is linear in n.
    With several blocks of rows, each has an F and an h of its own, and all rows read the means of all blocks and the
    features that belong to no row. Odd features, whose sign follows that of their row, stay odd. Mean-free fields are
    read as n rows, and the mean is taken off the value.

    With a context, an unconstrained network on rows computes shifts of the hidden features of F, and factors of at most
    1 that multiply them, so that f is a contraction for every context.

    Args:
        action: How the group acts on the rows.
        width: The number of hidden fields of F and of h.
        depth: The number of hidden layers of F and of h.
        pooled: The number of fields of h(x).
        bound: The constant c, in (0, 1).
        activation: The name of a 1-Lipschitz activation; the default is learnable splines where H permutes the hidden
            features of a row, else the soft threshold.
        context_action: How the same group acts on a context: rows of the same blocks, or features of the whole set.

    Raises:
        TypeError: If an action is not a RowsAction, or has matrix fields.
        ValueError: If the bound is outside (0, 1), a number is too small, the activation is unknown or has no finite
            Lipschitz constant, or the context is acted on by another group.

    Example:
        >>> from pyro_gflows import GResidual, RowsAction
        >>> action = RowsAction(50, 2)
        >>> GResidual(action, PooledBranch(action)).log_det
        PooledLogDet(exact, linear in the rows)
    """

    def __init__(
        self,
        action: RowsAction,
        *,
        width: int = 16,
        depth: int = 1,
        pooled: int = 8,
        bound: float = 0.98,
        activation: str | None = None,
        context_action: RowsAction | None = None,
    ) -> None:
        super().__init__()
        if not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), got {bound}")
        if width < 1 or depth < 1 or pooled < 1:
            raise ValueError(f"expected width, depth and pooled of at least 1, got {width}, {depth} and {pooled}")
        layout = RowFeatures.of(require_rows(action).layout)
        # norm activations do not mix different irreps: invariants that no row contains would have no effect
        hidden = hidden_features(layout, width=width, invariants=False)
        kind = require_finite_slope(activation_class(activation, hidden, ("splines", "soft_threshold")))
        self.map = PooledMap(
            layout,
            hidden,
            hidden_features(layout, width=pooled, invariants=False),
            activation=kind,
            depth=depth,
            bound=bound,
        )
        self.action: RowsAction = action
        self.bound = bound
        self._projects = any(bool(mask.any()) for mask in layout.mean_free)
        for block, mask in enumerate(layout.mean_free):
            self.register_buffer(f"mean_free_{block}", mask.nonzero().flatten(), persistent=False)
        self.context_action: RowsAction | None = None
        if context_action is not None:
            self.context_action = require_rows(context_action)
            if context_action.group != action.group:
                raise ValueError(f"expected a context of the group of {action}, got {context_action}")
            gated = hidden.direct_sum(hidden.trivial_fields(len(hidden.fields)))
            shifts = replace(layout.hidden(layout, gated), odd=layout.hidden(layout, hidden).odd)
            read = RowFeatures.of(context_action.layout)
            self.encoder = RowsChain(read, shifts, width=width, depth=1, activation=None)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights, at any number of rows."""
        return self.map.lipschitz_bound()

    def condition(self, context: Tensor) -> PooledBranchGiven:
        """The map x -> f(x | context), for contexts of the batch shape of x."""
        if self.context_action is None:
            raise ValueError("expected a branch with a context_action, got one that takes no context")
        return PooledBranchGiven(self, self.encoder.run(self.context_action.unpack(context)))

    def masked(self, mask: Tensor, context: Tensor | None = None) -> PooledBranchGiven:
        """The map x -> f(x) of the rows that are there, which is 0 in the others.

        Args:
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``, with the batch shape of x.
            context: Contexts of the same batch shape; None where the branch takes none.
        """
        shift = None
        if self.context_action is not None and context is not None:
            shift = self.encoder.run(self.context_action.unpack(context), mask)
        return PooledBranchGiven(self, shift, mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x)

    def value(self, x: Tensor, shift: RowTables | None = None, mask: Tensor | None = None) -> Tensor:
        """The value f(x).

        Args:
            x: Events.
            shift: What a context does to the first hidden layer of F.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``; None where all are.
        """
        return self.action.pack(self.map(self.action.unpack(x), shift, mask))

    def call_and_pooled_jacobian(
        self, x: Tensor, shift: RowTables | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, PooledJacobian]:
        """The value f(x), and a matrix of the rows with the determinant of I + J.

        Args:
            x: Events.
            shift: As for :meth:`value`.
            mask: As for :meth:`value`.
        """
        with kernels_once(self):
            rows, jacobian = self.map.call_and_jacobian(self.action.unpack(x), shift, mask)
        if self._projects:
            jacobian = jacobian.without_means(self._mean_free())
        return self.action.pack(rows), jacobian

    def _mean_free(self) -> list[Tensor]:
        found = [self.get_buffer(f"mean_free_{block}") for block in range(len(self.action.layout.sizes))]
        return found if self.action.layout.rest is None else [*found, found[0][:0]]

    def solve_pooled(self, jacobian: PooledJacobian, vector: Tensor) -> Tensor:
        """The solution s of (I + J) s = v, for an event v.

        Args:
            jacobian: The matrix that :meth:`call_and_pooled_jacobian` gives.
            vector: v, of the shape of an event.
        """
        rows = self.action.unpack(vector)
        parts = [torch.cat(pair, -1) for pair in zip(rows.even, rows.odd, strict=True)]
        rest = [] if rows.rest.shape[-1] == 0 else [rows.rest.unsqueeze(-2)]
        found = jacobian.solve([*parts, *rest])
        pairs = [
            part.split([x.shape[-1], z.shape[-1]], -1) for part, x, z in zip(found, rows.even, rows.odd, strict=False)
        ]
        solved = RowTables(
            tuple(x for x, _ in pairs), tuple(z for _, z in pairs), found[-1].squeeze(-2) if rest else rows.rest
        )
        return self.action.pack(solved)

    def extra_repr(self) -> str:
        return f"{self.action}, Lipschitz bound {self.bound:g}"


class PooledBranchGiven:
    """The map x -> f(x | context) of a :class:`PooledBranch` for one batch of contexts, of masks, or of both.

    Args:
        branch: The branch f.
        shift: What the contexts do to the first hidden layer of F.
        mask: Which rows are there; None where all are.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> action = RowsAction(50, 2)
        >>> branch = PooledBranch(action, context_action=action.trivial_fields(3))
        >>> branch.condition(torch.ones(5, 3))(torch.zeros(5, 100)).shape
        torch.Size([5, 100])
    """

    def __init__(self, branch: PooledBranch, shift: RowTables | None, mask: Tensor | None = None) -> None:
        self.branch, self.shift, self.mask = branch, shift, mask

    def __call__(self, x: Tensor) -> Tensor:
        return self.branch.value(x, self.shift, self.mask)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value and its dense Jacobian in x."""
        return jacobian_by_autograd(self, x, 1)

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The value and the map v -> J^T v, where J is the Jacobian in x."""
        return pullback(self, x)

    def call_and_pooled_jacobian(self, x: Tensor) -> tuple[Tensor, PooledJacobian]:
        """The value, and a matrix of the rows with the determinant of I + J."""
        return self.branch.call_and_pooled_jacobian(x, self.shift, self.mask)

    def solve_pooled(self, jacobian: PooledJacobian, vector: Tensor) -> Tensor:
        """The solution s of (I + J) s = v, for an event v."""
        return self.branch.solve_pooled(jacobian, vector)
