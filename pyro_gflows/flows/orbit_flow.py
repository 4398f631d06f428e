"""OrbitFlow: the mixture of all images of one flow without symmetry."""

from __future__ import annotations

import torch
from pyro.distributions import TransformedDistribution
from torch import Tensor, nn

from pyro_gflows.actions import CoordinateSplit, VectorAction
from pyro_gflows.actions.requirements import require_vector
from pyro_gflows.distributions import InvariantNormal, Symmetrized
from pyro_gflows.distributions.factors import FullFactor
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms import Compose, EquivariantTransform, GCoupling

__all__ = ["OrbitFlow"]


@registered
class OrbitFlow(Symmetrized):
    r"""A base with one mode of learned shape for each element of a finite group: a mixture of images of one flow.

    .. math:: p(x) = \frac{1}{|G|} \sum_g q(\rho(g)^{-1} x)

    Here q is a flow without symmetry: coupling steps on a standard normal, then a linear map and a shift. Such a base
    is for posteriors with one mode for each image of a point, as label switching makes them; it is an
    :class:`~pyro_gflows.distributions.OrbitMixture` whose modes have any shape. It is easier to fit than equivariant
    layers there, since these would have to find out in which mode every draw is, while q is about one mode only. At the
    start q is a normal distribution about a random point. A score costs one evaluation of q for each element of the
    group; only the terms that contribute to the sum are differentiated.

    Args:
        action: How the finite group acts on vectors.
        steps: Coupling steps of q; each transforms a random half of the coordinates, with parameters from the other
            half.
        width: Hidden features of the networks of these steps.
        spread: Standard deviation of the random center of q at the start, in each coordinate.
        validate_args: As for every torch distribution.

    Raises:
        TypeError: ``action`` is not a VectorAction.
        ValueError: The group is infinite, or vectors have one component, which cannot be split (take OrbitMixture).

    Source: Normalizing flows, arXiv:1505.05770; RealNVP, arXiv:1605.08803.

    Example:
        >>> base = OrbitFlow(VectorAction.rows("S3"), steps=2, width=4)
        >>> base.rsample((5,)).shape, len(base.action.elements())
        (torch.Size([5, 3]), 6)
    """

    def __init__(
        self,
        action: VectorAction,
        *,
        steps: int = 8,
        width: int = 32,
        spread: float = 1.0,
        validate_args: bool | None = None,
    ) -> None:
        require_vector(action)
        if action.numel < 2:
            raise ValueError(
                f"a vector of one component cannot be split by coupling steps, got {action}; use OrbitMixture"
            )
        plain = VectorAction.trivial("C1", copies=action.numel)
        layers: list[EquivariantTransform] = [
            GCoupling(plain, split=_random_halves(plain, step // 2), transformed=step % 2, width=width)
            for step in range(steps)
        ]
        placed = _Placed(plain)
        nn.init.normal_(placed.center, std=spread)
        flow = TransformedDistribution(InvariantNormal(plain), [Compose([*layers, placed])])
        super().__init__(flow, action, validate_args=validate_args)
        self._placed = placed

    def start_at(self, location: Tensor, factor: Tensor) -> None:
        r"""Place q at a location, with covariance :math:`F F^T` (F lower triangular); call it before training."""
        self._placed.center.copy_(location)
        self._placed.frame.copy_(factor)

    def __repr__(self) -> str:
        return f"OrbitFlow({self.action})"


class _Placed(EquivariantTransform):
    r"""The map :math:`y = c + F\,(L x + m)` with learned L and m, in units that c and F fix once."""

    center: Tensor
    frame: Tensor

    def __init__(self, action: VectorAction) -> None:
        super().__init__(action)
        self.register_buffer("center", torch.zeros(action.numel))
        self.register_buffer("frame", torch.eye(action.numel))
        self.factor = FullFactor(action)
        self.shift = nn.Parameter(torch.zeros(action.numel))

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = (self.factor(x) + self.shift) @ self.frame.T + self.center
        return y, self._ladj().expand(x.shape[:-1])

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = (y - self.center).reshape(-1, y.shape[-1])
        inner = torch.linalg.solve_triangular(self.frame.T, rows, upper=True, left=False).reshape(y.shape)
        return self.factor.solve(inner - self.shift), -self._ladj().expand(y.shape[:-1])

    def _ladj(self) -> Tensor:
        return self.factor.log_det() + self.frame.diagonal().log().sum()


def _random_halves(action: VectorAction, seed: int) -> CoordinateSplit:
    order = torch.randperm(action.numel, generator=torch.Generator().manual_seed(seed)).tolist()
    return CoordinateSplit(action, [order[: action.numel // 2], order[action.numel // 2 :]])
