"""A branch that counts its evaluations."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch
from pyro_gflows.numerics.jacobian import Product

__all__ = ["Counted"]


class Counted:
    """A branch f that counts how often it is evaluated, alone or with derivatives, and otherwise is like f.

    Args:
        f: The branch.

    Example:
        >>> import torch
        >>> from pyro_gflows.numerics import as_branch
        >>> counted = Counted(as_branch(torch.sin, 1))
        >>> _ = counted(torch.zeros(2)), counted.call_and_jacobian(torch.zeros(2))
        >>> counted.evaluations, isinstance(counted, type(counted.f))
        (2, True)
    """

    def __init__(self, f: DifferentiableBranch) -> None:
        self.f, self.evaluations = f, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.f, name)
        if not name.startswith("call_and_"):
            return found

        def evaluate(*args: Any, **kwargs: Any) -> Any:
            self.evaluations += 1
            return found(*args, **kwargs)

        return evaluate

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # solvers may ask for the type of the branch
        return type(self.f)

    def __call__(self, x: Tensor) -> Tensor:
        self.evaluations += 1
        return self.f(x)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x) and the Jacobian, as for ``f``."""
        self.evaluations += 1
        return self.f.call_and_jacobian(x)

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The value f(x) and the map v -> J^T v, as for ``f``."""
        self.evaluations += 1
        return self.f.call_and_pullback(x)
