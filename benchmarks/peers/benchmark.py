"""The benchmark of peers: its rows, its options and its figure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.harness import Benchmark
from benchmarks.peers.figure import draw
from benchmarks.peers.rows import ROWS, Comparison
from benchmarks.peers.table import table

__all__ = ["BENCHMARK"]

ABOUT = """Time against named peers: ours over theirs, in one process, in turn, medians with quartiles.

    python -m benchmarks.peers                     # the rows on the CPU, by CPU time; needs pip install '.[bench]'
    python -m benchmarks.peers --device cuda       # the rows on a CUDA device, by events
    python -m benchmarks.peers --only "affine coupling" --results /tmp/mine
    python -m benchmarks.peers.readme              # the table of README.md from the finished runs

A run that is stored is not repeated; to measure a row again, delete its line of results/peers.jsonl, or give another
folder as --results. A peer that is not installed is left out with a word.
"""


def _device(name: str) -> str:
    if name not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch finds no CUDA device here; without --device the CPU is measured")
    return name


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", type=_device, default="cpu", metavar="NAME", help="cpu (default) or cuda")


def _chosen(options: argparse.Namespace) -> Sequence[Any]:
    return [row for row in ROWS if row.device == options.device]


def run(row: Comparison, *, seed: int, quick: bool) -> dict[str, Any]:
    """All ratios of a row."""
    return row.measure(quick=quick)


BENCHMARK = Benchmark("peers", ABOUT, ROWS, run, table, more_options=_options, choose=_chosen, after=draw)
