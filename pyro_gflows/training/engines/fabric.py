"""Many devices and machines by Lightning Fabric, which starts processes and averages gradients."""

from __future__ import annotations

import contextlib
import functools
import inspect
import multiprocessing
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch
import torch.distributed
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from safetensors.torch import load as weights_of
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from pyro_gflows.datasets.processes import COMMON
from pyro_gflows.datasets.share import Share
from pyro_gflows.training.engines.base import Engine
from pyro_gflows.training.engines.devices import UNUSED, Devices
from pyro_gflows.training.interrupt import DeferredInterrupt
from pyro_gflows.training.objectives.base import FitDiverged, Objective

__all__ = ["FabricEngine", "launch_with_fabric"]

_T = TypeVar("_T")

_SECONDS_TO_FAIL = 10.0


class FabricEngine(Engine):
    """The devices of a run under Lightning Fabric, as one of its processes sees them.

    Args:
        fabric: The launched Fabric.
    """

    def __init__(self, fabric: Fabric) -> None:
        super().__init__(Share(fabric.global_rank, fabric.world_size))
        self._fabric = fabric

    def set_up(self, objective: Objective, optimizer: torch.optim.Optimizer) -> Callable[[Any, int], Tensor]:
        """Returns the wrapped objective, whose gradients are averaged over the processes.

        Args:
            objective: The objective, whose weights and buffers become those of the first process.
            optimizer: The optimizer of its weights.
        """
        self.broadcast(objective.buffers())
        wrapped: Callable[[Any, int], Tensor] = self._fabric.setup(objective, optimizer, move_to_device=False)[0]
        return wrapped

    def backward(self, loss: Tensor) -> None:
        """Computes the gradients of a loss, averaged over the processes.

        Args:
            loss: The loss of this process, a scalar.
        """
        self._fabric.backward(loss)


def launch_with_fabric(devices: Devices, run: Callable[[Engine], _T], *, module: nn.Module) -> _T:
    """Calls a function in every process, as :func:`~pyro_gflows.training.engines.devices.launch` does.

    Args:
        devices: The devices.
        run: A function of the engine of its process.
        module: The module that it trains, whose weights are copied back from processes that end with the run.
    """
    options: dict[str, Any] = {} if devices.precision is None else {"precision": devices.precision}
    fabric = Fabric(
        accelerator=devices.accelerator,
        devices=devices.per_node,
        num_nodes=devices.num_nodes,
        strategy=_strategy(devices),
        **options,
    )
    if not _starts_other_processes(fabric):
        try:
            result: _T = fabric.launch(_run_here, run, module)  # type: ignore[arg-type]
        except Exception as error:
            if not _ends_all(error):  # the other processes may wait for this one forever
                _end(fabric)
            raise
        return result
    receiver, sender = multiprocessing.Pipe(duplex=False)
    # in a thread, since a process ends only when what it has sent is read
    with ThreadPoolExecutor(1) as reader, DeferredInterrupt():
        sent = reader.submit(receiver.recv)
        try:
            # as a partial: Lightning looks into the dataclasses that it is given, and cannot do so if they are frozen
            fabric.launch(_run_there, functools.partial(run), module, sender)  # type: ignore[arg-type]
        finally:
            sender.close()
        found, weights, problem = sent.result()
    if problem is not None:
        raise problem
    if (dtype := _dtype(fabric)) is not None:
        module.to(dtype)
    module.load_state_dict(weights_of(weights))
    module.eval()
    answer: _T = found
    return answer


def _strategy(devices: Devices) -> DDPStrategy | str:
    """How processes are started and gradients averaged."""
    if devices.processes == 1:
        return "auto"
    name = devices.strategy.removesuffix(UNUSED)
    if name == "auto":
        is_interactive = hasattr(sys, "ps1") or bool(sys.flags.interactive)  # there is no script to start once more
        name = "ddp_notebook" if is_interactive else "ddp"
    start = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}[name]
    # Buffers of a flow are constants, such as bases of fields, and may be many times its weights: they are not sent at
    # every step. What a network of the user keeps in buffers is sent where it is used (Processes.broadcast).
    known = inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters
    once = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {once: False}
    if devices.strategy.endswith(UNUSED):
        options["find_unused_parameters"] = True
    return DDPStrategy(start_method=start, **options)  # type: ignore[arg-type]


def _starts_other_processes(fabric: Fabric) -> bool:
    """Whether the run is in other processes than this one, so that its results have to be sent back."""
    return type(fabric.strategy.launcher).__name__ == "_MultiProcessingLauncher"


def _end(fabric: Fabric) -> None:
    """Ends the processes that this one has started, after a while in which they may fail and say so themselves."""
    processes: list[subprocess.Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_FAIL)
        process.kill()


def _run_here(fabric: Fabric, run: Callable[[Engine], _T], module: nn.Module) -> _T:
    """Runs in this process, which is one of several that go on after the run."""
    engine = FabricEngine(fabric)
    module.to(fabric.device)
    if (dtype := _dtype(fabric)) is not None:
        module.to(dtype)
    with warnings.catch_warnings(), _own_cores(fabric):
        # of the layout in memory of small weights, which costs next to nothing
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        if engine.share.rank > 0:  # the first process says it already
            warnings.simplefilter("ignore")
        return run(engine)


@contextlib.contextmanager
def _own_cores(fabric: Fabric) -> Iterator[None]:
    """A context in which each of several processes on the CPU stays on its own cores, where there are enough of them.

    Otherwise the system may move them to and fro, and all wait for the one that it has moved.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    here = fabric.world_size // getattr(fabric.strategy, "num_nodes", 1)
    if fabric.device.type != "cpu" or not 1 < here <= len(cores):
        yield
        return
    os.sched_setaffinity(0, cores[Share(fabric.local_rank, here).of(len(cores))])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _run_there(fabric: Fabric, run: Callable[[Engine], Any], module: nn.Module, sender: Connection) -> None:
    """Runs in a process that ends with the run, and sends what came of it from the first one."""
    found: Any = None
    problem: BaseException | None = None
    try:
        found = _run_here(fabric, run, module)
    except (Exception, KeyboardInterrupt) as error:
        if not _ends_all(error):
            raise
        problem = error
    if fabric.global_rank == 0:
        weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
        sender.send((found, bytes_of(weights), problem))


def _ends_all(error: BaseException) -> bool:
    """Whether all processes have the same error, so that the first one reports it for all of them."""
    return isinstance(error, FitDiverged | KeyboardInterrupt) or COMMON in vars(error)


def _dtype(fabric: Fabric) -> torch.dtype | None:
    """The dtype to which the precision converts weights; None if it leaves them."""
    return torch.float64 if str(getattr(fabric._precision, "precision", "")) == "64-true" else None
