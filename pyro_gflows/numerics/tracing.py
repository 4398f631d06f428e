"""What torch.jit.trace cannot record."""

from __future__ import annotations

import torch

__all__ = ["refuse_tracing"]


def refuse_tracing(what: str) -> None:
    """Raise while torch.jit.trace records: it keeps the operations of one call, so that what depends on the numbers
    (how many steps an iteration takes) would be frozen, and wrong for others, without a word.

    Raises:
        RuntimeError: a trace is being recorded.

    >>> refuse_tracing("the inverse of a residual layer")
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise RuntimeError(
            f"{what} cannot be traced: the number of its steps depends on the numbers it meets, and torch.jit.trace "
            "would keep that of one call; make the layers that the traced code draws from with fast='sample', or "
            "leave out the JIT (Trace_ELBO for JitTrace_ELBO, jit_compile=False)"
        )
