"""A residual branch that takes a context and is a contraction for every context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn.conditioners import conditioner
from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.nn.lipschitz_network import lipschitz_branch
from pyro_gflows.numerics import Product
from pyro_gflows.serialization.registry import registered

__all__ = ["BranchGiven", "ConditionalBranch"]


@registered
class ConditionalBranch(Contraction):
    r"""A contraction of x for every context c, :math:`f(x \mid c) = P_x F(x \oplus e(c))`.

    It is the branch of a conditional residual layer, for example in an amortized posterior. Here F is an equivariant
    contraction of the event and some features of the context side by side, e is an unconstrained equivariant network
    that computes the features, and P_x keeps the components of the event. The Lipschitz constant in x is at most that
    of F, whatever e does. Since F, e and P_x are equivariant, so is f: :math:`f(\rho(g) x \mid \rho_c(g) c) = \rho(g)
    f(x \mid c)`.

    Args:
        action: How the group acts on x.
        context_action: How the same group acts on c, which is a vector where x is one, and an image where x is one.
        bound: The Lipschitz bound of F, in (0, 1).
        width: The number of invariant features (on images: scalar fields), beside one copy of the event. Under a
            continuous group the features are two copies of the event and no invariants.

    Raises:
        ValueError: If the two actions do not fit together, or if the bound is outside (0, 1).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> branch = ConditionalBranch(VectorAction.plane("D4"), VectorAction.regular("D4"))
        >>> branch.condition(torch.zeros(5, 8))(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    action: LinearAction

    def __init__(
        self, action: LinearAction, context_action: LinearAction, *, bound: float = 0.99, width: int = 4
    ) -> None:
        super().__init__()
        require_linear(context_action)
        # elsewhere F does not mix different irreps, so invariant features would have no effect on x
        features = action.trivial_fields(width).direct_sum(action) if action.is_enumerable else action.copies(2)
        self.action, self.context_action, self.bound = action, context_action, bound
        self.encoder = conditioner(context_action, features, width=2 * width, depth=1, start=1.0)
        self.network = lipschitz_branch(action.direct_sum(features), bound=bound)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant in x for the present weights, which holds for every context."""
        return self.network.lipschitz_bound()

    def condition(self, context: Tensor) -> BranchGiven:
        """The map x -> f(x | context), for contexts of the batch shape of x."""
        return BranchGiven(self.network, self.encoder(context), self.action)


class BranchGiven:
    """The map from x to P_x F(x and features side by side) for fixed features, with its Jacobian in x.

    It is the branch of a :class:`ConditionalBranch` for one batch of contexts.

    Args:
        network: The contraction F.
        features: Features that the context gives, which broadcast with the batch of x.
        action: How the group acts on x.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("D4")
        >>> network = lipschitz_branch(action.direct_sum(action))
        >>> BranchGiven(network, torch.ones(2), action)(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, network: Contraction, features: Tensor, action: LinearAction) -> None:
        self.network, self.features, self.action = network, features, action
        self._dim = -action.event_dim

    def _joint(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.ndim - self.action.event_dim]
        return torch.cat([x, self.features.expand(batch + self.features.shape[self._dim :])], self._dim)

    def __call__(self, x: Tensor) -> Tensor:
        value: Tensor = self.network(self._joint(x))
        return value.narrow(self._dim, 0, x.shape[self._dim])

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value and its Jacobian in x, on the flattened event."""
        value, jacobian = self.network.call_and_jacobian(self._joint(x))
        d = self.action.numel  # the fields of x come first, also when flattened
        return value.narrow(self._dim, 0, x.shape[self._dim]), jacobian[..., :d, :d]

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The value and the map v -> J^T v, where J is the Jacobian in x."""
        joint = self._joint(x)
        value, product = self.network.call_and_pullback(joint)
        own, others = x.shape[self._dim], joint.shape[self._dim] - x.shape[self._dim]

        def cut(vector: Tensor, *, create_graph: bool) -> Tensor:
            filled = torch.nn.functional.pad(vector, (0, 0) * (-self._dim - 1) + (0, others))
            return product(filled, create_graph=create_graph).narrow(self._dim, 0, own)

        return value.narrow(self._dim, 0, own), cut

    def of_rows(self, batch: Sequence[int], rows: Tensor) -> BranchGiven:
        """The branch for the features of some rows of a batch, as for ``Contraction.of_rows``."""
        event = self.features.shape[self._dim :]
        features = self.features.expand(*batch, *event).reshape(-1, *event).index_select(0, rows)
        return BranchGiven(self.network, features, self.action)
