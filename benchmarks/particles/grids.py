"""One trained placement of LJ13, measured on several grids: what the error of its conditionals costs.

    python -m benchmarks.particles.grids                   # 20 minutes, the trained weights of seed 0

Weights are those that ``python -m benchmarks.particles --target lj13 --design "later on finer"`` left in its folder.
Each row has the same weights and conditionals of another resolution, which is another exact density. All rows score the
same draws of the training data, so that a choice among them uses no test data, and gaps are compared draw by draw.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Benchmark, Run, Seeds, cpu_seconds, grouped, main, markdown
from benchmarks.particles import benchmark
from benchmarks.particles.designs import DESIGNS, Design
from benchmarks.particles.measure import data_figures, draw_figures, forward_ess
from benchmarks.particles.problems import problem
from pyro_gflows.flows import placement_on_grids
from pyro_gflows.nn.placement_grids import PlacementGrids

__all__ = ["BENCHMARK", "DESIGN", "ROWS", "Row", "run", "table"]

TARGET = "lj13"
SCORED = 400
DRAWS = 2000
QUICK = 8
DESIGN: Design = next(design for design in DESIGNS if "finer grids" in design.name)
assert isinstance(DESIGN.measured, partial)
MEASURED: PlacementGrids = DESIGN.measured.keywords["grids"]


@dataclass(frozen=True)
class Row:
    """One resolution.

    Attributes:
        finer: What is finer than in the table of all designs.
        folder: Where exact draws and weights are.
    """

    finer: Mapping[str, int] = field(default_factory=dict)
    folder: Path = benchmark.FOLDER

    @property
    def name(self) -> str:
        """What is finer, in words."""
        return ", ".join(f"{key} {value}" for key, value in self.finer.items()) or "as in the table of designs"

    @property
    def grids(self) -> PlacementGrids:
        """The resolution."""
        return replace(MEASURED, **self.finer)

    def labels(self) -> Mapping[str, Any]:
        """The resolution, and over how many draws it is measured."""
        return {"name": self.name, "grids": asdict(self.grids), "scored": SCORED, "draws": DRAWS}


@torch.no_grad()
def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Measure the trained weights on the grids of a row; with ``quick`` untrained ones."""
    data = problem(TARGET, seed=seed, folder=row.folder, quick=quick)
    design = replace(DESIGN, measured=partial(placement_on_grids, grids=row.grids))
    trained = benchmark.Row(TARGET, design, "likelihood", design.minutes[TARGET], DRAWS, row.folder)
    model = benchmark.kept_model(trained, data, seed=seed, untrained=quick)
    x = data.training[: QUICK if quick else SCORED]
    exact, scores = data.target.log_density(x.double()), []
    seconds = cpu_seconds(lambda: scores.append(model.score(x)[0]), calls=1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = [model.draw(count, data.target) for count in model.parts(QUICK if quick else DRAWS)]
    own, log_z = scores[-1], data.target.log_z
    assert log_z is not None
    return {
        **data_figures(own, exact, data.target),
        "forward_ess": forward_ess(exact - own),
        **draw_figures(torch.cat(parts), data.target),
        "missing": [round(value, 4) for value in (exact - log_z - own).tolist()],
        "seconds_100_scores": seconds * 100 / len(x),
    }


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """A line for each resolution, with the paired difference of its gap to that of the first one."""
    groups = list(grouped(rows, runs))
    first = groups[0].runs[-1]["missing"]
    lines = []
    for group in groups:
        figures = group.runs[-1]
        changes = [mine - other for mine, other in zip(figures["missing"], first, strict=True)]
        error = statistics.stdev(changes) / math.sqrt(len(changes))
        lines.append(
            [
                group.row.name,
                f"{figures['gap']:.3f} ± {figures['gap_error']:.3f}",
                "" if group is groups[0] else f"{statistics.mean(changes):+.3f} ± {error:.3f}",
                f"{figures['forward_ess']:.3f}",
                f"{figures['ess']:.3f}",
                f"{figures['seconds_100_scores']:.3g}",
            ]
        )
    head = ["grids", f"gap, {SCORED} training draws", "change, paired", "forward ESS", f"ESS, {DRAWS:,} draws"]
    return markdown([*head, "100 scores, s"], lines)


ROWS: Sequence[Row] = [
    Row(),
    Row({"polar": 81}),
    Row({"cosines": 12}),
    Row({"angles": 48}),
]

BENCHMARK = Benchmark(
    "particles.grids",
    __doc__,
    ROWS,
    run,
    table,
    seeds=Seeds(),
    more_options=benchmark.folder_option,
    choose=lambda asked: [replace(row, folder=asked.folder) for row in ROWS],
)

if __name__ == "__main__":
    main(BENCHMARK)
