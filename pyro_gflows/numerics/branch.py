"""Branches f of residual maps x + f(x), as estimators and solvers take them: a map that gives its derivatives too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, Product, dense_jacobian, pullback

__all__ = ["BranchWithJacobian", "DifferentiableBranch", "as_branch", "constant_jacobian", "jacobian_by_autograd"]


@runtime_checkable
class BranchWithJacobian(Protocol):
    """A map of events to events of the same shape, row by row, that gives its Jacobian together with its value."""

    def __call__(self, x: Tensor) -> Tensor:
        """f(x), of the shape of x."""
        ...

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and its Jacobian on the flattened event, of shape batch_shape + (d, d); differentiable if gradients are
        enabled."""
        ...


@runtime_checkable
class DifferentiableBranch(BranchWithJacobian, Protocol):
    """The same, which also multiplies vectors by the transpose of its Jacobian: what estimators and solvers work with.

    Any callable becomes one by :func:`as_branch`.
    """

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """f(x), and the map v -> J^T v at x, as :func:`~pyro_gflows.numerics.jacobian.pullback` gives them."""
        ...


@dataclass(frozen=True)
class _ByAutograd:
    """Any map, with what it does not give itself by automatic differentiation."""

    f: Branch | BranchWithJacobian
    event_dim: int

    def __call__(self, x: Tensor) -> Tensor:
        return self.f(x)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return jacobian_by_autograd(self.f, x, self.event_dim)

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        return pullback(self.f, x)


@dataclass(frozen=True)
class _WithJacobian(_ByAutograd):
    """A map that gives its Jacobian itself."""

    f: BranchWithJacobian

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.f.call_and_jacobian(x)


def as_branch(f: Branch, event_dim: int) -> DifferentiableBranch:
    """f itself where it gives all derivatives; else f with those that automatic differentiation finds.

    >>> as_branch(torch.sin, 1).call_and_jacobian(torch.zeros(5, 2))[1].shape
    torch.Size([5, 2, 2])
    """
    if isinstance(f, DifferentiableBranch):
        return f
    return _WithJacobian(f, event_dim) if isinstance(f, BranchWithJacobian) else _ByAutograd(f, event_dim)


def jacobian_by_autograd(f: Branch, x: Tensor, event_dim: int) -> tuple[Tensor, Tensor]:
    """f(x) and its dense Jacobian, as :func:`~pyro_gflows.numerics.dense_jacobian`, in the present gradient mode: the
    result is differentiable if gradients are enabled.

    >>> with torch.no_grad():
    ...     jacobian_by_autograd(torch.sin, torch.zeros(2), 1)[1].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        return dense_jacobian(f, x, event_dim, create_graph=differentiable)


def constant_jacobian(f: BranchWithJacobian, x: Tensor) -> Tensor:
    """The Jacobian of f at x, of shape batch_shape + (d, d), without a derivative.

    >>> constant_jacobian(as_branch(lambda x: 0.5 * x, 1), torch.ones(1, 2)).tolist()
    [[[0.5, 0.0], [0.0, 0.5]]]
    """
    # tensors of inference mode can never be recorded, so that the Jacobian is taken outside of it, at a copy
    with torch.inference_mode(False), torch.no_grad():
        return f.call_and_jacobian(x.detach().clone())[1].detach()
