"""The types of the branch f of a residual map x + f(x): a map that also gives its derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, Product, dense_jacobian, pullback

__all__ = [
    "BranchWithJacobian",
    "BranchWithPullbacks",
    "DifferentiableBranch",
    "as_branch",
    "constant_call_and_jacobian",
    "constant_jacobian",
    "jacobian_by_autograd",
    "pullbacks",
]


@runtime_checkable
class BranchWithJacobian(Protocol):
    """The type of a map of events to events of the same shape, row by row, that gives its Jacobian with its value.

    Example:
        >>> isinstance(as_branch(torch.sin, 1), BranchWithJacobian)
        True
    """

    def __call__(self, x: Tensor) -> Tensor:
        """The value f(x), of the shape of x."""
        ...

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x) and the Jacobian on the flattened event, of shape ``batch_shape + (d, d)``.

        Both are differentiable if gradients are enabled.
        """
        ...


@runtime_checkable
class DifferentiableBranch(BranchWithJacobian, Protocol):
    """The type of a branch with the derivatives that estimators and solvers use.

    Besides its Jacobian it gives products of vectors with the transpose of the Jacobian. :func:`as_branch` makes such a
    branch from any callable.

    Example:
        >>> isinstance(as_branch(torch.sin, 1), DifferentiableBranch)
        True
    """

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The value f(x), and the map v -> J^T v at x, as for :func:`~pyro_gflows.numerics.pullback`."""
        ...


@runtime_checkable
class BranchWithPullbacks(Protocol):
    """The type of a branch that can multiply many vectors for each event by one Jacobian, computed once.

    Estimators with many probes use it in place of copies of the events.

    Example:
        >>> isinstance(as_branch(torch.sin, 1), BranchWithPullbacks)
        False
    """

    def call_and_pullbacks(self, x: Tensor) -> tuple[Tensor, Product] | None:
        """The value f(x), and the map v -> J^T v for vectors of shape ``(n,) + x.shape``; None if there is none."""
        ...


def pullbacks(f: DifferentiableBranch, x: Tensor, count: int) -> tuple[Tensor, Product]:
    """The value f(x), and the map v -> J^T v at x for vectors v of shape ``(count,) + x.shape``.

    Args:
        f: A branch; if it has ``call_and_pullbacks``, this is used.
        x: The point.
        count: The number of vectors for each event.

    Example:
        >>> value, product = pullbacks(as_branch(torch.sin, 1), torch.zeros(5, 2), 3)
        >>> value.shape, product(torch.ones(3, 5, 2), create_graph=False).shape
        (torch.Size([5, 2]), torch.Size([3, 5, 2]))
    """
    found = f.call_and_pullbacks(x) if isinstance(f, BranchWithPullbacks) else None
    if found is not None:
        return found
    value, product = f.call_and_pullback(x.expand(count, *x.shape))
    return value[0], product


@dataclass(frozen=True)
class _ByAutograd:
    """A map whose missing derivatives are computed by automatic differentiation."""

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
    """A map that gives its own Jacobian."""

    f: BranchWithJacobian

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.f.call_and_jacobian(x)


def as_branch(f: Branch, event_dim: int) -> DifferentiableBranch:
    """A branch with all derivatives, made from any callable by automatic differentiation.

    Args:
        f: A map of events to events of the same shape, row by row. If it has ``call_and_jacobian`` or
            ``call_and_pullback``, these are used; if it has both, f itself is returned.
        event_dim: The number of event dimensions.

    Example:
        >>> as_branch(torch.sin, 1).call_and_jacobian(torch.zeros(5, 2))[1].shape
        torch.Size([5, 2, 2])
    """
    if isinstance(f, DifferentiableBranch):
        return f
    return _WithJacobian(f, event_dim) if isinstance(f, BranchWithJacobian) else _ByAutograd(f, event_dim)


def jacobian_by_autograd(f: Branch, x: Tensor, event_dim: int) -> tuple[Tensor, Tensor]:
    """The value f(x) and the dense Jacobian, differentiable if gradients are enabled.

    In contrast to :func:`~pyro_gflows.numerics.dense_jacobian` it follows the present gradient mode.

    Args:
        f: A map of events to events of the same shape, row by row.
        x: Events of shape ``batch_shape + event_shape``.
        event_dim: The number of event dimensions.

    Example:
        >>> with torch.no_grad():
        ...     jacobian_by_autograd(torch.sin, torch.zeros(2), 1)[1].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        return dense_jacobian(f, x, event_dim, create_graph=differentiable)


def constant_jacobian(f: BranchWithJacobian, x: Tensor) -> Tensor:
    """The Jacobian of f at x, of shape ``batch_shape + (d, d)``, as a constant without derivatives.

    Args:
        f: A branch.
        x: Events of shape ``batch_shape + event_shape``.

    Example:
        >>> constant_jacobian(as_branch(lambda x: 0.5 * x, 1), torch.ones(1, 2)).tolist()
        [[[0.5, 0.0], [0.0, 0.5]]]
    """
    return constant_call_and_jacobian(f, x)[1]


def constant_call_and_jacobian(f: BranchWithJacobian, x: Tensor) -> tuple[Tensor, Tensor]:
    """The value f(x) and the Jacobian of f at x, as constants without derivatives.

    Args:
        f: A branch.
        x: Events of shape ``batch_shape + event_shape``.

    Example:
        >>> value, jacobian = constant_call_and_jacobian(as_branch(torch.sin, 1), torch.zeros(5, 2))
        >>> value.shape, jacobian.shape
        (torch.Size([5, 2]), torch.Size([5, 2, 2]))
    """
    # autograd never records tensors of inference mode, so the Jacobian is taken outside of that mode, at a copy
    with torch.inference_mode(False), torch.no_grad():
        value, jacobian = f.call_and_jacobian(x.detach().clone())
        return value.detach(), jacobian.detach()
