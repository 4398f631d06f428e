"""Which sites of a model does nobody outside of it see?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pyro import poutine
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.util import site_is_subsample

__all__ = ["visible_and_hidden"]

_LOCK = threading.RLock()


def visible_and_hidden(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Run a model once: the trace that is seen from outside, and the sample sites that ``poutine.block`` hides from it.

    Args:
        model: a Pyro model.
        args: its arguments.
        kwargs: its keyword arguments.

    Returns:
        The trace, and the hidden sites by name. Choices of a minibatch and ``pyro.deterministic`` sites have no density
        of their own, and are left out of the hidden ones.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model():
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(mean, 1.0), obs=torch.tensor(2.0))
        >>> trace, hidden = visible_and_hidden(poutine.block(model, expose=["mean"]), (), {})
        >>> list(trace.stochastic_nodes), list(hidden)
        (['mean'], ['x'])
    """
    with _recorded() as blocked, poutine.block():
        trace = poutine.trace(model).get_trace(*args, **kwargs)
    hidden = {
        site["name"]: site
        for site in blocked
        if site["type"] == "sample" and site["name"] not in trace.nodes and _has_density(site)
    }
    return trace, hidden


def _has_density(site: Any) -> bool:
    return not site_is_subsample(site) and not site["infer"].get("_deterministic", False)


@contextmanager
def _recorded() -> Iterator[list[Any]]:
    """All messages that any BlockMessenger stops, wherever it is: no handler outside of it can see them."""
    blocked: list[Any] = []
    with _LOCK:
        process = BlockMessenger._process_message

        def process_and_record(self: Any, message: Any) -> None:
            process(self, message)
            if message["stop"]:
                blocked.append(message)

        BlockMessenger._process_message = process_and_record
        try:
            yield blocked
        finally:
            BlockMessenger._process_message = process
