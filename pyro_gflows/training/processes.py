"""Checks that a run is not one of several processes."""

from __future__ import annotations

import os

import torch.distributed

__all__ = ["require_one_process"]


def require_one_process() -> None:
    """Refuses to train in one of several processes, since each process would train its own weights.

    Raises:
        RuntimeError: torchrun started several processes (``WORLD_SIZE``), or there is a process group of several ranks.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        found = f"a process group of {distributed.get_world_size()} ranks"
    elif (declared := os.environ.get("WORLD_SIZE", "").strip()).isdigit() and int(declared) > 1:
        found = f"WORLD_SIZE={declared} in the environment, as torchrun sets it"
    else:
        return
    raise RuntimeError(
        f"expected one process, got {found}: training does not exchange gradients, so each rank would train its own "
        "model; start the program with python instead of torchrun (or with torchrun --nproc-per-node=1), or write "
        "your own loop around DistributedDataParallel(flow), whose forward is the log-density"
    )
