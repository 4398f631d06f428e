"""How far networks are from equivariance under rotations between the pixels: fields of C4 to O(2), and none.

    python -m benchmarks.off_grid [--seeds 5]

One line of ``results/off_grid.jsonl`` for each network and seed; those that are there already are not repeated. The
table in ``results/off_grid.md`` is made anew after every run. The networks are untrained ``SoftNetwork``s from one
scalar to one scalar, with two hidden layers of 32 channels and 5 x 5 kernels. The images are sums of plane waves,
rotated by 45 (or 20) degrees before they are sampled, and outputs are compared at the pixel that the rotation leaves in
place: nothing is interpolated. An error is the root mean square of the change, in standard deviations of the output
over images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness import Benchmark, Column, Seeds, Stopwatch, columns, main
from pyro_gflows import OffGridAction
from pyro_gflows.nn import SoftNetwork
from pyro_gflows.nn.steerable import sampled_group
from pyro_gflows.nn.waves import Waves

GROUPS = ("C1", "C4", "D4", "C8", "C16", "SO(2)", "D8", "D16", "O(2)")
CHANNELS, DEPTH, KERNEL, SAMPLES = 32, 2, 5, 64
BLURS = {"blurred": 1.5, "noise": 0.0}
ANGLES = (45, 20)


def rotation(degrees: float) -> torch.Tensor:
    """The matrix of a rotation."""
    angle = math.radians(degrees)
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)


@dataclass(frozen=True)
class Row:
    """The networks with fields of one group."""

    name: str

    def labels(self) -> Mapping[str, str]:
        """The group."""
        return {"group": self.name}


@torch.no_grad()
def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The errors of one network."""
    size = KERNEL // 2 * (DEPTH + 1) * 2 + 1  # all that the middle pixel sees
    action = OffGridAction(row.name, size=size).exact_subgroup
    torch.manual_seed(seed)
    width = max(1, CHANNELS // sampled_group(row.name)[0].order)
    with Stopwatch() as watch:
        network = SoftNetwork(action, action, group=row.name, width=width, depth=DEPTH, kernel_size=KERNEL).double()
    errors = {}
    for name, blur in BLURS.items():
        waves = Waves((2 if quick else SAMPLES, 1), blur=blur, seed=seed)

        def output(matrix: torch.Tensor, waves: Waves = waves) -> torch.Tensor:
            return network(waves.sampled(matrix, size))[:, 0, size // 2, size // 2]

        here = output(torch.eye(2))
        for degrees in ANGLES:
            change = (output(rotation(degrees)) - here).square().mean().sqrt()
            errors[f"{name}, {degrees}"] = float(change / here.std())
    weights = sum(parameter.numel() for parameter in network.parameters())
    return {"weights": weights, "build_seconds": round(watch.cpu_seconds, 3), **errors}


def _error(figure: str) -> Column[Row]:
    return Column(f"{figure} degrees", lambda found: f"{found.median(figure):.3f}")


BENCHMARK = Benchmark(
    "off_grid",
    __doc__,
    [Row(group) for group in GROUPS],
    run,
    columns(
        Column("fields", lambda found: found.row.name, left=True),
        Column("weights", lambda found: f"{found['weights']}"),
        *(_error(f"{name}, {degrees}") for name in BLURS for degrees in ANGLES),
    ),
    seeds=Seeds(5),
)

if __name__ == "__main__":
    main(BENCHMARK)
