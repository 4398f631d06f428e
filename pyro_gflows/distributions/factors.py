r"""Factors L of the covariances :math:`\Sigma = L L^T` that commute with an action.

A covariance of an invariant distribution commutes with the group. In the isotypic basis, such a covariance has one
block for each irreducible representation (irrep): a positive Hermitian m x m matrix with real, complex or quaternionic
entries, where m is the multiplicity of the irrep, times the identity of the irrep (Schur's lemma). Each of these
matrices has exactly one Cholesky factor with entries of the same kind and a positive real diagonal. So the factors
below parametrize every invariant covariance, each exactly once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.component_tables import ComponentTable, small_commutant
from pyro_gflows.nn.isotypic import ChangeOfBasis, IsotypicBasis, isotypic_basis

__all__ = ["FACTORS", "FullFactor", "InvariantMean", "IsotropicFactor", "IsotypicFactor"]


class IsotropicFactor(nn.Module):
    """The factor L = 1, which needs no decomposition of the action, so events may be large.

    Args:
        action: How the group acts on an event.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> IsotropicFactor(VectorAction.plane("D4"))(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__()

    def forward(self, z: Tensor) -> Tensor:
        """The product L z.

        Args:
            z: Vectors, shape ``(..., numel)``.
        """
        return z

    def solve(self, x: Tensor) -> Tensor:
        """The solution L^{-1} x.

        Args:
            x: Vectors, shape ``(..., numel)``.
        """
        return x

    def log_det(self) -> Tensor:
        """The log-det log|det L|."""
        return torch.zeros(())

    def match_(self, covariance: Tensor) -> None:
        """Set L L^T as near to a covariance as this factor allows; a fixed factor stays as it is.

        Args:
            covariance: The covariance, shape ``(numel, numel)``.
        """


class IsotypicFactor(nn.Module):
    r"""The factor :math:`L = Q^T \mathrm{diag}(e^{s_i})`, with one learnable scale for each isotypic component.

    The rows of the orthogonal matrix Q are the isotypic basis.

    Args:
        action: How the group acts on an event.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> IsotypicFactor(VectorAction.rows("S4")).log_scale.shape  # the mean, and the differences
        torch.Size([2])
    """

    basis: ChangeOfBasis
    component: Tensor

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        self.basis = isotypic_basis(action)
        sizes = torch.tensor(self.basis.sizes)
        self.register_buffer("component", torch.arange(len(sizes)).repeat_interleave(sizes), persistent=False)
        self.log_scale = nn.Parameter(torch.zeros(len(sizes)))

    def forward(self, z: Tensor) -> Tensor:
        return self.basis.event(z * self._log_scales(z).exp())

    def solve(self, x: Tensor) -> Tensor:
        return self.basis.coordinates(x) * (-self._log_scales(x)).exp()

    def log_det(self) -> Tensor:
        return self.log_scale[self.component].sum()

    @torch.no_grad()
    def match_(self, covariance: Tensor) -> None:
        """Set the scale of each component to the mean variance of a covariance in it.

        Args:
            covariance: The covariance, shape ``(numel, numel)``.
        """
        variances = self.basis.coordinates(self.basis.coordinates(covariance).T).diagonal()
        count = torch.bincount(self.component).to(variances)
        total = torch.zeros_like(count).index_add_(0, self.component, variances)
        self.log_scale.copy_(0.5 * (total / count).log())

    def _log_scales(self, like: Tensor) -> Tensor:
        return self.log_scale.to(like)[self.component]


class FullFactor(nn.Module):
    r"""The factor of every invariant covariance, :math:`L = Q^T \bigoplus_i T_i`.

    Here :math:`T_i = \sum_e W_e \otimes J_e` for the i-th irreducible representation (irrep) with multiplicity m. The
    matrices :math:`J_e` span the linear maps that commute with the irrep (1, 2 or 4 matrices, the identity first). The
    learnable m x m matrices :math:`W_e` are strictly lower triangular, except that :math:`W_0` has a positive diagonal.
    So every :math:`T_i` is a lower triangular real matrix that commutes with the group. Where an irrep is a tensor
    product, as for rows that are permuted, T_i is a small matrix that acts on the second factor.

    Args:
        action: How the group acts on an event.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> factor = FullFactor(VectorAction.plane("D4", copies=2))
        >>> sum(parameter.numel() for parameter in factor.parameters())  # a 2 x 2 covariance of the copies
        3
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        components = action.decomposition
        in_closed_form = components.in_closed_form
        self.basis = isotypic_basis(action) if in_closed_form else IsotypicBasis.of(components, action.numel)
        self.tables = [ComponentTable.of(isotype) for isotype in components]
        self.dims = [isotype.dim for isotype in components]
        self.multiplicities = [isotype.multiplicity for isotype in components]
        self.log_diagonal = nn.Parameter(torch.zeros(sum(self.multiplicities)))
        self.below = nn.ParameterDict()
        self.commutants = nn.ModuleDict()
        for i, isotype in enumerate(components):
            if (m := isotype.multiplicity) > 1:
                commutant = small_commutant(isotype)
                self.commutants[str(i)] = FixedBasis(commutant)
                self.below[str(i)] = nn.Parameter(torch.zeros(len(commutant), m * (m - 1) // 2))

    def forward(self, z: Tensor) -> Tensor:
        parts = zip(z.split(self.basis.sizes, -1), self.tables, self._triangles(z), strict=True)
        return self.basis.event(torch.cat([table.flat(table.rows(part) @ t.T) for part, table, t in parts], -1))

    def solve(self, x: Tensor) -> Tensor:
        parts = self.basis.coordinates(x).split(self.basis.sizes, -1)
        solved = []
        for part, table, triangle in zip(parts, self.tables, self._triangles(x), strict=True):
            rows = table.rows(part)
            # all rows in one dimension, because a batched triangular solve would copy the triangle for every batch row
            flat = torch.linalg.solve_triangular(
                triangle.T, rows.reshape(-1, table.width), upper=True, left=False
            ).reshape(rows.shape)
            solved.append(table.flat(flat))
        return torch.cat(solved, -1)

    def log_det(self) -> Tensor:
        parts = zip(self.dims, self.log_diagonal.split(self.multiplicities), strict=True)
        return torch.stack([d * part.sum() for d, part in parts]).sum()

    @torch.no_grad()
    def match_(self, covariance: Tensor) -> None:
        """Set L from a covariance, of which the part is kept that commutes with the group and is real on each irrep.

        Args:
            covariance: A positive covariance, shape ``(numel, numel)``.
        """
        inner = self.basis.coordinates(self.basis.coordinates(covariance).T)
        start = 0
        for i, (m, d) in enumerate(zip(self.multiplicities, self.dims, strict=True)):
            block = inner[start : start + m * d, start : start + m * d].reshape(m, d, m, d)
            start += m * d
            triangle = torch.linalg.cholesky(block.diagonal(dim1=1, dim2=3).mean(-1))
            first = sum(self.multiplicities[:i])
            self.log_diagonal[first : first + m] = triangle.diagonal().log()
            if m > 1:
                row, column = torch.tril_indices(m, m, -1, device=triangle.device)
                self.below[str(i)].zero_()[0] = triangle[row, column]

    def _triangles(self, like: Tensor) -> list[Tensor]:
        """The matrices T_i, each of the width of the table of its component."""
        triangles = []
        for i, log_diagonal in enumerate(self.log_diagonal.to(like).split(self.multiplicities)):
            m, d = self.multiplicities[i], self.tables[i].inner
            triangle = torch.diag(log_diagonal.exp().repeat_interleave(d))
            if m > 1:
                below, commutant = self.below[str(i)].to(like), self.commutants[str(i)](like)
                weights = below.new_zeros(len(below), m, m)
                row, column = torch.tril_indices(m, m, -1, device=like.device)
                weights[:, row, column] = below
                triangle = triangle + torch.einsum("eab,eij->aibj", weights, commutant).reshape(m * d, m * d)
            triangles.append(triangle)
        return triangles


class InvariantMean(nn.Module):
    """A learnable mean among the vectors that the group leaves as they are (the trivial component).

    Args:
        action: How the group acts on an event.

    Raises:
        ValueError: The group leaves only the vector 0 as it is.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> InvariantMean(VectorAction.rows("S3"))(torch.zeros(())).tolist()
        [0.0, 0.0, 0.0]
    """

    basis: ChangeOfBasis

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        first = action.decomposition[0]
        if not first.is_trivial:
            raise ValueError(
                f"{action} has no trivial component, so every invariant density has mean 0; use mean=False"
            )
        self.basis = isotypic_basis(action, 1)
        self.coordinates = nn.Parameter(torch.zeros(first.multiplicity))

    def forward(self, like: Tensor) -> Tensor:
        """The mean, shape ``(numel,)``.

        Args:
            like: A tensor with the wanted dtype and device.
        """
        return self.basis.event(self.coordinates.to(like))


FACTORS: dict[str, Any] = {"full": FullFactor, "isotropic": IsotropicFactor, "isotypic": IsotypicFactor}
