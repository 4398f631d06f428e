"""Residual flows on a padded space that realize a given map exactly."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn.shear import Half, Shear
from pyro_gflows.numerics import ShearLogDet
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.realization_checks import check_constants, check_map
from pyro_gflows.transforms.residual import GResidual

__all__ = ["ResidualRealization", "residual_realization"]


def residual_realization(
    function: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
    *,
    action: LinearAction,
    lipschitz: tuple[float, float],
    bound: float = 0.9,
    points: Tensor | None = None,
) -> ResidualRealization:
    r"""The chain of residual layers on R^d x R^d that maps (x, 0) to (F(x), 0) exactly, for an equivariant map F.

    Residual layers on R^d alone cannot represent every equivariant bijection. With a second event as padding, on which
    the group acts as it acts on x, they can represent all that are Lipschitz with their inverse. This function makes
    such a chain, after checks of what is said about F at sampled points; :class:`ResidualRealization` has the formulas.

    Args:
        function: F, an equivariant bijection of events, row by row: a module or another function.
        inverse: The inverse of F.
        action: How the group acts on x.
        lipschitz: Lipschitz constants of F and of its inverse.
        bound: The largest Lipschitz constant of a residual part, in (0, 1). A smaller one needs more layers.
        points: Events at which F is checked, of shape ``(rows,) + action.event_shape``; by default 256 normal draws of
            each of the standard deviations 0.3, 1 and 3.

    Raises:
        TypeError: ``action`` is not a LinearAction.
        ValueError: A constant is not positive and finite; or, at the points, ``inverse`` does not undo F, F is not
            equivariant, or a pair of points violates a Lipschitz constant (the message names the pair).

    Source: Theorem 3 of Equivariant Finite Normalizing Flows, arXiv:2110.08649; Approximation Capabilities of Neural
    ODEs and Invertible Residual Networks, arXiv:1907.12998.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("D4")
        >>> chain = residual_realization(torch.neg, torch.neg, action=action, lipschitz=(1.0, 1.0))
        >>> chain
        ResidualRealization(VectorAction(D4 on R^4: 2 x defining), 6 residual layers (1 + 2 + 2 + 1) with ...
        >>> chain(chain.pad(torch.tensor([3.0, 1.0])))
        tensor([-3., -1.,  0.,  0.])
    """
    require_linear(action)
    check_constants(lipschitz, bound)
    check_map(function, inverse, action=action, lipschitz=lipschitz, points=points)
    return ResidualRealization(function, inverse, action=action, lipschitz=lipschitz, bound=bound)


@registered
class ResidualRealization(Compose):
    r"""The chain of residual layers on R^d x R^d that :func:`residual_realization` makes.

    With L and M the Lipschitz constants of F and of its inverse, and :math:`\delta < \min(1, 1/L)`, the layers are

    .. math::
        \begin{aligned}
        (x, z) &\mapsto (x,\; z + \delta F(x)) \\
        (x, z) &\mapsto (x - F^{-1}(z/\delta)/T,\; z) \quad T > M/\delta \text{ times} \\
        (x, z) &\mapsto (x + z/(\delta S),\; z) \quad S > 1/\delta \text{ times} \\
        (x, z) &\mapsto (x,\; z - \delta x)
        \end{aligned}

    so that (x, 0) becomes :math:`(x, \delta F(x))`, then :math:`(0, \delta F(x))`, then :math:`(F(x), \delta F(x))`,
    and at last (F(x), 0). Every residual part is a contraction. All layers are shears, so the log-det of the chain is 0
    on the whole padded space, whatever the log-det of F is: the chain is no density model of F(x);
    :func:`~pyro_gflows.flows.augment` is what gives densities on a padded space.

    Args:
        function: F, an equivariant bijection of events, row by row; a registered module, if the chain is to be saved.
        inverse: The inverse of F.
        action: How the group acts on x; it acts on the padding in the same way.
        lipschitz: Lipschitz constants L and M of F and of its inverse, which are taken as stated.
        bound: The largest Lipschitz constant of a residual part, in (0, 1).

    Raises:
        ValueError: A constant is not positive and finite, their product is below 1, or ``bound`` is not in (0, 1).

    Attributes:
        delta: The factor :math:`\delta`.
        counts: The numbers 1, T, S and 1 of layers of the four kinds.
        constants: The Lipschitz constants of the residual parts of the four kinds.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("O(2)")
        >>> chain = ResidualRealization(torch.neg, torch.neg, action=action, lipschitz=(1.0, 1.0), bound=0.5)
        >>> chain.delta, chain.counts, chain.constants
        (0.5, (1, 4, 4, 1), (0.5, 0.5, 0.5, 0.5))
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        inverse: Callable[[Tensor], Tensor],
        *,
        action: LinearAction,
        lipschitz: tuple[float, float],
        bound: float = 0.9,
    ) -> None:
        check_constants(lipschitz, bound)
        padded = action.direct_sum(action)
        largest, largest_inverse = lipschitz
        delta = bound * min(1.0, 1 / largest)
        erasing = math.ceil(largest_inverse / (delta * bound))
        writing = math.ceil(1 / (delta * bound))

        def layer(
            function: Callable[[Tensor], Tensor], reads: Half, constant: float, inner: float, outer: float
        ) -> GResidual:
            shear = Shear(padded, function, lipschitz=constant, reads=reads, inner=inner, outer=outer)
            return GResidual(padded, shear, log_det=ShearLogDet(), fast="sample")

        identity = torch.nn.Identity()
        kinds = [
            (1, layer(function, "first", largest, 1.0, delta)),
            (erasing, layer(inverse, "second", largest_inverse, 1 / delta, -1 / erasing)),
            (writing, layer(identity, "second", 1.0, 1.0, 1 / (delta * writing))),
            (1, layer(identity, "first", 1.0, 1.0, -delta)),
        ]
        super().__init__([part for count, part in kinds for _ in range(count)])
        self.delta = delta
        self._half = action
        self.counts = tuple(count for count, _ in kinds)
        self.constants = tuple(part.branch.bound for _, part in kinds)

    def pad(self, x: Tensor) -> Tensor:
        """The events (x, 0).

        Args:
            x: Events of shape ``batch_shape + action.event_shape``.
        """
        self._half.check_event(x)
        return torch.cat([x, torch.zeros_like(x)], -self._half.event_dim)

    def __repr__(self) -> str:
        constants = ", ".join(f"{constant:.3g}" for constant in self.constants)
        counts = " + ".join(map(str, self.counts))
        return (
            f"{type(self).__name__}({self.action_in}, {sum(self.counts)} residual layers ({counts}) with Lipschitz "
            f"constants {constants}, delta={self.delta:.3g}, log-det 0)"
        )
