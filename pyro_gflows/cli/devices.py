"""The options for the devices of a command, and errors about devices in the words of the command line."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pyro_gflows.training import Devices, FitDiverged
from pyro_gflows.training.engines.devices import ACCELERATORS, PRECISIONS, STRATEGIES
from pyro_gflows.training.processes import is_first_process, raised_in_all_processes

__all__ = ["add_devices", "add_strategy", "check_devices", "devices_of", "in_options", "reporting"]

_COMMUNICATION = ("gloo", "NCCL", "DistStoreError", "Connection closed")  # in errors of torch.distributed
# errors and warnings of the library advise in Python; these are the same words for the command line
_IN_OPTIONS = {
    "print(check_symmetry(data, flow.action))": "pyro-gflows check-data",
    "; FitSettings(check_symmetry=False) leaves this check out": "",
    "a flow on a torus (TorusAction, InvariantUniform)": "--events angles for a flow on a torus",
    "use Devices(..., accelerator='cpu')": "give --accelerator cpu",
    "without devices=... each rank would train its own model; pass devices='auto'": (
        "without --devices each process would train a model of its own; give --devices auto"
    ),
    ", start the program with python instead of torchrun, or write your own loop around "
    "DistributedDataParallel(Likelihood(flow)), whose forward is the loss": (", or start the command without torchrun"),
    "use devices='auto'": "give --devices auto",
    "raise batch_size, which counts": "raise --batch-size, which counts",
    "got num_nodes=": "got --nodes ",
    "raise shard_rows (now": "raise --shard-rows (now",
    "take another folder, or go on with them: resume=True": "take another folder, or give --resume to go on with them",
    "expected the output to end": "expected --out to end",
    "no such folder for the output": "no such folder for --out",
}


def add_devices(command: argparse.ArgumentParser, *, what: str) -> None:
    """Add the options for the number and the kind of devices, and of machines.

    Args:
        command: The parser of the command.
        what: How the devices share the work, as the end of a sentence.
    """
    command.add_argument(
        "--devices",
        type=_count,
        metavar="N",
        help=f"the number of devices (of each machine), {what}; auto for as many as torchrun or SLURM started "
        "processes, else all GPUs (default: one CPU; several need pip install 'pyro-gflows[lightning]')",
    )
    command.add_argument(
        "--accelerator", choices=ACCELERATORS, help="the kind of the devices (default: GPUs where there are some)"
    )
    command.add_argument("--nodes", type=int, metavar="M", help="the number of machines (default: 1)")


def add_strategy(command: argparse.ArgumentParser) -> None:
    """Add the options that only a training has: strategy and precision."""
    command.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="how processes are started: ddp starts this command once more for each further device, ddp_spawn and "
        "ddp_fork only its training (default: auto, which is ddp)",
    )
    command.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="the precision of the training; mixed precision is for your own networks alone (default: as the flow)",
    )


def devices_of(arguments: argparse.Namespace) -> Devices:
    """Return the devices that the options name.

    Raises:
        ValueError: If there can be no such devices, or options say how to start several without ``--devices``.
    """
    names = {"num_nodes": "nodes", "strategy": "strategy", "precision": "precision", "accelerator": "accelerator"}
    given = {name: value for name, option in names.items() if (value := getattr(arguments, option, None)) is not None}
    if arguments.devices is None:
        if given:
            options = ", ".join(f"--{names[name]}" for name in given)
            raise ValueError(f"{options} needs --devices: give the number of devices too, for example --devices 1")
        return Devices()
    return Devices(arguments.devices, **given)


def check_devices(devices: Devices, *, batch_size: int) -> None:
    """Check that a run can start on the devices, before it destroys anything and before any process is started.

    Args:
        devices: The devices.
        batch_size: The number of events in a step.

    Raises:
        ImportError: If Lightning is needed and not installed.
        ValueError: If there are fewer GPUs, other processes than were started, or fewer events than processes.
    """
    try:
        devices.check(batch_size=batch_size)
    except RuntimeError as error:  # one of several processes, without --devices
        raise ValueError(str(error)) from error


def in_options(text: str) -> str:
    """Return a message of the library in one line, with options in place of arguments in Python.

    Args:
        text: The message.
    """
    text = " ".join(text.split())
    for python, words in _IN_OPTIONS.items():
        text = text.replace(python, words)
    return text


@contextmanager
def reporting(devices: Devices, *, quiet: bool) -> Iterator[bool]:
    """A context in which one of several processes reports, and the others warn of nothing.

    It yields whether this process is the one that prints and writes files. Where the same error ends all processes, the
    others exit without a word of their own.

    Args:
        devices: The devices of the command.
        quiet: Whether Lightning does not report the processes that it starts.
    """
    if devices.is_plain:
        yield True
        return
    logging.disable(logging.INFO if quiet else logging.NOTSET)
    try:
        if is_first_process():
            yield True
        else:
            with _unheard():
                yield False
    except RuntimeError as error:
        if not any(name in str(error) for name in _COMMUNICATION):
            raise
        raise OSError(
            f"another process of this command has ended or cannot be reached ({str(error).splitlines()[0][:120]}); the "
            "same command with --resume goes on"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _unheard() -> Iterator[None]:
    """A context for all but the first process, which has the same warnings and reports the errors of all processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except KeyboardInterrupt:
            sys.exit(130)
        except Exception as error:
            if isinstance(error, FitDiverged) or raised_in_all_processes(error):
                sys.exit(2)
            raise


def _count(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of devices, at least 1, or auto, got {text!r}")
    return int(text)
