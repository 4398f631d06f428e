"""ResidualMap: what an estimator of a log-determinant is told, in one object."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch, as_branch
from pyro_gflows.numerics.jacobian import Branch
from pyro_gflows.numerics.probe_images import Orbit, OrbitAverage, ProbeImages
from pyro_gflows.numerics.transforms_active import largest

__all__ = ["ResidualMap", "as_float", "require_contraction"]


def as_float(bound: float | Tensor) -> float:
    """A Lipschitz bound as a number; of a batch of branches under ``vmap`` the largest one."""
    return largest(bound) if isinstance(bound, Tensor) else float(bound)


def require_contraction(lipschitz: float) -> None:
    """Raise where the power series of log(1 + z) is not known to converge.

    Raises:
        ValueError: the bound is not in [0, 1).
    """
    if not 0 <= lipschitz < 1:
        raise ValueError(
            f"expected a Lipschitz bound in [0, 1) for the power series of the log-det, received {lipschitz}; "
            "scale the branch down, or use ExactLogDet"
        )


@dataclass(frozen=True)
class ResidualMap:
    """The map x -> x + f(x), with what its log-det may be estimated from.

    Arguments:
        f: the branch, a map of batch_shape + event_shape to the same shape, row by row.
        event_dim: the number of event dimensions.
        lipschitz: an upper bound of the Lipschitz constant of f in the Euclidean norm.
        training: whether a random estimate is allowed. Without it the log-det is a deterministic function of x.
        images: how fixed probes follow the group, so that an estimate is invariant where f is equivariant; None: they
            stay as they are.

    >>> double = ResidualMap.of(lambda x: 0.5 * x, 1, lipschitz=0.5)
    >>> double.event_dim, double.lipschitz, double.training
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
        """The same from any callable, a bound in any form, and all group images of a probe."""
        images = orbit if orbit is None or isinstance(orbit, ProbeImages) else OrbitAverage(orbit)
        return cls(as_branch(f, event_dim), event_dim, as_float(lipschitz), training=training, images=images)
