"""GLinearPLU: an equivariant linear map in triangular factors, which reach every invertible equivariant linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, VectorAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn.component_tables import AlgebraBasis
from pyro_gflows.nn.division_algebra import algebra_rows, as_real, coefficients
from pyro_gflows.nn.isotypic import ChangeOfBasis, IsotypicBasis
from pyro_gflows.nn.triangular import TriangularFactors
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["GLinearPLU"]

_EQUIVARIANT, _SINGULAR = 1e-6, 1e-12  # the largest relative errors of a matrix that is taken for equivariant, regular


@registered
class GLinearPLU(EquivariantTransform):
    r"""A linear map that mixes the fields of an event, in triangular factors: it reaches every invertible one.

    It serves where :class:`GLinear` does, between layers that transform one part of the event at a time. The
    exponential in GLinear reaches only maps with an equivariant logarithm, such as no diag(-1, -2); this layer can
    represent any invertible equivariant linear map (intertwiner), see :meth:`from_matrix`.

    .. math:: y = W x, \qquad W = P L D U \text{ on each isotypic component}, \qquad
        \log|\det J| = n \sum_i d_i \sum_a \mathrm{Re} \log D_{i, aa}

    An isotypic component consists of m copies of one irrep (smallest building block) of dimension d. By Schur's lemma
    W acts on it as an m x m matrix over the real, the complex or the quaternionic numbers, according to the type of the
    irrep, and this matrix is a product of a permutation P, a triangular L and U with ones on the diagonal, and a
    diagonal D. L and U are free. D is the exponential of free elements, so that it never vanishes; over the real
    numbers, where exponentials are positive, it has fixed signs as well. P and the signs are constants, which are
    saved with the weights. Training reaches almost all maps with these signs: all those whose leading minors do not
    vanish after P. On images W acts on the channels, in the same way at each of the n pixels.

    The map is bijective because no factor is singular. It is equivariant because all matrices over these algebras are.
    Both directions cost two products with an orthogonal matrix, and m^2 d for each component: the inverse solves
    triangular systems. The layer starts as the identity; :meth:`random` starts as a random rotation.

    Args:
        action: How the group acts on events.

    Raises:
        TypeError: ``action`` is not a LinearAction.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; Glow, arXiv:1807.03039 (PLU of 1x1 convolutions).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.trivial("C1", copies=2)
        >>> layer = GLinearPLU.from_matrix(action, torch.diag(torch.tensor([-1.0, -2.0])))
        >>> y, log_det = layer.call_and_ladj(torch.ones(2))
        >>> y.round().tolist(), round(log_det.item(), 4)
        ([-1.0, -2.0], 0.6931)
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        require_linear(action)
        channels = action if isinstance(action, VectorAction) else VectorAction(action.fields)
        components = channels.decomposition
        self.basis: ChangeOfBasis
        if components.in_closed_form:
            self.basis = AlgebraBasis(channels)
        else:
            rows = [algebra_rows(component) for component in components]
            self.basis = IsotypicBasis(torch.cat(rows), [len(part) for part in rows], event_dim=action.event_dim)
        self.factors = nn.ModuleList(
            TriangularFactors(component.multiplicity, len(component.commutant)) for component in components
        )
        self._dims = [component.dim for component in components]
        self._pixels = action.numel // channels.numel

    @classmethod
    def from_matrix(cls, action: LinearAction, matrix: Tensor) -> GLinearPLU:
        """The layer that maps x to ``matrix @ x`` before training, in the dtype of the matrix.

        Args:
            action: How the group acts on events.
            matrix: An invertible equivariant matrix, shape ``(numel, numel)``; on images of C channels ``(C, C)``.

        Raises:
            ValueError: The matrix has another shape, is not finite, is singular, or does not commute with the group.

        Example:
            >>> from pyro_gflows import VectorAction
            >>> matrix = torch.tensor([[1.0, -2.0], [2.0, 1.0]])
            >>> GLinearPLU.from_matrix(VectorAction.plane("C4"), matrix)(torch.tensor([1.0, 0.0])).round().tolist()
            [1.0, 2.0]
        """
        layer = cls(action).to(matrix.dtype if matrix.is_floating_point() else torch.get_default_dtype())
        exact = matrix.detach().to("cpu", torch.float64)
        size = sum(layer.basis.sizes)
        if exact.shape != (size, size):
            raise ValueError(f"expected a matrix of shape {(size, size)} for {action}, got {tuple(exact.shape)}")
        if not bool(exact.isfinite().all()):
            raise ValueError(f"expected a matrix of finite entries, got {int((~exact.isfinite()).sum())} others")
        values = torch.linalg.svdvals(exact)
        if float(values[-1]) <= _SINGULAR * float(values[0]):
            raise ValueError(
                f"expected an invertible matrix, got one whose singular values range from {float(values[-1]):.2g} to "
                f"{float(values[0]):.2g}"
            )
        units = torch.eye(size, dtype=torch.float64).reshape(size, size, *[1] * (action.event_dim - 1))
        rows = layer.basis.coordinates(units).reshape(size, size).T
        blocks = rows @ exact @ rows.T
        nearest, starts = torch.zeros_like(blocks), layer._starts()
        for factors, start, dim in zip(layer.factors, starts, layer._dims, strict=True):
            assert isinstance(factors, TriangularFactors)
            rest, stop = dim // factors.kind, start + factors.size * dim
            block = blocks[start:stop, start:stop].unflatten(0, (-1, rest)).unflatten(-1, (-1, rest))
            averaged = torch.einsum("aibi->ab", block) / rest
            averaged = as_real(coefficients(averaged, factors.kind))
            nearest[start:stop, start:stop] = torch.kron(averaged, torch.eye(rest, dtype=torch.float64))
            factors.assign_(averaged)
        error = float(torch.linalg.matrix_norm(blocks - nearest, 2) / values[0])
        if error > _EQUIVARIANT:
            raise ValueError(
                f"expected an equivariant matrix for {action}, got one that differs from the nearest equivariant "
                f"matrix by {error:.2g} of its norm"
            )
        return layer

    @classmethod
    def random(cls, action: LinearAction, *, generator: torch.Generator | None = None) -> GLinearPLU:
        """A layer that starts as a random orthogonal equivariant map, as the 1x1 convolutions of Glow do.

        Args:
            action: How the group acts on events.
            generator: A generator on the CPU.

        Example:
            >>> from pyro_gflows import VectorAction
            >>> layer = GLinearPLU.random(VectorAction.plane("D4", copies=2)).double()
            >>> x = torch.randn(4, dtype=torch.float64)
            >>> bool(torch.isclose(layer(x).norm(), x.norm()))
            True
        """
        layer = cls(action)
        for factors in layer.factors:
            assert isinstance(factors, TriangularFactors)
            shape = (factors.size, factors.size, factors.kind)
            left, _, right = torch.linalg.svd(as_real(torch.randn(shape, generator=generator, dtype=torch.float64)))
            factors.assign_(left @ right)  # the orthogonal factor of the matrix, which is over the same algebra
        return layer

    def _starts(self) -> list[int]:
        return [sum(self.basis.sizes[:place]) for place in range(len(self.basis.sizes))]

    def _mix(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        batch = x.shape[: x.ndim - self.action_in.event_dim]
        coordinates, along = self.basis.coordinates(x), -self.action_in.event_dim
        mixed, log_det = [], x.new_zeros(())
        for factors, part, dim in zip(
            self.factors, coordinates.split(self.basis.sizes, along), self._dims, strict=True
        ):
            assert isinstance(factors, TriangularFactors)
            table = part.reshape(*batch, factors.size * factors.kind, dim // factors.kind * self._pixels)
            mixed.append((factors.inverse(table) if inverse else factors(table)).reshape(part.shape))
            log_det = log_det + dim * factors.log_scale().to(x)
        y = self.basis.event(torch.cat(mixed, along))
        return y, (self._pixels * (-log_det if inverse else log_det)).expand(batch)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._mix(x, inverse=False)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._mix(y, inverse=True)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, exact log-det"
