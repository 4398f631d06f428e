"""Averages over a group of the images of a matrix, and a representation restricted to subspaces, at a low cost."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.groups.representations import Representation

__all__ = ["IrrepImages", "RepresentationImages"]


class RepresentationImages:
    r"""The matrices :math:`\rho(g)` at the elements of a quadrature, which is exact for products of two of them.

    A decomposition conjugates many matrices by the same :math:`\rho(g)`. Where the group permutes coordinates, this is
    done by an index and no matrix of :math:`\rho(g)` is made, so a conjugation costs :math:`n^2` in place of
    :math:`n^3` for each element.

    Args:
        representation: The representation :math:`\rho`, of size n.

    Example:
        >>> from pyro_gflows.groups import RegularRepresentation
        >>> images = RepresentationImages(RegularRepresentation("C2"))
        >>> images.average(torch.tensor([[1.0, 2.0], [4.0, 3.0]]).double()).tolist()
        [[2.0, 3.0], [3.0, 2.0]]
    """

    def __init__(self, representation: Representation) -> None:
        elements, self.weights = representation.group.quadrature(2 * representation.band)
        self._targets = representation.permutations()
        self._matrices = representation.matrices(elements) if self._targets is None else None

    def average(self, middle: Tensor) -> Tensor:
        r"""The average of :math:`\rho(g) M \rho(g)^T` over the group.

        Args:
            middle: The matrix M, shape ``(n, n)``, float64.
        """
        if self._matrices is not None:
            images = self._matrices @ middle @ self._matrices.mT
        else:
            sources = self._sources
            images = middle[sources[:, :, None], sources[:, None, :]]
        return torch.einsum("g,gij->ij", self.weights, images)

    def on_subspace(self, rows: Tensor) -> Tensor:
        r"""The matrices :math:`R\,\rho(g)\,R^T` on an invariant subspace, shape ``(number of elements, d, d)``.

        Args:
            rows: Orthonormal rows R that span the subspace, shape ``(d, n)``, float64.
        """
        if self._matrices is not None:
            return rows @ self._matrices @ rows.T
        assert self._targets is not None
        return rows[:, self._targets].movedim(0, 1) @ rows.T

    @functools.cached_property
    def _sources(self) -> Tensor:
        """The coordinate that each element sends to each place."""
        assert self._targets is not None
        return self._targets.argsort(-1)


class IrrepImages:
    r"""The matrices V(g) of an irreducible representation of a finite group, at each of its elements.

    Two irreps are the same, up to a change of basis, exactly if their characters (the traces of V(g)) are equal. The
    characters of different irreps are orthogonal, so a comparison that is wrong by rounding cannot occur.

    Args:
        matrices: The matrices V(g), float64, shape ``(|G|, d, d)``.

    Example:
        >>> import torch
        >>> sign, same = IrrepImages(torch.tensor([[[1.0]], [[-1.0]]])), IrrepImages(torch.ones(2, 1, 1))
        >>> sign.is_equivalent(sign), sign.is_equivalent(same)
        (True, False)
    """

    def __init__(self, matrices: Tensor) -> None:
        self.matrices = matrices
        # in NumPy, so that no transform, mode or trace of torch records the comparison
        self.character = np.ascontiguousarray(np.trace(matrices.numpy(), axis1=-2, axis2=-1))

    def is_equivalent(self, other: IrrepImages) -> bool:
        """Whether the irreps differ by a change of basis only.

        Args:
            other: The images of another irrep of the same group.
        """
        # the mean of the product is 0 for different irreps, and 1, 2 or 4 (by their type) for the same one
        return bool(self.character @ other.character > 0.5 * len(self.character))
