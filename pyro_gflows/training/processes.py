"""Which of several processes this is, how many were started, and that a run on one device is not one of several."""

from __future__ import annotations

import os

import torch.distributed

from pyro_gflows.datasets.processes import COMMON

__all__ = [
    "is_first_process",
    "raised_in_all_processes",
    "require_one_process",
    "started_by_others",
]


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


def is_first_process() -> bool:
    """Whether this is the first of the processes of a run, which alone writes files and reports; also before the run.

    A script that trains on several devices runs in several processes, every line of it. This is the question to ask
    before it prints a result or saves a flow.

    A process knows its number by the process group, and before there is one by the variables of the environment that
    torchrun (``RANK``), SLURM (``SLURM_PROCID``) or Lightning (``NODE_RANK`` and ``LOCAL_RANK``) has set.

    Example:
        >>> is_first_process()  # one process is the first
        True
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    names = ["NODE_RANK" if "NODE_RANK" in os.environ else "GROUP_RANK", "LOCAL_RANK"]
    if "RANK" in os.environ:
        names = ["RANK"]
    elif started_by_others() is not None:
        names = ["SLURM_PROCID"]
    return not any(os.environ.get(name, "").strip() not in ("", "0") for name in names)


def raised_in_all_processes(error: BaseException) -> bool:
    """Whether all processes of a run raise an error, so that this one need not report it.

    Before the processes have met, those that torchrun or SLURM started on one machine do the same, and the first one
    on it reports.

    Args:
        error: The error.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return any(COMMON in vars(cause) for cause in (error, error.__cause__) if cause is not None)
    on_machine = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return started_by_others() is not None and on_machine.strip() not in ("", "0")


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
