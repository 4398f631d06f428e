"""ResidualMap: a residual map with its Lipschitz bound, as log-det estimators take it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch, as_branch
from pyro_gflows.numerics.jacobian import Branch
from pyro_gflows.numerics.probe_images import Orbit, OrbitAverage, ProbeImages
from pyro_gflows.numerics.transforms_active import largest

__all__ = ["ResidualMap", "as_float", "require_contraction"]


def as_float(bound: float | Tensor) -> float:
    """A Lipschitz bound as a Python float; for a batch of branches under ``vmap``, the largest bound.

    Args:
        bound: A float, or a tensor with one entry.

    Example:
        >>> import torch
        >>> as_float(torch.tensor(0.5))
        0.5
    """
    return largest(bound) if isinstance(bound, Tensor) else float(bound)


def require_contraction(lipschitz: float) -> None:
    """Raise unless the power series of the log-det is known to converge.

    Args:
        lipschitz: A Lipschitz bound of the branch.

    Raises:
        ValueError: If the bound is not in [0, 1).
    """
    if not 0 <= lipschitz < 1:
        raise ValueError(
            f"expected a Lipschitz bound in [0, 1) for the power series of the log-det, got {lipschitz}; "
            "scale the branch down, or use ExactLogDet"
        )


@dataclass(frozen=True)
class ResidualMap:
    """The map x -> x + f(x), with everything that an estimator of its log-det needs.

    Args:
        f: The branch, a map of ``batch_shape + event_shape`` to the same shape, row by row.
        event_dim: The number of event dimensions.
        lipschitz: An upper bound of the Lipschitz constant of f in the Euclidean norm.
        training: Whether a random estimate is allowed; otherwise the log-det is a deterministic function of x.
        images: How fixed probes follow the group, so that an estimate is invariant if f is equivariant; with None they
            are used as they are.

    Example:
        >>> half = ResidualMap.of(lambda x: 0.5 * x, 1, lipschitz=0.5)
        >>> half.event_dim, half.lipschitz, half.training
        (1, 0.5, False)
    """

    f: DifferentiableBranch
    event_dim: int
    lipschitz: float
    training: bool = False
    images: ProbeImages | None = None

    @classmethod
    def of(
        cls,
        f: Branch,
        event_dim: int,
        *,
        lipschitz: float | Tensor,
        training: bool = False,
        orbit: Orbit | ProbeImages | None = None,
    ) -> ResidualMap:
        """A residual map from any callable, a bound in any form, and a function that gives all images of a probe.

        Args:
            f: The branch, a map of ``batch_shape + event_shape`` to the same shape, row by row.
            event_dim: The number of event dimensions.
            lipschitz: An upper bound of the Lipschitz constant of f in the Euclidean norm.
            training: Whether a random estimate is allowed.
            orbit: A function that gives all images of a probe under the group, or another ProbeImages, or None.
        """
        images = orbit if orbit is None or isinstance(orbit, ProbeImages) else OrbitAverage(orbit)
        return cls(as_branch(f, event_dim), event_dim, as_float(lipschitz), training=training, images=images)
