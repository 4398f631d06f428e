"""Shears: residual maps whose log-det is 0 in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.probe_images import ProbeImages
from pyro_gflows.numerics.residual_map import ResidualMap
from pyro_gflows.serialization.registry import registered

__all__ = ["ShearBranch", "ShearLogDet"]


class ShearBranch:
    r"""The type of a branch f that changes only components which it does not read, so that x + f(x) is a shear.

    .. math:: f(x + f(x)) = f(x), \qquad x = y - f(y), \qquad \det(I + J_f(x)) = 1

    A class that inherits from it promises this for all weights; :class:`ShearLogDet` relies on it. The inverse needs no
    solver of its own: the first step of :class:`BanachSolver` is the exact root.

    Example:
        >>> class AddFirstToSecond(ShearBranch):
        ...     def __call__(self, x):
        ...         return torch.stack([torch.zeros_like(x[..., 0]), x[..., 0]], -1)
        >>> f, x = AddFirstToSecond(), torch.tensor([3.0, 1.0])
        >>> torch.equal(f(x + f(x)), f(x))
        True
    """


@registered
class ShearLogDet(LogDet):
    """The log-det of a shear x + f(x), which is 0 for every x: no Jacobian is computed.

    A shear changes only components that its branch does not read, so its Jacobian is triangular with ones on the
    diagonal. The branch has to be a :class:`ShearBranch`, such as :class:`~pyro_gflows.nn.Shear`; any other branch is
    a TypeError in the first call.

    Example:
        >>> from pyro_gflows import GResidual, VectorAction
        >>> from pyro_gflows.nn import Shear
        >>> branch = Shear(VectorAction.plane("D4", copies=2), torch.nn.Identity(), lipschitz=1.0, outer=0.5)
        >>> layer = GResidual(branch.action, branch, log_det=ShearLogDet(), fast="sample")
        >>> layer.call_and_ladj(torch.tensor([[1.0, 2.0, 0.0, 0.0]]))
        (tensor([[1.0000, 2.0000, 0.5000, 1.0000]]), tensor([0.]))
    """

    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        if not isinstance(residual_map.f, ShearBranch):
            raise TypeError(
                f"expected a branch that is a shear, such as nn.Shear, got {type(residual_map.f).__name__}; take "
                "ExactLogDet, which works for every branch"
            )
        with torch.set_grad_enabled(create_graph):
            return residual_map.f(x), x.new_zeros(x.shape[: x.ndim - residual_map.event_dim])

    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        return "0 (a shear)"

    def __repr__(self) -> str:
        return "ShearLogDet(0)"
