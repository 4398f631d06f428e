"""The command ``pyro-gflows``, which fits, samples, scores and checks flows without any Python.

The exit code is 0 if all went well, 1 if a check failed, 2 for bad input or a training that diverged (one line on the
standard error says why), and 130 after an interruption.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, get_args

from pyro_gflows.cli.commands import check, fit
from pyro_gflows.cli.comparison import demo
from pyro_gflows.cli.data_check import check_data
from pyro_gflows.cli.devices import add_devices, add_strategy, in_options
from pyro_gflows.cli.streaming import add_stream, sample, score
from pyro_gflows.datasets import EventKind
from pyro_gflows.experiments.presets import PRESETS
from pyro_gflows.flows.families import FAMILIES
from pyro_gflows.numerics import InverseDidNotConverge
from pyro_gflows.training import FitDiverged
from pyro_gflows.version import __version__

__all__ = ["main"]

_DATA = (
    "8gaussians, rings, checkerboard, torus-unimodal, torus-multimodal, torus-correlated, torus-square, dw4, lj13, "
    "digits, mnist, rotated-mnist, cifar10, cifar10-rot, or a .npy, .npz or .csv file with one event a row; a folder "
    "of .npy files, a Parquet, Arrow or Zarr file and a .npy file of more than 67 million values are read a part at a "
    "time"
)
_OUT = "a .npy or .csv file, or a folder of .npy files (shards), for"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _add_file_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--events",
        choices=get_args(EventKind),
        help="the kind of events in a file; angles are in radians (default: by its shape and --group)",
    )
    command.add_argument(
        "--levels", type=int, help="the number of gray levels of images in a file (default: by their values)"
    )
    command.add_argument(
        "--center",
        choices=("mean-free", "free"),
        help="particles in a file: shift each configuration to the center of mass 0, or take it as it is (default: "
        "mean-free)",
    )
    _add_key(command)


def _add_key(command: argparse.ArgumentParser) -> None:
    command.add_argument("--key", help="the name of the array in an .npz file or a Zarr group")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pyro-gflows", description="Flows whose density is exactly invariant under a symmetry group.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the whole Python traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("fit", help="fit a flow to data, and write the model, metrics and pictures")
    command.set_defaults(run=fit)
    command.add_argument("data", metavar="DATA", help=_DATA)
    command.add_argument("--out", required=True, metavar="DIR", help="the folder for all files of the run")
    command.add_argument(
        "--group",
        help="the symmetry: C4, D8, SO(2), O(2), ..., S5 for sets of 5 rows, 'S4 x O(2)' for 4 particles in the plane, "
        "or C1 for none (default: the symmetry of named data; a file needs one)",
    )
    command.add_argument(
        "--flow", choices=sorted(FAMILIES), help="the family of layers (default: by the preset for the data)"
    )
    command.add_argument(
        "--preset", choices=sorted(PRESETS), help="named layers and training settings (default: those for the data)"
    )
    command.add_argument(
        "--augment", metavar="GROUP", help="let a random element of this group act on every training event"
    )
    command.add_argument("--variational", action="store_true", help="train the dequantization noise of images too")
    command.add_argument("--steps", type=int, help="the number of optimizer steps")
    command.add_argument("--batch-size", type=int, help="the number of events in a step, of all devices together")
    command.add_argument("--lr", type=float, help="the highest learning rate of the schedule")
    command.add_argument(
        "--seed", type=int, default=0, help="the seed of the data, the weights and the training (default: 0)"
    )
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    command.add_argument(
        "--more-steps", type=int, metavar="N", help="go on for N more steps from a finished run in --out"
    )
    command.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    _add_file_options(command)
    add_devices(command, what="which take equal parts of every batch")
    add_strategy(command)
    command.add_argument("--quiet", action="store_true", help="show no progress bar")

    command = commands.add_parser("check-data", help="test whether data have a symmetry, before a fit")
    command.set_defaults(run=check_data, augment=None)
    command.add_argument("data", metavar="DATA", help=_DATA)
    command.add_argument("--group", help="the symmetry to test (default: the symmetry that named data have)")
    _add_file_options(command)
    command.add_argument("--rows", type=int, default=1000, help="the largest number of events to use (default: 1000)")
    command.add_argument("--level", type=float, default=1e-3, help="the probability of a false alarm (default: 0.001)")
    command.add_argument("--seed", type=int, default=0, help="the seed of the data and of the test (default: 0)")

    command = commands.add_parser("sample", help="draw samples from a fitted flow")
    command.set_defaults(run=sample)
    _add_model(command)
    command.add_argument("-n", "--number", type=int, default=1000, help="the number of samples (default: 1000)")
    command.add_argument("--seed", type=int, default=0, help="the seed of the samples (default: 0)")
    command.add_argument("--out", required=True, metavar="FILE", help=f"{_OUT} the samples")
    add_stream(command)

    command = commands.add_parser("score", help="compute log-densities of data under a fitted flow")
    command.set_defaults(run=score)
    _add_model(command)
    command.add_argument("data", metavar="DATA", help=f"{_DATA}; the test part of named data, or all rows of a file")
    command.add_argument(
        "--seed", type=int, default=0, help="the seed of named data, which is to be the seed of the fit (default: 0)"
    )
    _add_key(command)
    command.add_argument("--out", metavar="FILE", help=f"{_OUT} the log-density of every row")
    add_stream(command)

    command = commands.add_parser("check", help="test equivariance, inverses and log-dets of a fitted flow, in float64")
    command.set_defaults(run=check)
    _add_model(command)
    command.add_argument("--seed", type=int, default=0, help="the seed of the test events (default: 0)")

    command = commands.add_parser("demo", help="fit equivariant flows, and the same layers without the symmetry")
    command.set_defaults(run=demo)
    command.add_argument("--out", default="demo", metavar="DIR", help="the folder for all files (default: demo)")
    command.add_argument("--seed", type=int, default=0, help="the seed of the data and of all fits (default: 0)")
    command.add_argument(
        "--workers", type=int, default=2, help="the number of fits at a time, with one thread each (default: 2)"
    )
    return parser


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="the folder that the command fit wrote")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning in one line, without the place in the source."""
    print(f"pyro-gflows: warning: {in_options(str(message))}", file=sys.stderr)


def _hint(arguments: argparse.Namespace) -> str:
    """Return how to go on with an interrupted command, if it keeps what it has done."""
    if arguments.command == "fit":
        return "; the same command with --resume (and without --overwrite) goes on"
    keeps = arguments.command in ("sample", "score") and arguments.out is not None
    return "; the same command with --resume goes on" if keeps else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: The arguments of the command; by default those of the process.

    Example:
        >>> main(["fit", "points.csv", "--out", "run"])  # the error goes to the standard error
        2
    """
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return int(arguments.run(arguments))
    except KeyboardInterrupt as error:
        print(f"pyro-gflows: {': '.join(['interrupted', *map(str, error.args)])}{_hint(arguments)}", file=sys.stderr)
        return 130
    except (ValueError, TypeError, ImportError, OSError, FitDiverged, InverseDidNotConverge) as error:
        if arguments.traceback:
            raise
        print(f"pyro-gflows: error: {in_options(str(error))}", file=sys.stderr)
        return 2
