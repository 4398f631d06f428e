"""What Krylov log-dets know about their errors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["KrylovReport"]


@dataclass(frozen=True)
class KrylovReport:
    """What a Krylov log-det knows about its error for each row, for given probes.

    Attributes:
        log_det: The log-det, of shape ``batch_shape``.
        products: The number of products with the Jacobian of the row, on average over the probes.
        observed: The difference of the last two orders, in nats, on average over the probes; an indication of the
            error, not a bound.
        certified: A bound of the error for the given probes, in nats. It holds for every branch with the Lipschitz
            bound; the true error is usually 100 to 1,000 times smaller.

    Example:
        >>> import torch
        >>> from pyro_gflows.numerics import KrylovLogDet
        >>> x = torch.zeros(4, 2, dtype=torch.float64)
        >>> report = KrylovLogDet().report(lambda x: 0.5 * x, x, 1, lipschitz=0.5)
        >>> report.products.tolist(), bool((report.certified < 1e-12).all())
        ([1.0, 1.0, 1.0, 1.0], True)
    """

    log_det: Tensor
    products: Tensor
    observed: Tensor
    certified: Tensor
