"""Finds the sample sites that a model hides behind ``poutine.block``."""

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
    """Runs a model once and returns its trace together with the sample sites that ``poutine.block`` hides.

    A hidden site contributes nothing to the log-joint of the trace, so a guide has to know of it.

    Args:
        model: A Pyro model.
        args: Arguments of the model.
        kwargs: Keyword arguments of the model.

    Returns:
        The trace, and the hidden sites by name. The indices of minibatches and ``pyro.deterministic`` sites have no
        density of their own and do not count as hidden.

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
    """Records all messages that any BlockMessenger stops, since a handler around it does not receive them."""
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
