"""Refusing to record computations that are not a fixed list of operations."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["is_tracing", "records_graph", "refuse_tracing", "uncompiled"]

_T = TypeVar("_T")


def is_tracing() -> bool:
    """Whether torch.jit.trace is recording.

    Example:
        >>> is_tracing()
        False
    """
    return torch._C._get_tracing_state() is not None


def uncompiled(function: Callable[..., _T]) -> Callable[..., _T]:
    """A decorator of a function that ``torch.compile`` is to call, not to record.

    It serves iterations whose number of steps depends on values: recorded in pieces, they are recorded anew for every
    number of steps. Other code around a call is compiled, unless it asks for ``fullgraph=True``.

    Args:
        function: The function.

    Example:
        >>> uncompiled(abs)(-1.0)
        1.0
    """

    @functools.wraps(function)
    def inner(*args: object, **kwargs: object) -> _T:
        if torch.compiler.is_compiling():
            # not at import, where it would cost the import of all that compiles
            return torch.compiler.disable(function)(*args, **kwargs)  # type: ignore[no-any-return]
        return function(*args, **kwargs)

    return inner


def refuse_tracing(what: str) -> None:
    """Raise while torch.jit.trace, make_fx or torch.func.linearize is recording.

    They record the operations of one call. Whatever depends on the data, such as the number of steps of an iteration,
    would be frozen, and silently wrong for other data.

    Args:
        what: The computation, for the message.

    Raises:
        RuntimeError: If a trace is being recorded.

    Example:
        >>> refuse_tracing("the inverse of a residual layer")
    """
    steps = f"{what} cannot be traced: the number of its steps depends on the data, and"
    if is_tracing():
        raise RuntimeError(
            f"{steps} torch.jit.trace would keep the number of one call; give fast='sample' to the layers that the "
            "traced code samples from, or leave out the JIT (Trace_ELBO for JitTrace_ELBO, jit_compile=False)"
        )
    if records_graph():
        raise RuntimeError(
            f"{steps} make_fx or torch.func.linearize would keep the number of one call; use torch.func.jvp for "
            "derivatives in a direction, or a layer with the other value of fast ('sample' or 'score')"
        )


def records_graph() -> bool:
    """Whether make_fx or torch.func.linearize is recording."""
    # code that records has imported the module already; it is slow to import
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is None:
        return False
    # torch 2.3 and 2.4 have the second name only
    mode = getattr(proxies, "get_proxy_mode", None) or proxies.get_innermost_proxy_mode
    return mode() is not None
