"""Digits: image flows whose steps mix channels by a 1x1 map, by a convolution, or by a spectral convolution.

    python -m benchmarks.channel_mixing --workers 15           # results/channel_mixing.md, from its .jsonl

The flows are the equivariant ones of ``benchmarks/digits.py`` under C4, with its settings; only ``channel_mixing=``
differs, and parameters agree within 5 percent at one width. Each row of the table is the paired difference to the 1x1
map over seeds, with its standard error, in bits per dimension: on the validation images, on which the weights that are
kept were chosen, and on the test images. A finished fit is one line of ``results/channel_mixing.jsonl``; a killed one
goes on from its checkpoint.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.digits import FAMILIES, paired, part
from benchmarks.harness import Benchmark, Run, Seeds, grouped, main, markdown
from benchmarks.recipes import training_text
from pyro_gflows.datasets import DataSet
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.experiments.runs import finish

RUNS = Path("runs") / "channel_mixing"
GROUP = "C4"
MIXINGS = ("1x1", "convolution", "spectral")


@dataclass(frozen=True)
class Row:
    """One flow.

    Attributes:
        family: That of ``benchmarks/digits.py``.
        mixing: How its steps mix channels.
    """

    family: str
    mixing: str

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.family}-{self.mixing}"

    @property
    def preset(self) -> Preset:
        """What is built, and how it is trained."""
        chosen = FAMILIES[self.family]
        size = {**chosen.size, "width": chosen.width[GROUP], "channel_mixing": self.mixing}
        return Preset(self.name, "digits", GROUP, chosen.flow, size, chosen.settings, augment=GROUP, logit=chosen.logit)

    def labels(self) -> Mapping[str, Any]:
        """The name, the size and the training."""
        preset = self.preset
        return {"name": self.name, "size": dict(preset.size), "training": training_text(preset.settings)}


def run(row: Row, *, seed: int, quick: bool) -> Mapping[str, Any]:
    """Train and measure one flow."""
    preset, data = row.preset.seeded(seed), part(100, GROUP, seed=seed)
    if not quick:
        return _figures(finish(preset, data, RUNS / f"{row.name}-{seed}", progress=False), data)
    few = dataclasses.replace(data, test=data.test[:10], validation=data.validation[:10])
    short = dataclasses.replace(
        preset.settings, steps=2, validation=dataclasses.replace(preset.settings.validation, every=1)
    )
    with tempfile.TemporaryDirectory() as folder:
        return _figures(finish(preset.change(settings=short), few, Path(folder) / "run", progress=False), few)


def _figures(metrics: Mapping[str, Any], data: DataSet) -> dict[str, Any]:
    """The figures that the table shows, from those of a run; the flow is invariant, so that one pose is all."""
    assert data.scaling is not None
    pixels = data.test[0].numel()
    validation = data.scaling.bits_per_dim(min(nll for _, nll in metrics["validation_curve"]), pixels=pixels)
    kept = ("parameters", "steps", "seconds", "invariance_error")
    return {
        "validation": float(validation),
        "test": metrics["group_bits_per_dim"],
        **{key: metrics[key] for key in kept},
    }


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """A line for each flow, beside the one with the 1x1 map."""
    head = ["flow", "channel_mixing", "parameters", "seconds", "validation, bits/dim", "test, bits/dim"]
    head += ["validation, difference to 1x1", "test, difference to 1x1"]
    found = {group.row: {run["seed"]: run for run in group.runs} for group in grouped(rows, runs)}
    lines = []
    for row, own in found.items():
        usual = found.get(Row(row.family, "1x1"), {})
        seeds = sorted(own.keys() & usual.keys())
        cells = [f"{row.family}, {len(own)} seeds", row.mixing, f"{next(iter(own.values()))['parameters']}"]
        cells.append(f"{statistics.median(run['seconds'] for run in own.values()):.0f}")
        cells += [f"{statistics.mean(run[part] for run in own.values()):.4f}" for part in ("validation", "test")]
        for split in ("validation", "test"):
            differences = [own[seed][split] - usual[seed][split] for seed in seeds]
            cells.append(paired(differences) if differences and row.mixing != "1x1" else "")
        lines.append(cells)
    return markdown(head, lines, left=range(2))


ROWS = [Row(family, mixing) for family in ("coupling", "residual") for mixing in MIXINGS]
BENCHMARK = Benchmark("channel_mixing", __doc__, ROWS, run, table, seeds=Seeds(5))

if __name__ == "__main__":
    main(BENCHMARK)
