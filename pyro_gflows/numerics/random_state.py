"""Random draws that leave the random state of the caller unchanged."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["random_state_kept"]


@contextlib.contextmanager
def random_state_kept(where: torch.device | nn.Module | None = None, *, seed: int | None = None) -> Iterator[None]:
    """A context in which torch's generators may be used and seeded; afterwards they are in their former state.

    Args:
        where: A device, or a module on a device, whose generator is kept besides that of the CPU; other generators are
            not kept.
        seed: A seed to begin with; with None the generators continue from their state.

    Example:
        >>> with random_state_kept(seed=0):
        ...     first = torch.rand(2)
        >>> with random_state_kept(seed=0):
        ...     print(torch.equal(torch.rand(2), first))
        True
    """
    if isinstance(where, nn.Module):
        where = next((tensor.device for tensor in itertools.chain(where.parameters(), where.buffers())), None)
    with torch.random.fork_rng(devices=[where] if where is not None and where.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield
