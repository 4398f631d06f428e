"""One comparison: ours and peers run the same task, and each ratio has a limit, a spread and a footnote."""

from __future__ import annotations

import itertools
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from benchmarks.peers.clocks import Work, interleaved, quartiles

__all__ = ["Contest", "Entry", "Maker", "Pair", "make_all", "missing_word", "pair", "parameters", "where"]


@dataclass(frozen=True)
class Entry:
    """What one side runs.

    Attributes:
        work: One call of the task.
        parameters: How many trainable parameters there are.
        facts: Whatever else was measured, such as the standard deviation of a log-det.
    """

    work: Work
    parameters: int
    facts: Mapping[str, Any] = field(default_factory=dict)


Maker = Callable[[torch.device], Entry]
Pair = dict[str, Any]


def parameters(*modules: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(weight.numel() for module in modules for weight in module.parameters() if weight.requires_grad)


@dataclass(frozen=True)
class Contest:
    """A row of the benchmark.

    Attributes:
        family: What is compared, such as "affine coupling".
        task: What is timed, such as "training step".
        size: The sizes, in words.
        ours: Makers by name.
        peers: Makers by name; the name begins with that of the library.
        limits: The largest ratio that is asked for, by (ours, peer).
        compared: Which (ours, peer) the table lists; all if there are none.
        facts: Facts with lines of their own: the (ours, peer) that are compared, and the largest ratio, or None.
        notes: Where a peer's result is not the same quantity, by peer; or "ours".
        device: "cpu" or "cuda".
        rounds: How often each side is timed.
        slice_seconds: About how long each side runs in a round.
        most_seconds: About how long all rounds may take; there are at least three.
    """

    family: str
    task: str
    size: str
    ours: Mapping[str, Maker]
    peers: Mapping[str, Maker]
    limits: Mapping[tuple[str, str], float] = field(default_factory=dict)
    compared: Sequence[tuple[str, str]] = ()
    facts: Mapping[str, Mapping[tuple[str, str], float | None]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    rounds: int = 15
    slice_seconds: float = 0.02
    most_seconds: float = 15.0

    @property
    def name(self) -> str:
        """Family, task and device."""
        return f"{self.family}, {self.task}, {self.device}"

    def labels(self) -> Mapping[str, Any]:
        """What a stored run belongs to."""
        sides = [*self.ours, *self.peers]
        return {"family": self.family, "task": self.task, "size": self.size, "sides": sides, "device": self.device}

    def on(self, device: str) -> Contest:
        """The same on another device."""
        return replace(self, device=device)

    def measure(self, *, quick: bool) -> dict[str, Any]:
        """All pairs, and what was measured of each side."""
        device = torch.device(self.device)
        entries, missing = make_all({**self.ours, **self.peers}, device)
        found = interleaved(
            {name: entry.work for name, entry in entries.items()},
            device=device,
            rounds=2 if quick else self.rounds,
            slice_seconds=0.0 if quick else self.slice_seconds,
            most_seconds=self.most_seconds,
        )
        times = {name: [1e3 * value for value in quartiles(values)] for name, values in found.items()}
        pairs = [
            pair(ours, peer, quartiles([a / b for a, b in zip(found[ours], found[peer], strict=True)]), self.limits)
            for ours, peer in self.compared or itertools.product(self.ours, self.peers)
            if peer in entries
        ]
        pairs += self._fact_pairs(entries)
        return {
            "unit": "ms",
            "values": times,
            "pairs": pairs,
            "parameters": {name: entry.parameters for name, entry in entries.items()},
            "facts": {name: dict(entry.facts) for name, entry in entries.items() if entry.facts},
            "notes": dict(self.notes),
            "missing": missing,
            "rounds": len(next(iter(found.values()))),
            **where(device),
        }

    def _fact_pairs(self, entries: Mapping[str, Entry]) -> list[Pair]:
        found = []
        for fact, compared in self.facts.items():
            for (ours, peer), limit in compared.items():
                if peer not in entries:
                    continue
                values = [float(entries[side].facts[fact]) for side in (ours, peer)]
                ratio = values[0] / values[1] if values[1] else (0.0 if values[0] == 0 else math.inf)
                one = pair(ours, peer, (ratio,) * 3, {} if limit is None else {(ours, peer): limit})
                found.append({**one, "unit": fact, "values": values})
        return found


def make_all(makers: Mapping[str, Maker], device: torch.device) -> tuple[dict[str, Entry], dict[str, str]]:
    """What each side runs, and a word on each peer that is not installed."""
    entries, missing = {}, {}
    for name, make in makers.items():
        torch.manual_seed(0)
        try:
            entries[name] = make(device)
        except ModuleNotFoundError as error:
            missing[name] = missing_word(name, error)
    return entries, missing


def missing_word(peer: str, error: ModuleNotFoundError) -> str:
    """What the table says of a peer that is not installed, printed too."""
    text = f"not measured: {error.name} is not installed (pip install 'pyro-gflows[bench]')"
    print(f"{peer}: {text}")
    return text


def pair(ours: str, peer: str, ratio: tuple[float, float, float], limits: Mapping[tuple[str, str], float]) -> Pair:
    """A ratio with its quartiles, the limit that is asked for, and whether its median is within."""
    limit = limits.get((ours, peer))
    verdict = "" if limit is None else ("met" if ratio[1] <= limit else "missed")
    return {"ours": ours, "peer": peer, "ratio": list(ratio), "limit": limit, "verdict": verdict}


def where(device: torch.device) -> dict[str, Any]:
    """What times depend on: the processor, and the versions of torch and of the peers."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"processor": name, "torch": torch.__version__, "versions": _versions()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in ("pyro-ppl", "normflows", "zuko", "nflows", "FrEIA", "torchdiffeq", "escnn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
