"""The warning that NUTS would sample through log-dets that jump."""

from __future__ import annotations

import warnings

from torch import nn

from pyro_gflows.transforms.by_contraction import ByContraction

__all__ = ["warn_of_jumps"]


def warn_of_jumps(transform: nn.Module) -> None:
    """Warn of layers whose log-det in evaluation is an estimate with probes that follow the event.

    Such an estimate is exactly invariant, but it jumps, for example where two rows of a set cross. NUTS and HMC lose
    energy at every jump, so that they ask for exact log-dets.

    Args:
        transform: The transform through which NUTS is to sample.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> warn_of_jumps(g_residual(VectorAction.plane("D8")))  # its log-det is exact
    """
    found = [part for part in transform.modules() if isinstance(part, ByContraction) and part.may_jump]
    if found:
        warnings.warn(
            f"the log-det of {len(found)} layer{'s' if len(found) > 1 else ''} is an estimate that jumps where the "
            "canonical form of an event changes, and NUTS asks for a density without jumps; take an exact log-det "
            f"(PooledBranch on rows, log_det=ExactLogDet()), got {found[0].log_det}",
            stacklevel=3,
        )
