"""Ridge terms of residual branches: a function of one projection of x, averaged over the group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.groups.base import EnumerableGroup, require_enumerable
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.nn.splines import SlopeSplines
from pyro_gflows.nn.terms import Term
from pyro_gflows.numerics import Product
from pyro_gflows.numerics.transforms_active import graph_if
from pyro_gflows.serialization.registry import registered

__all__ = ["Ridges"]


@registered
class Ridges(Term, KernelLayer):
    r"""Equivariant ridge functions, each 1-Lipschitz, with their Jacobian in closed form.

    They are terms of a :class:`LipschitzSum` for vectors under a finite group. A ridge function depends on one
    projection of x only; the sum over the n elements g makes it equivariant.

    .. math:: f_k(x) = \frac{1}{n \sqrt{\lambda(u_k) \lambda(v_k)}}
        \sum_g \rho(g) v_k\; s_k(\langle \rho(g) u_k, x\rangle), \qquad |u_k| = 1,\; |s_k'| < 1

    The directions :math:`u_k, v_k` and the functions :math:`s_k` are learnable. :math:`\lambda(u)` is the largest
    eigenvalue of the average of :math:`\rho(g) u u^T \rho(g)^T`; by Schur's lemma it is :math:`|u|^2/d` if the action
    is irreducible. The :math:`u_k` have length 1, so that the knots of :math:`s_k` are in units of x. The Jacobian is
    :math:`V^T \mathrm{diag}(s') U`, where the rows of U and V are the images of u and v, scaled to norm 1. So no
    singular value exceeds 1.

    The map is equivariant since replacing x by :math:`\rho(h) x` only reorders the sum. If the group contains -1, only
    the odd part of s contributes, so s is odd and the sum takes one element of each pair g, -g.

    Args:
        action: How a finite group acts on vectors.
        terms: The number of ridge functions.
        knots: The number of knots of each function on [0, limit].
        limit: The distance from 0 beyond which the functions are linear.

    Raises:
        ValueError: If the group is infinite (use radial terms), or events are not vectors.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> ridges = Ridges(VectorAction.plane("D8"), 2)
        >>> value, jacobian = ridges.call_and_jacobian(torch.zeros(5, 2), torch.tensor([0.5, 0.5]))
        >>> value.shape, jacobian.shape
        (torch.Size([5, 2]), torch.Size([5, 2, 2]))
    """

    row: Tensor

    def __init__(self, action: LinearAction, terms: int = 4, *, knots: int = 16, limit: float = 4.0) -> None:
        super().__init__()
        require_linear(action)
        if not action.is_finite or action.event_dim != 1:
            raise ValueError(f"ridge terms need a finite group on vectors, got {action}; use radial terms instead")
        if not action.is_enumerable:
            raise ValueError(
                f"ridge terms are sums over all elements of a group, got {action.group}, which has "
                f"{action.group.order_in_words} elements; use radial terms or a LipschitzNetwork instead"
            )
        self.action, self.terms = action, terms
        matrices = action.matrix(action.elements())
        half = _modulo_sign(require_enumerable(action.group), matrices)
        self.matrices = FixedBasis(matrices if half is None else half)
        (isotype, *others) = action.decomposition
        self.irreducible = not others and isotype.multiplicity == 1
        self.splines = SlopeSplines(terms, knots=knots, limit=limit, odd=half is not None)
        images = len(self.matrices.value)
        self.register_buffer("row", torch.arange(terms * images) // images, persistent=False)
        u = torch.randn(terms, action.numel)
        self.u = nn.Parameter(u / u.norm(dim=1, keepdim=True))
        self.v = nn.Parameter(self.u.detach().clone())

    def _make_kernel(self) -> Tensor:
        return self._make_kernels([self])[0]

    def _alike(self) -> Hashable:
        u = self.u
        return (u.shape, self.matrices.value.shape, self.irreducible, u.dtype, u.device)

    @classmethod
    def _make_kernels(cls, layers: Sequence[Any]) -> Sequence[Tensor]:
        """For each layer, the images of all u as unit vectors, and those of all v, shape ``(2, terms, images, d)``.

        Those of v are scaled by the lengths that u and v have in frames of norm 1.
        """
        vectors = torch.stack([vector for layer in layers for vector in (layer.u, layer.v)])
        terms, d = vectors.shape[1:]
        matrices = torch.stack([layer.matrices(vectors) for layer in layers])
        count = matrices.shape[1]
        irreducible = layers[0].irreducible
        if irreducible:
            vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        # all images of each vector under the group, as the rows of a matrix
        frames = vectors.reshape(len(layers), 2 * terms, d) @ matrices.flatten(1, 2).mT
        frames = frames.reshape(len(layers), 2, terms, count, d)
        if irreducible:  # by Schur's lemma a frame of unit vectors has the norm (n / d)^(1/2)
            return torch.stack([frames[:, 0], frames[:, 1] * (d / count)], 1).unbind()
        # F^T F and F F^T have the same largest eigenvalue; the smaller one of the two is decomposed
        gram = frames @ frames.mT if count < d else frames.mT @ frames
        norms = torch.linalg.eigvalsh(gram)[..., -1].sqrt()
        # unit vectors inside s, so that its knots are in units of x; their length goes outside
        length = frames[:, 0, :, 0].norm(dim=-1)
        inner, outer = 1 / length, length / (norms[:, 0] * norms[:, 1])
        return (frames * torch.stack([inner, outer], 1)[..., None, None]).unbind()

    def _ridges(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The values and slopes of all ridges at x, and the matrices U and V with f(x) = s(x U^T) V."""
        inner, outer = self.kernel().unbind()
        d = inner.shape[-1]
        outer = (outer * weights[:, None, None]).reshape(-1, d)
        inner = inner.reshape(-1, d)
        value, slope = self.splines(x @ inner.T, self.row)
        return value, slope, inner, outer

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        value, _, _, outer = self._ridges(x, weights)
        return value @ outer

    def call_and_jacobian(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        value, slope, inner, outer = self._ridges(x, weights)
        d = x.shape[-1]
        products = (outer[..., :, None] * inner[..., None, :]).reshape(-1, d * d)
        return value @ outer, (slope @ products).unflatten(-1, (d, d))

    def call_and_pullback(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Product]:
        value, slope, inner, outer = self._ridges(x, weights)

        def product(vector: Tensor, *, create_graph: bool) -> Tensor:
            with graph_if(create_graph):
                return (slope * (vector @ outer.T)) @ inner

        return value @ outer, product

    def extra_repr(self) -> str:
        return f"{self.terms} terms, {self.action}"


def _modulo_sign(group: EnumerableGroup, matrices: Tensor) -> Tensor | None:
    """One matrix of each pair M, -M; None if the group does not contain -1.

    Where several elements have the same matrix, each pair is taken equally often.
    """
    trace, elements = matrices.diagonal(dim1=-2, dim2=-1).sum(-1), group.elements()
    alike, opposite = trace > matrices.shape[-1] - 1e-9, trace < 1e-9 - matrices.shape[-1]  # these are 1 and -1
    if not opposite.any():
        return None
    first, partner = (group.compose(elements[some, None], elements).amin(0) for some in (alike, opposite))
    kept = elements < partner
    counts = first[kept].bincount()
    even = len(counts[counts > 0].unique()) == 1
    return matrices[kept if even else kept & (elements == first)]
