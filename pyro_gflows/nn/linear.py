"""Equivariant linear maps between vectors, by Schur's lemma."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.groups.decomposition import intertwiner
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.coefficients import register_coefficients
from pyro_gflows.nn.isotypic import IsotypicBasis
from pyro_gflows.nn.kernel import KernelLayer, LipschitzLayer
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.spectral import spectral_norms
from pyro_gflows.serialization.registry import registered

__all__ = ["EquivariantLinear", "LipschitzLinear"]


@registered
class EquivariantLinear(KernelLayer):
    r"""The most general linear map W with :math:`W \rho_{in}(g) = \rho_{out}(g) W`, plus an invariant bias.

    It takes the place of ``nn.Linear`` in an equivariant network. Such a map W is called an intertwiner. By Schur's
    lemma, W is determined by one small real, complex or quaternionic matrix for each irrep (smallest building block)
    that occurs in both actions. If an action holds several copies of an irrep, for example several vectors, the matrix
    combines the copies in the input. A call maps ``batch_shape + (n_in,)`` to ``batch_shape + (n_out,)``. These
    matrices are the weights, so no equivariant map is left out. Equivariance holds to float64 precision.

    Args:
        action_in: How the group acts on the input, of shape ``batch + (n_in,)``.
        action_out: How the group acts on the output, of shape ``batch + (n_out,)``.
        bias: Whether to learn a shift along the invariant directions of the output.
        autoregressive: None, or two lists ``(labels_in, labels_out)`` with one integer for each field of the two
            actions. An irrep copy of the output then reads only copies of the input with a smaller or equal label.

    Raises:
        ValueError: If the actions are not on vectors, or not of one group.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> EquivariantLinear(VectorAction.plane("D4"), VectorAction.regular("D4", copies=3))
        EquivariantLinear(D4: R^2 -> R^24, 9 weights)
    """

    bias: Tensor | None

    def __init__(
        self,
        action_in: LinearAction,
        action_out: LinearAction,
        *,
        bias: bool = True,
        autoregressive: tuple[list[int], list[int]] | None = None,
    ) -> None:
        super().__init__()
        if action_in.event_dim != 1 or action_out.event_dim != 1 or action_in.group != action_out.group:
            raise ValueError(f"expected two actions of one group on vectors, got {action_in} and {action_out}")
        self.action_in, self.action_out = action_in, action_out
        parts_in, parts_out, self.weights, self.commutants = [], [], nn.ParameterList(), nn.ModuleList()
        self.masks = nn.ModuleList()
        for target in action_out.decomposition:
            for source in action_in.decomposition:
                change = intertwiner(source, target)
                mask = _order(autoregressive, source.labels, target.labels)
                if change is None or (mask is not None and not mask.any()):
                    continue
                shape = (target.multiplicity, source.multiplicity, len(target.commutant))
                self.weights.append(nn.Parameter(torch.randn(shape) / (shape[1] * shape[2]) ** 0.5))
                self.commutants.append(FixedBasis(target.commutant))
                parts_in.append(source.in_basis(change))
                parts_out.append(target)
                self.masks.append(nn.Identity() if mask is None else _Mask(mask))
        self.basis_in = IsotypicBasis.of(parts_in, action_in.numel)
        self.basis_out = IsotypicBasis.of(parts_out, action_out.numel)
        self.invariants = FixedBasis(action_out.invariants())
        if bias:
            register_coefficients(self, "bias", len(self.invariants.value))
        else:
            self.register_parameter("bias", None)

    def blocks(self) -> list[Tensor]:
        """The map on each isotypic component (m copies of an irrep of size d): real matrices ``(m_out d, m_in d)``."""
        out = []
        for weight, commutant, mask in zip(self.weights, self.commutants, self.masks, strict=True):
            kept = mask(weight)
            out.append(torch.einsum("abk,kij->aibj", kept, commutant(kept)).flatten(2).flatten(0, 1))
        return out

    def matrix(self) -> Tensor:
        """The whole map as a dense matrix ``(n_out, n_in)``."""
        blocks = self.blocks()
        like = self.bias if not blocks and self.bias is not None else (blocks[0] if blocks else torch.zeros(()))
        inner = torch.block_diag(*blocks) if blocks else like.new_zeros(0, 0)
        return self.basis_out(like).T @ inner @ self.basis_in(like)

    def _make_kernel(self) -> Tensor:
        return self.matrix()

    def forward(self, x: Tensor) -> Tensor:
        shift = None if self.bias is None else self.bias @ self.invariants(self.bias)
        return nn.functional.linear(x, self.kernel().to(x), shift)

    def extra_repr(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"{self.action_in.group}: R^{self.action_in.numel} -> R^{self.action_out.numel}, {count} weights"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class _Mask(nn.Module):
    """Sets to zero the weights of shape (m_out, m_in, k) for pairs of copies that a mask does not allow."""

    allowed: Tensor

    def __init__(self, allowed: Tensor) -> None:
        super().__init__()
        self.register_buffer("allowed", allowed[..., None], persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.allowed


@registered
class LipschitzLinear(EquivariantLinear, LipschitzLayer):
    r"""An equivariant linear map whose norm is at most ``bound`` for all weights.

    It is the linear layer of a residual branch with a certified Lipschitz constant. The map acts on each isotypic
    component (all copies of one irrep) by a block. Each block is divided by :math:`\max(1, \sigma_{max}/c)`, where
    :math:`\sigma_{max}` is its largest singular value. Since the components are orthogonal, the largest norm of a block
    is exactly the norm of the map.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output.
        bound: The bound c.
        bias: Whether to learn a shift along the invariant directions of the output.

    Raises:
        ValueError: As for EquivariantLinear, or if the bound is not positive and finite.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.regular("C4", copies=4)
        >>> bool(LipschitzLinear(action, action, bound=0.9).lipschitz_bound() <= 0.9 + 1e-6)
        True
    """

    def __init__(
        self, action_in: LinearAction, action_out: LinearAction, *, bound: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__(action_in, action_out, bias=bias)
        if not 0 < bound < float("inf"):
            raise ValueError(f"expected a positive finite bound, got {bound}")
        self.bound = bound

    def blocks(self) -> list[Tensor]:
        blocks = super().blocks()
        return [
            block / (norm / self.bound).clamp_min(1.0)
            for block, norm in zip(blocks, spectral_norms(blocks), strict=True)
        ]

    @full_precision
    def lipschitz_bound(self) -> Tensor:
        """The exact norm of the map for the present weights."""
        with torch.no_grad():
            norms = spectral_norms(self.blocks())
        return torch.stack(norms).max() if norms else torch.zeros(())


def _order(
    labels: tuple[list[int], list[int]] | None, source: tuple[int, ...], target: tuple[int, ...]
) -> Tensor | None:
    if labels is None:
        return None
    into = torch.tensor([labels[1][summand] for summand in target])
    out_of = torch.tensor([labels[0][summand] for summand in source])
    return into[:, None] >= out_of
