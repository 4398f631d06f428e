"""The command ``demo``: short fits of flows with and without the symmetry, in a table and a figure."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from pyro_gflows import plots
from pyro_gflows.datasets import DataSet, load_data
from pyro_gflows.evaluation import log_probs
from pyro_gflows.experiments.presets import DEMO, Preset
from pyro_gflows.experiments.runs import draw, run
from pyro_gflows.serialization import load
from pyro_gflows.serialization.files import check_writable

__all__ = ["demo"]

_COLUMNS = (
    "data",
    "flow",
    "group",
    "parameters",
    "seconds",
    "gap (nats)",
    "bits/dim (group mean)",
    "bits/dim (symmetrized)",
    "invariance error",
)


def demo(arguments: argparse.Namespace) -> int:
    """Fit every shortened preset, print a table, and write a figure."""
    if arguments.workers < 1:
        raise ValueError(f"expected at least one worker, got {arguments.workers}")
    began = time.perf_counter()
    folder = check_writable(arguments.out)
    # A missing package (scikit-learn, matplotlib) is reported now and not after the fits.
    sets = {preset.data: load_data(preset.data, seed=arguments.seed) for preset in DEMO}
    plots.new_figure(1)
    print(f"{len(DEMO)} shortened fits, {arguments.workers} at a time; the full presets are those of `pyro-gflows fit`")
    # Fresh interpreters: a fork of a process with torch's thread pools can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        futures = [pool.submit(_fit, preset, arguments.seed, folder / preset.name) for preset in DEMO]
        rows = []
        try:
            for future in futures:
                rows.append(future.result())
                print(f"  {rows[-1]['preset']}: done in {rows[-1]['seconds']:.0f} s", flush=True)
        except BaseException:
            # Ctrl-C stops the running fits too; without the next line the pool would go on to the waiting ones.
            pool.shutdown(cancel_futures=True)
            raise
    print(_table(rows))
    _figure(rows, sets, folder, seed=arguments.seed)
    print(f"figure: {folder / 'demo.png'}; total {time.perf_counter() - began:.0f} s")
    return 0


def _fit(preset: Preset, seed: int, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    data = load_data(preset.data, seed=seed)
    return run(preset.seeded(seed), data, folder, progress=False).metrics


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [_COLUMNS]
    for row in rows:
        gap = f"{row['gap']:.4f} +- {row['gap_standard_error']:.4f}" if "gap" in row else "-"
        group = row["group"] + (f" (data augmented by {row['augment']})" if row["augment"] else "")
        bits = [f"{row[key]:.4f}" if key in row else "-" for key in ("group_bits_per_dim", "symmetrized_bits_per_dim")]
        counts = (str(row["parameters"]), f"{row['seconds']:.0f}")
        error = f"{row['invariance_error']:.1e} ({row['invariance_group']})"
        cells.append((row["data"], row["flow"], group, *counts, gap, *bits, error))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _figure(rows: Sequence[Mapping[str, Any]], sets: Mapping[str, DataSet], folder: Path, *, seed: int) -> None:
    """Write a figure with a row for each data set and family: the exact density or images, then each fitted flow."""
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["data"], row["flow"]), []).append(row)
    columns = 1 + max(map(len, lines.values()))
    figure, axes = plots.new_figure(columns, rows=len(lines), size=3.2)
    for panels, ((name, _), line) in zip(axes, lines.items(), strict=True):
        _draw_data(panels[0], sets[name])
        for panel, row in zip(panels[1:], line, strict=False):
            _draw_flow(panel, row, sets[name], folder, seed=seed)
    plots.save_figure(figure, folder / "demo.png")


def _draw_flow(panel: Any, row: Mapping[str, Any], data: DataSet, folder: Path, *, seed: int) -> None:
    flow = load(folder / row["preset"])
    title = f"{row['flow']}, {row['group']} (shortened)\n"
    if data.scaling is None:
        title += f"gap {row['gap']:.4f} nats"
        plots.draw_density(panel, lambda x: log_probs(flow, x), reach=_reach(data), title=title)
    else:
        title += f"{row['group_bits_per_dim']:.3f} bits/dim"
        plots.draw_images(panel, data.scaling.to_unit(draw(flow, 64, seed=seed)), title=title)


def _draw_data(panel: Any, data: DataSet) -> None:
    if data.target is not None:
        plots.draw_density(panel, data.target.log_prob, reach=_reach(data), title=f"{data.name}, exact")
    elif data.scaling is not None:
        plots.draw_images(panel, data.scaling.to_unit(data.test[:64]), title=f"{data.name}, test images")


def _reach(data: DataSet) -> float:
    return 1.2 * float(data.test[:2000].abs().max())
