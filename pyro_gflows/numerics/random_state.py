"""Random draws that leave the random state of the caller unchanged."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["random_state_kept", "random_tensors", "restore_random", "seed_of_rank"]


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


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's generators of the CPU and of a device, as tensors by name, for a checkpoint.

    Args:
        device: The device.
    """
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def restore_random(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Sets torch's generators to the states of :func:`random_tensors`.

    Args:
        states: The states, by name.
        device: The device.

    Example:
        >>> states = random_tensors(torch.device("cpu"))
        >>> first = torch.rand(2)
        >>> restore_random(states, torch.device("cpu"))
        >>> torch.equal(torch.rand(2), first)
        True
    """
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


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
