"""The command ``pyro-gflows``: arguments in, exit code out; the work is done elsewhere.

Exit codes: 0 done; 1 a check failed; 2 bad input or diverged training (one line on stderr); 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, get_args

from pyro_gflows.cli.commands import check, fit, sample, score
from pyro_gflows.cli.comparison import demo
from pyro_gflows.cli.data_check import check_data
from pyro_gflows.datasets import EventKind
from pyro_gflows.experiments.presets import PRESETS
from pyro_gflows.flows.families import FAMILIES
from pyro_gflows.numerics import InverseDidNotConverge
from pyro_gflows.training import FitDiverged
from pyro_gflows.version import __version__

__all__ = ["main"]

_DATA = "8gaussians, rings, checkerboard, digits, mnist, ..., or a .npy, .npz or .csv file with one event a row"
# what warnings of the library advise in Python, in the words of the command line
_IN_OPTIONS = {
    "print(check_symmetry(data, flow.action))": "pyro-gflows check-data",
    "; FitSettings(check_symmetry=False) leaves this check out": "",
}
_GO_ON = "the same command with --resume (and without --overwrite) goes on"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _add_file_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--events", choices=get_args(EventKind), help="what a file holds (default: told by its shape)")
    command.add_argument("--levels", type=int, help="gray levels of the images in a file (default: told by them)")
    command.add_argument("--key", help="which array of an .npz file")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pyro-gflows", description="Flows whose density is exactly invariant under a symmetry group.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the whole Python error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("fit", help="fit a flow and write model, metrics and pictures")
    command.set_defaults(run=fit)
    command.add_argument("data", metavar="DATA", help=_DATA)
    command.add_argument("--out", required=True, metavar="DIR", help="folder for everything that is written")
    command.add_argument("--group", help="C4, D8, SO(2), O(2), ..., S5 for rows; C1 is none (default: the data's)")
    command.add_argument("--flow", choices=sorted(FAMILIES), help="kind of layers (default: the data's preset)")
    command.add_argument("--preset", choices=sorted(PRESETS), help="a named recipe (default: the data's)")
    command.add_argument("--augment", metavar="GROUP", help="move every training event by a random element of it")
    command.add_argument("--variational", action="store_true", help="train the dequantization noise of images too")
    command.add_argument("--steps", type=int, help="optimizer steps")
    command.add_argument("--batch-size", type=int, help="events a step")
    command.add_argument("--lr", type=float, help="peak learning rate")
    command.add_argument("--seed", type=int, default=0, help="of data, weights and training (default: 0)")
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    command.add_argument(
        "--more-steps", type=int, metavar="N", help="go on from a run in --out that has ended, for N more steps"
    )
    command.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    _add_file_options(command)
    command.add_argument("--quiet", action="store_true", help="no progress bar")

    command = commands.add_parser("check-data", help="test whether data have a symmetry, before a fit")
    command.set_defaults(run=check_data, augment=None)
    command.add_argument("data", metavar="DATA", help=_DATA)
    command.add_argument("--group", help="the symmetry to test (default: the one that named data are known to have)")
    _add_file_options(command)
    command.add_argument("--rows", type=int, default=1000, help="events to use at most (default: 1000)")
    command.add_argument("--level", type=float, default=1e-3, help="chance of a false alarm (default: 0.001)")
    command.add_argument("--seed", type=int, default=0, help="of the data and of the test (default: 0)")

    command = commands.add_parser("sample", help="draw from a fitted flow")
    command.set_defaults(run=sample)
    command.add_argument("model", metavar="MODEL", help="folder that fit wrote")
    command.add_argument("-n", "--number", type=int, default=1000, help="how many (default: 1000)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", required=True, metavar="FILE", help="a .npy file")

    command = commands.add_parser("score", help="log-densities of data under a fitted flow")
    command.set_defaults(run=score)
    command.add_argument("model", metavar="MODEL", help="folder that fit wrote")
    command.add_argument("data", metavar="DATA", help=f"{_DATA} (the held-out part of a named set, all rows of a file)")
    command.add_argument("--seed", type=int, default=0, help="of a named data set; the one given to fit")
    command.add_argument("--key", help="which array of an .npz file")
    command.add_argument("--out", metavar="FILE", help="also write the log-density of every row to a .npy file")

    command = commands.add_parser("check", help="test equivariance, inverses and log-dets of a fitted flow, in float64")
    command.set_defaults(run=check)
    command.add_argument("model", metavar="MODEL", help="folder that fit wrote")
    command.add_argument("--seed", type=int, default=0)

    command = commands.add_parser("demo", help="equivariant flows beside the same code without the symmetry")
    command.set_defaults(run=demo)
    command.add_argument("--out", default="demo", metavar="DIR", help="folder for everything (default: demo)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--workers", type=int, default=2, help="fits at a time, one thread each (default: 2)")
    return parser


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the source."""
    text = " ".join(str(message).split())
    for python, words in _IN_OPTIONS.items():
        text = text.replace(python, words)
    print(f"pyro-gflows: warning: {text}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return int(arguments.run(arguments))
    except KeyboardInterrupt as error:
        hint = f"; {_GO_ON}" if arguments.command == "fit" else ""
        print(f"pyro-gflows: {': '.join(['interrupted', *map(str, error.args)])}{hint}", file=sys.stderr)
        return 130
    except (ValueError, TypeError, ImportError, OSError, FitDiverged, InverseDidNotConverge) as error:
        if arguments.traceback:
            raise
        print(f"pyro-gflows: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
