"""Residual branches with a certified Lipschitz constant, built from 1-Lipschitz terms."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.terms import Term
from pyro_gflows.numerics import Product
from pyro_gflows.serialization.registry import registered

__all__ = ["LipschitzSum"]


@registered
class LipschitzSum(Contraction, KernelLayer):
    r"""A weighted sum of 1-Lipschitz equivariant terms, with Lipschitz constant below ``bound`` for all weights.

    It is the branch f of a residual layer x + f(x) on small vectors, where the Jacobian of each term is known in closed
    form.

    .. math:: f(x) = c\,\frac{\tanh S}{S} \sum_k p_k f_k(x), \qquad S = \sum_k |p_k|

    The :math:`p_k` are learnable. The Lipschitz constant is at most :math:`c \tanh S < c`. The sum is equivariant
    because every term is.

    Args:
        parts: Terms of one action, such as Ridges or RadialTerm.
        bound: The constant c, in (0, 1).

    Raises:
        TypeError: If a part is not a Term.
        ValueError: If there is no part, if the parts have different actions, or if the bound is outside (0, 1).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.nn.radial import RadialTerm
        >>> from pyro_gflows.nn.ridge import Ridges
        >>> action = VectorAction.plane("D8")
        >>> branch = LipschitzSum([Ridges(action), RadialTerm(action)])
        >>> value, jacobian = branch.call_and_jacobian(torch.zeros(5, 2))
        >>> value.shape, jacobian.shape
        (torch.Size([5, 2]), torch.Size([5, 2, 2]))
    """

    bound: float

    def __init__(self, parts: Sequence[Term], *, bound: float = 0.99) -> None:
        super().__init__()
        if not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), got {bound}")
        for part in parts:
            if not isinstance(part, Term):
                raise TypeError(
                    f"expected terms such as Ridges(action) or RadialTerm(action), got {type(part).__name__}; "
                    "a term of your own is a subclass of nn.Term"
                )
        if not parts or any(part.action != parts[0].action for part in parts):
            raise ValueError(f"expected parts of one action, got {[str(part.action) for part in parts]}")
        self.parts = nn.ModuleList(parts)
        self.action = parts[0].action
        self.bound = bound
        self.counts = [part.terms for part in parts]
        self.p = nn.Parameter(torch.cat([torch.full((count,), 1.0 / count) for count in self.counts]))

    def _make_kernel(self) -> Tensor:
        return self._make_kernels([self])[0]

    def _alike(self) -> Hashable:
        return (self.p.shape, self.bound, self.p.dtype, self.p.device)

    @classmethod
    def _make_kernels(cls, layers: Sequence[Any]) -> Sequence[Tensor]:
        """The weights of the terms of each sum."""
        p = torch.stack([layer.p for layer in layers])
        total = p.abs().sum(1, keepdim=True).clamp_min(1e-12)
        return (p * (layers[0].bound * torch.tanh(total) / total)).unbind()

    def kernel_layers(self) -> list[KernelLayer]:
        return [module for module in self.modules() if isinstance(module, KernelLayer)]

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights."""
        return self.kernel().detach().abs().sum()

    def _weighted_parts(self) -> list[tuple[Term, Tensor]]:
        weights = self.kernel()
        split = weights.split(self.counts) if len(self.counts) > 1 else [weights]
        return list(zip(each(self.parts, Term), split, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        values = [part(x, weights) for part, weights in self._weighted_parts()]
        return sum(values[1:], values[0])

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x) and the Jacobian of f at x, of shapes ``batch + (d,)`` and ``batch + (d, d)``."""
        outputs = [part.call_and_jacobian(x, weights) for part, weights in self._weighted_parts()]
        values, jacobians = zip(*outputs, strict=True)
        return sum(values[1:], values[0]), sum(jacobians[1:], jacobians[0])

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The value f(x), and the map v -> J^T v, in a time that is linear in d."""
        outputs = [part.call_and_pullback(x, weights) for part, weights in self._weighted_parts()]
        values, products = zip(*outputs, strict=True)

        def product(vector: Tensor, *, create_graph: bool) -> Tensor:
            pulled = [part(vector, create_graph=create_graph) for part in products]
            return sum(pulled[1:], pulled[0])

        return sum(values[1:], values[0]), product

    def extra_repr(self) -> str:
        return f"Lipschitz bound {self.bound:g}"
