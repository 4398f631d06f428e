"""What cannot be recorded as a fixed list of operations."""

from __future__ import annotations

import sys

import torch

__all__ = ["is_tracing", "refuse_tracing"]


def is_tracing() -> bool:
    """Whether torch.jit.trace records.

    >>> is_tracing()
    False
    """
    return torch._C._get_tracing_state() is not None


def refuse_tracing(what: str) -> None:
    """Raise while torch.jit.trace, make_fx or torch.func.linearize records.

    These keep the operations of one call. The number of steps of an iteration depends on the values, so it would be
    frozen, and silently wrong for other values.

    Raises:
        RuntimeError: a trace is being recorded.

    >>> refuse_tracing("the inverse of a residual layer")
    """
    steps = f"{what} cannot be traced: the number of its steps depends on the numbers it meets, and"
    if is_tracing():
        raise RuntimeError(
            f"{steps} torch.jit.trace would keep that of one call; make the layers that the traced code draws from "
            "with fast='sample', or leave out the JIT (Trace_ELBO for JitTrace_ELBO, jit_compile=False)"
        )
    if _records_graph():
        raise RuntimeError(
            f"{steps} make_fx or torch.func.linearize would keep that of one call; take torch.func.jvp for derivatives "
            "in a direction, or the layer's other direction (fast='sample' or 'score')"
        )


def _records_graph() -> bool:
    # imported by whoever records; the module itself takes long to import
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is None:
        return False
    # torch 2.3 and 2.4 have the second name only
    mode = getattr(proxies, "get_proxy_mode", None) or proxies.get_innermost_proxy_mode
    return mode() is not None
