"""Devices: on how many devices, machines and in which precision a run computes, and how its processes are started."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from pyro_gflows.training.engines.base import Engine, OneDevice
from pyro_gflows.training.processes import require_one_process, started_by_others

__all__ = ["ACCELERATORS", "PRECISIONS", "STRATEGIES", "UNUSED", "Devices", "as_devices", "launch"]

_T = TypeVar("_T")

STRATEGIES = ("auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
UNUSED = "_find_unused_parameters_true"
PRECISIONS = ("32-true", "64-true")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
_INSTALL = "several devices need Lightning, which is not installed: pip install 'pyro-gflows[lightning]'"


@dataclass(frozen=True)
class Devices:
    """The devices of a run, all of which hold the whole flow and take equal parts of every batch.

    ``fit(..., devices=2)`` is short for ``devices=Devices(2)``. The batch size of the settings is that of all devices
    together, so that a run does not depend on their number. Lightning Fabric starts the processes, one for each device:

    - In a script it starts the script once more for every further device (``strategy="ddp"``), so every line of the
      script runs in all of them. Under ``torchrun`` and SLURM they are started already, and ``devices="auto"`` takes
      their number.
    - In a notebook, and with ``strategy="ddp_fork"`` or ``"ddp_spawn"``, only the fit runs in further processes; the
      trained weights come back to the flow. With ``ddp_spawn`` a script needs ``if __name__ == "__main__":``.

    Args:
        count: The number of devices of each machine, or ``"auto"``: as many as ``torchrun`` or SLURM started processes,
            else all GPUs, else one.
        num_nodes: The number of machines.
        strategy: How processes are started and gradients averaged: "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook", or
            "auto". With the ending "_find_unused_parameters_true" a step may leave out some weights.
        precision: "64-true" to convert the flow to float64; None or "32-true" keeps its dtype. There is no mixed
            precision, which would round the events themselves to half of their digits; a network of your own may have
            ``torch.autocast`` inside its forward.
        accelerator: "cpu", "gpu", "cuda", "mps", or "auto" for GPUs where there are some.

    Raises:
        ValueError: An argument is none of the above.

    Example:
        >>> Devices(2, strategy="ddp_spawn").processes
        2
    """

    count: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str | None = None
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        is_count = isinstance(self.count, int) and not isinstance(self.count, bool) and self.count >= 1
        if not is_count and self.count != "auto":
            raise ValueError(f"expected a number of devices, at least 1, or 'auto', got {self.count!r}")
        if not isinstance(self.num_nodes, int) or self.num_nodes < 1:
            raise ValueError(f"expected a number of machines, at least 1, got num_nodes={self.num_nodes!r}")
        if self.strategy.removesuffix(UNUSED) not in STRATEGIES:
            raise ValueError(
                f"expected strategy to be one of {', '.join(STRATEGIES)}, got {self.strategy!r}; each device holds "
                "all weights of a flow, which are few, so strategies that divide them (fsdp, deepspeed) are not used"
            )
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ValueError(
                f"expected precision to be None or one of {', '.join(PRECISIONS)}, got {self.precision!r}; half "
                "precision, mixed or not, has too few digits for events, log-dets and an exact symmetry: put "
                "torch.autocast into the forward of your own networks instead"
            )
        if self.accelerator not in ACCELERATORS:
            raise ValueError(f"expected accelerator to be one of {', '.join(ACCELERATORS)}, got {self.accelerator!r}")

    @property
    def is_plain(self) -> bool:
        """Whether this is one device without anything for which Lightning is needed."""
        return self == Devices()

    @property
    def processes(self) -> int:
        """The number of processes of all machines."""
        return self.per_node * self.num_nodes

    @property
    def per_node(self) -> int:
        """The number of devices of each machine."""
        if isinstance(self.count, int):
            return self.count
        if (started := started_by_others()) is not None:
            return max(1, started // self.num_nodes)
        return max(1, torch.cuda.device_count()) if self.accelerator != "cpu" else 1

    def check(self, *, batch_size: int) -> None:
        """Raises an error if a run cannot start on these devices; before any process is started.

        Args:
            batch_size: The number of events in a step, of all processes together.

        Raises:
            ImportError: Lightning is needed and not installed.
            ValueError: There are fewer GPUs, other processes than were started, or fewer events than processes.
        """
        if self.is_plain:
            require_one_process()
            return
        if importlib.util.find_spec("lightning") is None:
            raise ImportError(_INSTALL)
        found = torch.cuda.device_count()
        on_gpus = self.accelerator in ("gpu", "cuda") or (self.accelerator == "auto" and found > 0)
        if on_gpus and self.per_node > found:
            raise ValueError(
                f"expected at most as many devices as this machine has GPUs, {found}, got {self.per_node}; lower the "
                "number, or use Devices(..., accelerator='cpu')"
            )
        started = started_by_others()
        if started is not None and started != self.processes:
            raise ValueError(
                f"expected {self.processes} processes for {self.per_node} devices on {self.num_nodes} machines, but "
                f"{started} were started (WORLD_SIZE or SLURM_NTASKS); give the launcher the same numbers, or use "
                "devices='auto'"
            )
        if started is not None and self.strategy.removesuffix(UNUSED) not in ("auto", "ddp"):
            raise ValueError(
                f"expected strategy='auto' or 'ddp' where torchrun or SLURM has started the processes, got "
                f"{self.strategy!r}, which starts further ones in each of them"
            )
        if batch_size < self.processes:
            raise ValueError(
                f"expected at least one event of each batch for every process, got batches of {batch_size} for "
                f"{self.processes} processes; raise batch_size, which counts the events of all processes together"
            )


def as_devices(devices: int | str | Devices | None) -> Devices:
    """The devices that an argument ``devices`` stands for.

    Args:
        devices: A number of devices, "auto", ``Devices(...)``, or None for the one on which the weights are.

    Raises:
        TypeError: It is none of these.
        ValueError: The number is below 1.

    Example:
        >>> as_devices(2) == Devices(2), as_devices(None).is_plain
        (True, True)
    """
    if devices is None:
        return Devices()
    if isinstance(devices, Devices):
        return devices
    if isinstance(devices, int | str) and not isinstance(devices, bool):
        return Devices(devices)
    raise TypeError(f"expected devices to be a number, 'auto' or Devices(...), got {type(devices).__name__}")


def launch(devices: Devices, run: Callable[[Engine], _T], *, module: nn.Module) -> _T:
    """Calls a function in every process of a run, and returns what it returns in the first one.

    Args:
        devices: The devices.
        run: A function of the engine of its process. It is pickled where processes are spawned.
        module: The module that it trains; where it is trained in other processes, its weights are copied back.
    """
    if devices.is_plain:
        return run(OneDevice())
    from pyro_gflows.training.engines.fabric import launch_with_fabric

    return launch_with_fabric(devices, run, module=module)
