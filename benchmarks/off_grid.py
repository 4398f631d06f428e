"""How far networks are from turns between the pixels: fields of C4, C8, C16, D8, D16, SO(2), O(2), and none.

    python -m benchmarks.off_grid [--seeds 5]

One line of ``results/off_grid.jsonl`` for each network and seed; those that are there already are not repeated. Prints
the table. The networks are untrained ``SoftNetwork``s from one scalar to one scalar, with two hidden layers of 32
channels and 5 x 5 kernels. The images are sums of plane waves, turned by 45 (or 20) degrees before they are sampled,
and outputs are compared at the pixel that the turn leaves in place: nothing is interpolated. An error is the root mean
square of the change, in standard deviations of the output over images.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from typing import Any

import torch

from benchmarks.densities import RESULTS, read
from pyro_gflows import OffGridAction
from pyro_gflows.nn import SoftNetwork
from pyro_gflows.nn.steerable import sampled_group
from pyro_gflows.nn.waves import Waves

GROUPS = ("C1", "C4", "D4", "C8", "C16", "SO(2)", "D8", "D16", "O(2)")
CHANNELS, DEPTH, KERNEL, SAMPLES = 32, 2, 5, 64
BLURS = {"blurred": 1.5, "noise": 0.0}
ANGLES = (45, 20)
FILE = RESULTS / "off_grid.jsonl"


def turn(degrees: float) -> torch.Tensor:
    """The matrix of a turn."""
    angle = math.radians(degrees)
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)


@torch.no_grad()
def measure(group: str, seed: int) -> dict[str, Any]:
    """The errors of one network."""
    size = KERNEL // 2 * (DEPTH + 1) * 2 + 1  # all that the middle pixel sees
    action = OffGridAction(group, size=size).exact_subgroup
    began = time.process_time()
    torch.manual_seed(seed)
    width = max(1, CHANNELS // sampled_group(group)[0].order)
    network = SoftNetwork(action, action, group=group, width=width, depth=DEPTH, kernel_size=KERNEL).double()
    built = time.process_time() - began
    errors = {}
    for name, blur in BLURS.items():
        waves = Waves((SAMPLES, 1), blur=blur, seed=seed)

        def output(matrix: torch.Tensor, waves: Waves = waves) -> torch.Tensor:
            return network(waves.sampled(matrix, size))[:, 0, size // 2, size // 2]

        here = output(torch.eye(2))
        for degrees in ANGLES:
            change = (output(turn(degrees)) - here).square().mean().sqrt()
            errors[f"{name}, {degrees}"] = float(change / here.std())
    weights = sum(parameter.numel() for parameter in network.parameters())
    return {"group": group, "seed": seed, "weights": weights, "build_seconds": round(built, 3), **errors}


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over the seeds, as Markdown."""
    columns = [f"{name}, {degrees}" for name in BLURS for degrees in ANGLES]
    lines = [
        "| fields | weights | " + " | ".join(f"{column} degrees" for column in columns) + " |",
        "| --- | ---: |" + " ---: |" * len(columns),
    ]
    for group in GROUPS:
        own = [row for row in rows if row["group"] == group]
        if own:
            figures = [f"{statistics.median(row[column] for row in own):.3f}" for column in columns]
            lines.append(f"| {group} | {own[0]['weights']} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    done = {(row["group"], row["seed"]) for row in read(FILE)}
    for group in GROUPS:
        for seed in range(seeds):
            if (group, seed) not in done:
                with FILE.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(measure(group, seed)) + "\n")
    print(table(read(FILE)))


if __name__ == "__main__":
    main()
