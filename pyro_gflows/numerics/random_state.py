"""Random draws that leave the random state of the caller unchanged."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

__all__ = ["random_state_kept", "seed_of_rank"]


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


def seed_of_rank(seed: int, *position: int) -> int:
    """A seed for one of several processes: the seed itself for the first one, unrelated seeds for the others.

    Args:
        seed: The seed of the run.
        position: The number of the process, from 0, and whatever else distinguishes its random draws.

    Example:
        >>> seed_of_rank(7, 0), seed_of_rank(7, 1) != seed_of_rank(7, 2)
        (7, True)
    """
    if not any(position):
        return seed
    return int(np.random.SeedSequence([seed % 2**64, *position]).generate_state(1)[0])
