"""Checks of how many processes were started, and that a run on one device is not one of several."""

from __future__ import annotations

import os

import torch.distributed

__all__ = ["require_one_process", "started_by_others"]


def started_by_others() -> int | None:
    """The number of processes that torchrun or SLURM has started for this run; None if neither has.

    An interactive job of SLURM, in whose shell one program is started by hand, does not count.
    """
    for name, rank in (("WORLD_SIZE", "RANK"), ("SLURM_NTASKS", "SLURM_PROCID")):
        declared = os.environ.get(name, "").strip()
        if (
            declared.isdigit()
            and rank in os.environ
            and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
        ):
            return int(declared)
    return None


def require_one_process() -> None:
    """Refuses to train in one of several processes without exchanging gradients.

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
        f"expected one process, got {found}: without devices=... each rank would train its own model; pass "
        "devices='auto', start the program with python instead of torchrun, or write your own loop around "
        "DistributedDataParallel(Likelihood(flow)), whose forward is the loss"
    )
