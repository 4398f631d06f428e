"""Digits: equivariant flows beside the same code with the trivial group, at equal parameters.

    python -m benchmarks.digits --seeds 5 --workers 2

Each flow under G in {C4, D4} has a plain twin (C1) with as many parameters (within 5 %), the same steps and batch,
shown a random element of G with every image. Both are scored on the same test images in every pose of G; the twin also
symmetrised at test time, -log mean_g p(g x). A row is the paired difference over seeds with its standard error. Every
finished fit is one line of ``benchmarks/results/digits.jsonl`` and is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from pyro_gflows.datasets import load_data
from pyro_gflows.experiments import run
from pyro_gflows.infer import Adam, FitSettings, OneCycle
from pyro_gflows.presets import Preset

RESULTS = Path(__file__).parent / "results"


def presets(steps: int) -> list[Preset]:
    """Each equivariant flow and its plain twin."""
    schedule = OneCycle(warmup=0.1)
    residual = FitSettings(steps, batch_size=64, optimizer=Adam(lr=1e-2, clip_norm=50.0), schedule=schedule)
    coupling = FitSettings(steps, batch_size=128, optimizer=Adam(lr=4e-3, clip_norm=50.0), schedule=schedule)
    blocks = {"residual": 8, "coupling": 6}
    # as many parameters: a regular field of G has |G| channels, and a plain channel as many weights as a field has
    widths = {"residual": {"C4": (4, 4), "D4": (4, 4)}, "coupling": {"C4": (8, 15), "D4": (6, 16)}}
    out = []
    for family, settings in (("residual", residual), ("coupling", coupling)):
        for group, (width, plain) in widths[family].items():
            size = {"blocks": blocks[family], "width": width}
            out.append(Preset(f"{family}-{group}", "digits", group, family, size, settings, augment=group))
            twin = {"blocks": blocks[family], "width": plain}
            out.append(Preset(f"{family}-{group}-plain", "digits", "C1", family, twin, settings, augment=group))
    return out


def fit_one(preset: Preset, seed: int) -> dict[str, Any]:
    """Train and measure one flow; its row."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        metrics = run(preset.seeded(seed), load_data("digits", seed=seed), folder, progress=False).metrics
    return {"name": preset.name, "seed": seed, **metrics}


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison, as Markdown."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["seed"]] = row
    lines = [
        "| flow | parameters (plain) | bits/dim, group mean | plain, augmented | plain, symmetrised | "
        "difference to augmented | difference to symmetrised | seconds (plain) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, own in by_name.items():
        twin = by_name.get(f"{name}-plain")
        seeds = sorted(set(own) & set(twin)) if twin else []
        if not twin or not seeds:
            continue
        ours = [own[s]["group_bits_per_dim"] for s in seeds]
        columns = [[twin[s][key] for s in seeds] for key in ("group_bits_per_dim", "symmetrized_bits_per_dim")]
        differences = [paired([b - a for a, b in zip(ours, column, strict=True)]) for column in columns]
        counts = f"{own[seeds[0]]['parameters']} ({twin[seeds[0]]['parameters']})"
        spent = [statistics.median(one[s]["seconds"] for s in seeds) for one in (own, twin)]
        means = [f"{statistics.mean(values):.4f}" for values in (ours, *columns)]
        cells = [name, counts, *means, *differences, f"{spent[0]:.0f} ({spent[1]:.0f})"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired(differences: list[float]) -> str:
    """Mean and standard error of what the plain flow costs more."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.4f}"
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{mean:+.4f} +- {error:.4f} ({mean / error:.1f} SE)"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="run only presets whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS / "digits.jsonl")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(row["name"], row["seed"]) for row in rows}
    todo = [
        (preset, seed)
        for seed in range(arguments.seeds)
        for preset in presets(arguments.steps)
        if arguments.only in preset.name and (preset.name, seed) not in done
    ]
    # fresh interpreters: a fork of a process with torch's thread pools can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool, arguments.out.open("a") as file:
        for future in [pool.submit(fit_one, preset, seed) for preset, seed in todo]:
            row = future.result()
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{row['name']} seed {row['seed']}: {row['group_bits_per_dim']:.4f} bits/dim", flush=True)
    print(table(rows))
    (arguments.out.with_suffix(".md")).write_text(table(rows) + "\n")


if __name__ == "__main__":
    main()
