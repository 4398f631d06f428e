"""The average of the estimates from the Krylov spaces of fixed probes, in parts that fit the memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_gflows.numerics.branch import BranchWithPullbacks, pullbacks
from pyro_gflows.numerics.fixed_probes import FixedProbes
from pyro_gflows.numerics.jacobian import Product, event_numel
from pyro_gflows.numerics.krylov_report import KrylovReport
from pyro_gflows.numerics.krylov_space import KrylovSpace
from pyro_gflows.numerics.residual_map import ResidualMap
from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["averaged", "flattened", "report_of"]

# the most components in the basis vectors whose graphs are kept for the gradient, for a typical order
_MOST_STORED = 2**20
_TYPICAL_ORDER = 8
# the most components in the copies of x that are held at once
_MOST_AT_ONCE, _MOST_ON_CPU = 2**21, 2**16


class _SpaceOf(Protocol):
    def __call__(
        self,
        product: Callable[[Tensor], Tensor],
        probe: Tensor,
        lipschitz: float,
        orders: tuple[Tensor, int] | None = None,
    ) -> KrylovSpace: ...


def averaged(
    estimator: FixedProbes,
    residual_map: ResidualMap,
    x: Tensor,
    space_of: _SpaceOf,
    *,
    create_graph: bool,
    spaces: list[KrylovSpace] | None = None,
) -> tuple[Tensor, Tensor]:
    """The value f(x), and the average of the estimates from the Krylov spaces of the fixed probes.

    Args:
        estimator: The estimator, which has the probes.
        residual_map: The map.
        x: The input, of shape ``batch_shape + event_shape``.
        space_of: Makes the Krylov spaces from a product, flattened probes, a Lipschitz bound and known orders.
        create_graph: Whether the results are differentiable.
        spaces: A list to which all spaces are appended, or None.
    """
    split, stored = x.dim() - residual_map.event_dim, create_graph and not transforming()

    def sum_over(probes: Tensor) -> tuple[Tensor, Tensor]:
        size = (len(probes), *x.shape)
        flat = probes.expand(size).reshape(*size[: 1 + split], event_numel(x, residual_map.event_dim))
        known: list[tuple[Tensor, int]] = []  # the orders of all rows, the same where the graph is made again

        def estimated() -> tuple[Tensor, Tensor]:
            value, product = once or pullbacks(residual_map.f, x, len(probes))
            multiply = flattened(product, size, create_graph=create_graph)
            found = space_of(multiply, flat, residual_map.lipschitz, known[0] if known else None)
            if not known and spaces is not None:
                spaces.append(found)
            known.append((found.orders, len(found.columns)))
            return value, found.log_det.sum(0)

        if not stored or _TYPICAL_ORDER * math.prod(size) <= _MOST_STORED:
            return estimated()
        made: tuple[Tensor, Tensor] = checkpoint(estimated, use_reentrant=False, preserve_rng_state=False)
        return made

    f, once = residual_map.f, None
    if not stored and isinstance(f, BranchWithPullbacks):
        once = f.call_and_pullbacks(x)
    # small parts stay in the cache of a processor, large ones keep a GPU busy
    at_once = _MOST_ON_CPU if x.device.type == "cpu" else _MOST_AT_ONCE
    if stored:
        at_once = _MOST_STORED // _TYPICAL_ORDER
    return estimator.average(residual_map, x, sum_over, at_once=at_once)


def report_of(log_det: Tensor, spaces: list[KrylovSpace]) -> KrylovReport:
    """The report of an average over the first axis of all the spaces.

    Args:
        log_det: The average.
        spaces: The spaces.
    """

    def mean(name: str) -> Tensor:
        return torch.cat([getattr(space, name).detach() for space in spaces]).to(log_det.dtype).mean(0)

    return KrylovReport(log_det.detach(), mean("orders"), mean("observed"), mean("certified"))


def flattened(product: Product, size: Sequence[int], *, create_graph: bool) -> Callable[[Tensor], Tensor]:
    """The map v -> J^T v on flattened events.

    Args:
        product: The map on events.
        size: The shape of v with its events as they are.
        create_graph: Whether the products are differentiable.
    """

    def multiply(vector: Tensor) -> Tensor:
        return product(vector.reshape(size), create_graph=create_graph).reshape(vector.shape)

    return multiply
