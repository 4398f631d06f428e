"""How many processes take part in a run: one."""

from __future__ import annotations

import os

import torch.distributed

__all__ = ["require_one_process"]


def require_one_process() -> None:
    """Refuse to train in one of several processes, each of which would train weights of its own.

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
        f"expected one process, got {found}: training does not exchange gradients, so each rank would train a model "
        "of its own; start the program by python in place of torchrun (or by torchrun --nproc-per-node=1), or write a "
        "loop of your own around DistributedDataParallel(flow), whose forward is the log-density"
    )
