"""Potential: the type of a function V whose gradient map x + grad V(x) is a bijection."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyro_gflows.actions import Action
from pyro_gflows.numerics import Product, jacobian_by_autograd, pullback
from pyro_gflows.numerics.precision import on_methods

__all__ = ["Potential"]


class Potential(nn.Module):
    r"""An invariant function V of events whose Hessian stays above -1, so that x + grad V(x) is a bijection.

    .. math:: V(g\,x) = V(x), \qquad v^T\, \nabla^2 V(x)\, v \ge -c\,|v|^2, \quad c < 1

    Here x is an event, v a displacement of it, and g any group element. The Hessian has no upper bound, so that the map
    may expand as much as it likes, while a residual layer with a contraction cannot double a distance. This is the
    base class of the potentials that :class:`~pyro_gflows.transforms.GGradient` takes; the ready-made one is
    :class:`TorusPotential`. A potential of your own is a subclass that sets ``action``, and writes ``forward``, which
    gives the gradient of V, and ``curvature_bound``. A closed form of the Hessian in ``call_and_jacobian`` is optional.

    Attributes:
        action: How the group acts on events.

    Example:
        >>> import torch
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.transforms import GGradient
        >>> class Bowl(Potential):
        ...     def __init__(self, action):
        ...         super().__init__()
        ...         self.action = action
        ...         self.weight = nn.Parameter(torch.ones(()))
        ...     def forward(self, x):  # V(x) = weight^2 |x|^4 / 4
        ...         return self.weight.square() * x.square().sum(-1, keepdim=True) * x
        ...     def curvature_bound(self):
        ...         return torch.zeros(())
        >>> action = VectorAction.plane("O(2)")
        >>> GGradient(action, Bowl(action), fast="sample")(torch.ones(2)).tolist()
        [3.0, 3.0]
    """

    action: Action

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, ("curvature_bound",))

    def curvature_bound(self) -> Tensor:
        """c, a number below 1 such that no eigenvalue of the Hessian is below -c, for the present weights."""
        raise NotImplementedError(f"{type(self).__name__} has to write curvature_bound()")

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of V at x and the Hessian on the flattened event, of shape ``batch_shape + (d, d)``.

        This method uses automatic differentiation; a subclass that knows a closed form overrides it.

        Args:
            x: Events, of shape ``batch_shape + event_shape``.
        """
        return jacobian_by_autograd(self, x, self.action.event_dim)

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The gradient of V at x, and the product of the Hessian with vectors.

        Args:
            x: Events, of shape ``batch_shape + event_shape``.
        """
        return pullback(self, x)
