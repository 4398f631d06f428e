"""Contraction: the type of the branch f of a residual layer x + f(x)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, TorusAction
from pyro_gflows.deprecation import renamed_methods, warn_of
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.numerics import (
    BranchWithPooledJacobian,
    DifferentiableBranch,
    PooledJacobian,
    Product,
    as_branch,
    as_float,
    jacobian_by_autograd,
    pullback,
)
from pyro_gflows.numerics.precision import on_methods
from pyro_gflows.serialization.registry import registered

__all__ = ["Contraction", "CustomContraction", "Negative", "negative"]


@renamed_methods(given="condition")
class Contraction(nn.Module):
    r"""An equivariant map f of events with a certified Lipschitz constant below 1, so that x + f(x) is a bijection.

    .. math:: |f(x) - f(y)| \le c\,|x - y|, \quad c < 1, \qquad f(\rho(g)\,x) = \rho(g)\,f(x)

    Here x and y are events and g is any group element, which acts by the matrix :math:`\rho(g)`; f(x) has the shape of
    x. On a torus, f maps angles to displacements, and :math:`f(M x + a) = M f(x)`. This is the base class of the
    branches of residual layers. The ready-made one is :func:`lipschitz_branch`, which chooses among
    :class:`LipschitzSum`, for small vectors, :class:`LipschitzNetwork`, and :class:`PeriodicNetwork`, for angles.

    A branch of your own is a subclass that sets ``action`` and writes ``forward`` and ``lipschitz_bound``. The rest is
    optional: a ``bound`` that holds for all weights, derivatives in closed form (``call_and_jacobian`` and
    ``call_and_pullback``), and a context (``context_action`` and ``condition``). Layers, estimators and solvers use
    these attributes and methods only.

    Inside ``torch.autocast``, ``lipschitz_bound`` is computed in full precision.

    Attributes:
        action: How the group acts on events.
        context_action: How the group acts on the context that f takes; None where f takes no context.
        bound: A Lipschitz constant that holds for all weights; None where only ``lipschitz_bound()`` is known.

    Example:
        >>> from pyro_gflows import GResidual, VectorAction
        >>> class Shrinking(Contraction):
        ...     bound = 0.5
        ...     def __init__(self, action):
        ...         super().__init__()
        ...         self.action = action
        ...         self.weight = nn.Parameter(torch.ones(()))
        ...     def forward(self, x):
        ...         return 0.5 * self.weight.tanh() * x
        ...     def lipschitz_bound(self):
        ...         return 0.5 * self.weight.tanh().abs()
        >>> GResidual(VectorAction.plane("O(2)"), Shrinking(VectorAction.plane("O(2)")))(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    action: LinearAction | TorusAction
    context_action: LinearAction | None = None
    bound: float | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, ("lipschitz_bound",))

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant in x for the present weights, which holds for every context."""
        raise NotImplementedError

    def known_bound(self) -> float:
        """A Lipschitz bound for solvers and estimators: ``bound``, which costs nothing, else ``lipschitz_bound()``."""
        return as_float(self.lipschitz_bound().detach()) if self.bound is None else self.bound

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x) and the Jacobian of f at x on the flattened event, of shape ``batch + (d, d)``.

        This method uses automatic differentiation; a subclass that knows a closed form overrides it.
        """
        return jacobian_by_autograd(self, x, self.action.event_dim)

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The value f(x), and the map v -> J^T v for the Jacobian J at x, where v has the shape of x.

        This method uses automatic differentiation; a subclass that knows a faster way overrides it.
        """
        return pullback(self, x)

    def condition(self, context: Tensor) -> DifferentiableBranch:
        """The map x -> f(x | context), for contexts of the batch shape of x; f itself where it takes no context."""
        return self

    def kernel_layers(self) -> list[KernelLayer]:
        """The layers whose kernels a flow may make together with those of its other branches; none by default."""
        return []

    def of_rows(self, batch: Sequence[int], rows: Tensor) -> DifferentiableBranch:
        """The map f for some rows of a batch: f itself, as it holds nothing of the batch.

        Solvers use it to leave out rows that are done. A branch for a batch of contexts selects the contexts.

        Args:
            batch: The batch shape of x.
            rows: The indices of the rows in the flattened batch.
        """
        return self


class Negative:
    """The branch x -> -f(x).

    Args:
        f: A branch with its derivatives.

    Example:
        >>> Negative(as_branch(torch.sin, 1)).call_and_jacobian(torch.zeros(2))[1].diagonal().tolist()
        [-1.0, -1.0]
    """

    def __init__(self, f: DifferentiableBranch) -> None:
        self.f = f

    def __call__(self, x: Tensor) -> Tensor:
        return -self.f(x)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value -f(x) and its Jacobian."""
        value, jacobian = self.f.call_and_jacobian(x)
        return -value, -jacobian

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The value -f(x) and the map v -> -J^T v."""
        value, product = self.f.call_and_pullback(x)

        def negative(vector: Tensor, *, create_graph: bool) -> Tensor:
            return -product(vector, create_graph=create_graph)

        return -value, negative

    def of_rows(self, batch: Sequence[int], rows: Tensor) -> Negative | None:
        """The branch -f for some rows of a batch, as for ``Contraction.of_rows``; None if f cannot be restricted."""
        select = getattr(self.f, "of_rows", None)
        chosen = None if select is None else select(batch, rows)
        return None if chosen is None else negative(chosen)


class _NegativePooled(Negative):
    """The branch x -> -f(x) of a branch f that reads rows through pooled features."""

    def __init__(self, f: DifferentiableBranch, pooled: BranchWithPooledJacobian) -> None:
        super().__init__(f)
        self._pooled = pooled

    def call_and_pooled_jacobian(self, x: Tensor) -> tuple[Tensor, PooledJacobian]:
        """The value -f(x), and the matrix -J."""
        value, jacobian = self._pooled.call_and_pooled_jacobian(x)
        return -value, jacobian.negative()

    def solve_pooled(self, jacobian: PooledJacobian, vector: Tensor) -> Tensor:
        """The solution s of (I - J) s = v."""
        return self._pooled.solve_pooled(jacobian, vector)


def negative(f: DifferentiableBranch) -> Negative:
    """The branch x -> -f(x), with the derivatives that f has.

    Args:
        f: A branch with its derivatives.

    Example:
        >>> negative(as_branch(torch.sin, 1))(torch.zeros(2)).tolist()
        [-0.0, -0.0]
    """
    return _NegativePooled(f, f) if isinstance(f, BranchWithPooledJacobian) else Negative(f)


@registered
class CustomContraction(Contraction):
    """Any module with a ``lipschitz_bound()`` method as a :class:`Contraction`.

    Residual layers wrap such a module by themselves, without a ``bound`` that holds for all weights. The wrapper checks
    once for the optional parts of a contraction: ``call_and_jacobian(x)``, or a ``context_action`` and
    ``condition(context)``.

    Args:
        module: An equivariant map of events with a method ``lipschitz_bound()``.
        action: How the group acts on events.
        bound: A Lipschitz constant that holds for all weights of the module, if one is known. It saves a computation of
            ``lipschitz_bound()`` in every call.

    Raises:
        TypeError: If the module has no method ``lipschitz_bound``.
        ValueError: If the module has an ``action`` other than this one, or if the bound is not in (0, 1).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> class Half(nn.Module):
        ...     def forward(self, x):
        ...         return 0.5 * x
        ...     def lipschitz_bound(self):
        ...         return torch.tensor(0.5)
        >>> CustomContraction(Half(), VectorAction.plane("O(2)"), bound=0.5).known_bound()
        0.5
    """

    def __init__(self, module: nn.Module, action: LinearAction | TorusAction, *, bound: float | None = None) -> None:
        super().__init__()
        if not hasattr(module, "lipschitz_bound"):
            raise TypeError(
                f"expected a branch with a lipschitz_bound() method, got {type(module).__name__}; build it from "
                "pyro_gflows.nn, or give your module a method that returns an upper bound"
            )
        made_for = getattr(module, "action", action)
        if made_for != action:
            raise ValueError(f"expected a branch for {action}, got one for {made_for}")
        if bound is not None and not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), or None where none is promised, got {bound}")
        self.module, self.action, self.bound = module, action, bound
        self.context_action = getattr(module, "context_action", None)
        self._has_jacobian = hasattr(module, "call_and_jacobian")
        self._condition = "condition"
        if self.context_action is not None and not hasattr(module, "condition") and hasattr(module, "given"):
            name = type(module).__name__
            warn_of(f"{name}.given(context)", now=f"{name}.condition(context)")
            self._condition = "given"

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.module(x)
        return value

    def lipschitz_bound(self) -> Tensor:
        return torch.as_tensor(_method(self.module, "lipschitz_bound")())

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self._has_jacobian:
            return super().call_and_jacobian(x)
        found: tuple[Tensor, Tensor] = _method(self.module, "call_and_jacobian")(x)
        return found

    def condition(self, context: Tensor) -> DifferentiableBranch:
        if self.context_action is None:
            return self
        return as_branch(_method(self.module, self._condition)(context), self.action.event_dim)


def _method(module: nn.Module, name: str) -> Callable[..., Any]:
    """A method of a module that the type nn.Module does not declare."""
    method: Callable[..., Any] = getattr(module, name)
    return method
