"""The command of a benchmark: which runs are asked for, running those that are missing, and writing the table."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from benchmarks.harness.benchmark import Benchmark, Figures, Row, RunRow
from benchmarks.harness.store import Store
from benchmarks.harness.timing import surroundings

__all__ = ["RESULTS", "main", "make_parser"]

RESULTS = Path(__file__).parents[1] / "results"
INTERRUPTED = 130  # the exit status of a command that Ctrl-C ended

R = TypeVar("R", bound=Row)
Task = tuple[R, int]


def main(benchmark: Benchmark[Any], arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the table.

    Args:
        benchmark: The benchmark.
        arguments: Of the command line; None takes those of this process.

    Raises:
        SystemExit: If an argument is wrong (status 2), or after Ctrl-C (status 130), when every run that ended is kept.
    """
    parser = make_parser(benchmark)
    options = parser.parse_args(arguments)
    stored = benchmark.kept and not options.quick
    path = options.results / f"{benchmark.name}.jsonl"
    store = Store(path if stored else None)
    if options.table:
        if not store.runs:
            parser.error(f"--table: there are no finished runs in {path}; run the benchmark first")
    else:
        rows = chosen_rows(benchmark, options, parser)
        tasks = [(row, seed) for seed in seeds(benchmark, options) for row in rows]
        missing = [task for task in tasks if not benchmark.is_done(*task, store.runs)]
        try:
            _run(benchmark, missing, store, options)
        except KeyboardInterrupt:
            print(f"\nstopped: {len(store.runs)} runs are kept; the same command goes on from there")
            raise SystemExit(INTERRUPTED) from None
    _write_table(benchmark, store)
    if benchmark.after is not None and store.path is not None:
        benchmark.after(store.runs, store.path.parent)
    print(benchmark.table(benchmark.rows, store.runs))


def make_parser(benchmark: Benchmark[Any]) -> argparse.ArgumentParser:
    """The options of every benchmark, and those of this one."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}",
        description=benchmark.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if benchmark.seeds is not None:
        word, first = benchmark.seeds.word, benchmark.seeds.first
        which = parser.add_mutually_exclusive_group()
        text = f"run the {word}s {first}, {first + 1}, ... of every row, that many (default: {benchmark.seeds.count})"
        which.add_argument(f"--{word}s", dest="seeds", type=_positive, metavar="N", help=text)
        which.add_argument(f"--{word}", dest="seed", type=int, metavar="N", help=f"run that {word} alone")
    text = "run only these rows: by name, or all whose name contains this"
    parser.add_argument("--only", nargs="+", metavar="NAME", help=text)
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="of torch (default: 1)")
    parser.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="run that many at once, a process each (default: 1)"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="as little work as shows that it runs; nothing is kept")
    if benchmark.kept:
        mode.add_argument(
            "--table", action="store_true", help="run nothing, only make the table from the finished runs"
        )
        parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where runs and table are")
    parser.set_defaults(table=False, results=RESULTS, seeds=None, seed=None)
    benchmark.more_options(parser)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def chosen_rows(benchmark: Benchmark[R], options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[R]:
    """The rows that are asked for, in their order."""
    rows = list(benchmark.choose(options) if benchmark.choose is not None else benchmark.rows)
    if options.only is None:
        return rows
    kept: set[str] = set()
    for wanted in options.only:
        names = {row.name for row in rows}
        found = {wanted} & names or {name for name in names if wanted in name}
        if not found:
            listed = "; ".join(row.name for row in rows)
            parser.error(f"--only: no row is called {wanted!r} or has it in its name; there are: {listed}")
        kept |= found
    return [row for row in rows if row.name in kept]


def seeds(benchmark: Benchmark[Any], options: argparse.Namespace) -> list[int]:
    """The repetitions that are asked for; a quick look takes one."""
    if benchmark.seeds is None:
        return [0]
    if options.seed is not None:
        return [options.seed]
    first = benchmark.seeds.first
    count = options.seeds or (1 if options.quick else benchmark.seeds.count)
    return list(range(first, first + count))


def _run(benchmark: Benchmark[R], tasks: Sequence[Task[R]], store: Store, options: argparse.Namespace) -> None:
    bar = tqdm(total=len(tasks), desc=benchmark.name, unit="run", disable=None)  # none where there is no terminal
    with bar:
        for row, seed, figures in _results(benchmark.run, tasks, options):
            run = {**benchmark.labels(row, seed), **figures}
            store.append(run)
            tqdm.write(json.dumps(run))
            bar.update()
            _write_table(benchmark, store)


def _results(run: RunRow[R], tasks: Sequence[Task[R]], options: argparse.Namespace) -> Iterator[tuple[R, int, Figures]]:
    """Each task with its figures, as soon as they are there."""
    if options.workers == 1:
        for row, seed in tasks:
            yield row, seed, _one(run, row, seed, quick=options.quick, threads=options.threads)
        return
    # fresh interpreters: a fork of a process with torch's thread pools can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(options.workers, mp_context=context)
    try:
        futures = {
            pool.submit(_one, run, row, seed, quick=options.quick, threads=options.threads): (row, seed)
            for row, seed in tasks
        }
        for future in as_completed(futures):
            yield *futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _one(run: RunRow[R], row: R, seed: int, *, quick: bool, threads: int) -> Figures:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {**run(row, seed=seed, quick=quick), **surroundings()}
    finally:
        torch.set_num_threads(before)


def _write_table(benchmark: Benchmark[Any], store: Store) -> None:
    if store.path is not None:
        text = benchmark.table(benchmark.rows, store.runs)
        store.path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
