"""Folders of the command ``fit``: a finished run, a run that was stopped, or none, and the options of the run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_gflows.datasets import EventFormat
from pyro_gflows.experiments.runs import METRICS
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.serialization import load
from pyro_gflows.serialization.files import check_writable, read_json, read_tensors, write_json
from pyro_gflows.serialization.migrations import FORMAT, migrate
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.serialization.saving import STRUCTURE
from pyro_gflows.training.checkpoint import CHECKPOINT

__all__ = ["RunFolder", "model_of"]

_RUN = "run.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder that ``fit`` writes and that ``sample``, ``score`` and ``check`` read.

    Args:
        path: The path of the folder, which need not exist.
    """

    path: Path

    def check_free(self, *, overwrite: bool) -> None:
        """Raise a ValueError if a new run would destroy another one, unless ``overwrite`` permits it."""
        if overwrite:
            return
        if (self.path / STRUCTURE).exists():
            raise ValueError(
                f"{self.path} holds a finished run{self._description()}; take another folder, or give --overwrite to "
                "replace it"
            )
        if (self.path / CHECKPOINT).exists():
            raise ValueError(
                f"{self.path} holds a run that {self._stopped()}; the same command with --resume goes on, --overwrite "
                "starts anew"
            )

    def check_resumable(self, options: Mapping[str, Any]) -> None:
        """Raise a ValueError if the folder has no checkpoint, or the checkpoint of a run with other options.

        Args:
            options: The options of this command, by their names on the command line.
        """
        if not (self.path / CHECKPOINT).exists():
            raise ValueError(f"no checkpoint to resume from in {self.path}: leave --resume out to start the run there")
        if not (self.path / _RUN).exists():  # a run of an earlier version; fit compares its checkpoint
            return
        stored = read_json(self.path / _RUN)["options"]
        ours = json.loads(json.dumps(dict(options)))
        other = [
            f"{name} is {_in_words(stored[name])} there and {_in_words(ours[name])} here"
            for name in ours
            if name in stored and stored[name] != ours[name]
        ]
        if other:
            raise ValueError(
                f"cannot resume the run in {self.path}: {', '.join(other)}; give the same options with which it was "
                "started, or start anew in another folder"
            )

    def begin(self, options: Mapping[str, Any], form: EventFormat | None) -> None:
        """Write the options of a run that starts.

        Args:
            options: The options, as for :meth:`check_resumable`.
            form: The format of the events in the user's file; None for named data.
        """
        write_json(
            check_writable(self.path) / _RUN, {"options": dict(options), "format": describe(form), "version": FORMAT}
        )

    def load(self) -> EquivariantFlow:
        """Load the fitted flow.

        Raises:
            ValueError: If there is none; the message says whether a run was stopped before it ended.
        """
        if not (self.path / STRUCTURE).exists():
            if (self.path / CHECKPOINT).exists():
                raise ValueError(
                    f"{self.path} holds no model yet: its run {self._stopped()}; the same fit command with --resume "
                    "goes on to the end"
                )
            raise ValueError(f"no such file: {self.path / STRUCTURE}; MODEL is a folder that the command fit wrote")
        return load(self.path)

    def note(self) -> str | None:
        """Return a warning if the model is older than the checkpoint of a run that went on and was stopped."""
        if not (self.path / METRICS).exists() or not (self.path / CHECKPOINT).exists():
            return None
        steps, now = read_json(self.path / METRICS).get("steps"), self._progress()
        if now is None or steps is None or now[0] == steps:
            return None
        return f"the run in {self.path} went on and {self._stopped()}; this is the model of step {steps}"

    def format(self) -> EventFormat | None:
        """Return the format of the events in the user's file; None for named data."""
        if not (self.path / _RUN).exists():
            return None
        stored = read_json(self.path / _RUN)
        form = build(migrate(stored["format"], stored.get("version", 2), source=str(self.path / _RUN)))
        assert form is None or isinstance(form, EventFormat)
        return form

    def _stopped(self) -> str:
        progress = self._progress()
        return "was stopped" if progress is None else f"was stopped after step {progress[0]} of {progress[1]}"

    def _progress(self) -> tuple[int, int] | None:
        """Return the number of steps that are done and of all steps; None if the checkpoint cannot be read."""
        try:
            _, about = read_tensors(self.path / CHECKPOINT)
            return int(about["progress"]["step"]), int(about["identity"]["settings"]["steps"])
        except (ValueError, KeyError, TypeError):
            return None

    def _description(self) -> str:
        if not (self.path / METRICS).exists():
            return ""
        metrics = read_json(self.path / METRICS)
        return f" ({metrics.get('flow')} under {metrics.get('group')} on {metrics.get('data')})"


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "given" if value else "not given"
    return "not given" if value in (None, "") else str(value)


def model_of(arguments: argparse.Namespace) -> tuple[EquivariantFlow, EventFormat | None]:
    """Return the flow of a folder, and the format of the file that it was fitted to (None for named data)."""
    folder = RunFolder(Path(arguments.model))
    flow = folder.load()
    if (note := folder.note()) is not None:
        print(f"pyro-gflows: {note}", file=sys.stderr)
    return flow, folder.format()
