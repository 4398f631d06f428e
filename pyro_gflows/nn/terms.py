"""Term: the type of the summands of a LipschitzSum."""

from __future__ import annotations

from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.numerics import Product, pullback

__all__ = ["Term"]


class Term(nn.Module):
    """Equivariant functions of vectors, each 1-Lipschitz, with their Jacobians in closed form.

    This is the base class of the terms of a sum f = sum_k weights_k f_k over functions f_k. The ready-made ones are
    ``Ridges``, for finite groups, and ``RadialTerm``, for all groups. A term of your own for a :class:`LipschitzSum` is
    a subclass that sets ``action`` and ``terms`` and writes ``call_and_jacobian``. Where the value alone, or a product
    with the transpose of the Jacobian, costs less than the Jacobian, it also overrides ``forward`` and
    ``call_and_pullback``, which solvers and estimators use.

    Attributes:
        action: How the group acts on events.
        terms: The number of functions.

    Example:
        >>> import torch
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.nn import LipschitzSum
        >>> class Identity(Term):
        ...     terms = 1
        ...     def __init__(self, action):
        ...         super().__init__()
        ...         self.action = action
        ...     def call_and_jacobian(self, x, weights):
        ...         jacobian = torch.eye(x.shape[-1]).expand(*x.shape, -1)
        ...         return weights[0] * x, weights[0] * jacobian
        >>> branch = LipschitzSum([Identity(VectorAction.plane("O(2)"))], bound=0.5)
        >>> bool(branch.lipschitz_bound() < 0.5)
        True
    """

    action: LinearAction
    terms: int

    def call_and_jacobian(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The sum ``sum_k weights_k f_k(x)`` and its Jacobian, of shapes ``batch + (d,)`` and ``batch + (d, d)``.

        Args:
            x: Events of shape ``batch + (d,)``.
            weights: The weight of each function, shape ``(terms,)``.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """The sum ``sum_k weights_k f_k(x)`` alone.

        Args:
            x: As for :meth:`call_and_jacobian`.
            weights: As for :meth:`call_and_jacobian`.
        """
        return self.call_and_jacobian(x, weights)[0]

    def call_and_pullback(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Product]:
        """The sum, and the map v -> J^T v for its Jacobian J at x, as for :func:`~pyro_gflows.numerics.pullback`.

        Args:
            x: As for :meth:`call_and_jacobian`.
            weights: As for :meth:`call_and_jacobian`.
        """
        return pullback(lambda point: self(point, weights), x)
