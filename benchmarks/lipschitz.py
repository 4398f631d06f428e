"""Certified Lipschitz bounds beside the true norms: linear layers as matrices, whole branches by a search.

    python -m benchmarks.lipschitz

A layer's norm is the largest singular value of its matrix; the ratio of the certified bound to it is at least 1. A
branch's constant is at least the largest singular value of its Jacobian that sampling and gradient ascent find. Weights
are random, all of one sign (the smoothest kernels, for which zero padding loses most), or trained on digits. float64.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows import EquivariantFlow, GActNorm, GResidual, ImageAction, InvariantNormal, VectorAction, g_residual
from pyro_gflows.actions import LinearAction
from pyro_gflows.datasets import load_data
from pyro_gflows.nn import Contraction, LipschitzConv, LipschitzLinear, LipschitzNetwork
from pyro_gflows.testing import randomize_
from pyro_gflows.training import Adam, FitSettings, fit

RESULTS = Path(__file__).parent / "results"
SEEDS = 3


def matrix(layer: nn.Module, action: LinearAction) -> Tensor:
    """A linear layer with its bias taken away, as a matrix."""
    units = torch.eye(action.numel, dtype=torch.float64).reshape(-1, *action.event_shape)
    with torch.no_grad():
        return (layer(units) - layer(torch.zeros_like(units))).flatten(1).T


def largest_slope(branch: Contraction, x: Tensor, *, starts: int = 4, steps: int = 15) -> float:
    """The largest singular value of the Jacobian over the points x and what gradient ascent finds from the best."""
    norms = torch.cat([_norms(branch, part) for part in x.split(16)])
    best = float(norms.max())
    point = x[norms.topk(min(starts, len(x))).indices].clone().requires_grad_()
    ascent = torch.optim.Adam([point], lr=0.05)
    for _ in range(steps):
        ascent.zero_grad()
        norms = _norms(branch, point, graph=True)
        (-norms.sum()).backward(inputs=[point])
        best = max(best, float(norms.max()))
        ascent.step()
    return best


def _norms(branch: Contraction, x: Tensor, *, graph: bool = False) -> Tensor:
    with torch.set_grad_enabled(graph):
        jacobian = branch.call_and_jacobian(x)[1]
    return torch.linalg.matrix_norm(jacobian, 2)


def layers(trained: dict[str, EquivariantFlow]) -> list[dict[str, Any]]:
    """One row for each kind of layer and grid: the least and largest ratio over weights."""
    rows = []
    for group in ("C4", "D4", "shifts"):
        for size in (2, 3, 4, 6, 7, 8):
            grid = ImageAction.translations(1, size=size) if group == "shifts" else ImageAction(group, 1, size=size)
            hidden = grid.regular_fields(2)
            for source, target in ((grid, hidden), (hidden, hidden), (hidden, grid)):
                for kernel_size in (3, 5):
                    if group == "shifts" and kernel_size // 2 > size:
                        continue
                    layer = LipschitzConv(source, target, kernel_size=kernel_size)
                    name = f"convolution {kernel_size}x{kernel_size}, {_channels(layer)}"
                    rows.append(_row(name, f"{group}, {size} x {size}", random_ratios(layer)))
    for group in ("C4", "D4"):
        action = VectorAction.regular(group, copies=3)
        rows.append(_row("linear", group, random_ratios(LipschitzLinear(action, action))))
    for group, flow in trained.items():
        branches = [layer.branch for layer in flow.transforms if isinstance(layer, GResidual)]
        for place in (0, 1):
            chosen = [branch.layers[place] for branch in branches]
            name = f"convolution 3x3, {_channels(chosen[0])}, trained"
            rows.append(_row(name, f"{group}, 8 x 8", [ratio(layer) for layer in chosen]))
    return rows


def ratio(layer: nn.Module) -> float:
    """Certified bound over norm."""
    return float(layer.lipschitz_bound() / torch.linalg.matrix_norm(matrix(layer, layer.action_in), 2))  # type: ignore


def random_ratios(layer: nn.Module) -> list[float]:
    """Under random weights, and weights of one sign."""
    layer, found = layer.double(), []
    for seed in range(SEEDS):
        randomize_(layer, scale=1.0, generator=torch.Generator().manual_seed(seed))
        found.append(ratio(layer))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.abs_()
    return [*found, ratio(layer)]


def branches(trained: dict[str, EquivariantFlow]) -> list[dict[str, Any]]:
    """One row for each depth and activation: the ratios of whole branches."""
    rows = []
    action = ImageAction("C4", 1, size=6)
    x = torch.randn(64, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for depth in (1, 2, 3):
        for activation in ("splines", "lipswish", "clipswish", "curves", "sorted_pairs"):
            found = []
            for seed in range(SEEDS):
                torch.manual_seed(seed)
                branch = LipschitzNetwork(action, width=4, depth=depth, activation=activation).double()
                found.append(float(branch.lipschitz_bound()) / largest_slope(branch, x))
            rows.append(_row(f"branch, {activation}, depth {depth}", "C4, 6 x 6", found))
    for group, flow in trained.items():
        events = load_data("digits").test[:64].double()
        chosen = [layer.branch for layer in flow.transforms if isinstance(layer, GResidual)]
        found = [float(branch.lipschitz_bound()) / largest_slope(branch, events) for branch in chosen]
        rows.append(_row("branch, splines, depth 1, trained", f"{group}, 8 x 8", found))
    return rows


def short_fit(group: str, *, steps: int) -> EquivariantFlow:
    """A small residual flow, trained for a moment on the digits; in float64."""
    torch.manual_seed(0)
    action, data = ImageAction(group, 1, size=8), load_data("digits")
    parts = [
        part
        for _ in range(3)
        for part in (GActNorm(action), g_residual(action, branch=functools.partial(LipschitzNetwork, width=4)))
    ]
    flow = EquivariantFlow(InvariantNormal(action), [*parts, GActNorm(action)])
    settings = FitSettings(steps, batch_size=64, optimizer=Adam(lr=1e-2, clip_norm=50.0))
    fit(flow, data.train, settings=settings, augment=data.augment, progress=False)
    return flow.double().eval()


def _channels(layer: nn.Module) -> str:
    return f"{layer.action_in.channels} to {layer.action_out.channels} channels"  # type: ignore[union-attr]


def _row(name: str, grid: str, ratios: list[float]) -> dict[str, Any]:
    return {"name": name, "grid": grid, "weights": len(ratios), "least": min(ratios), "largest": max(ratios)}


def table(rows: list[dict[str, Any]]) -> str:
    """The ratios, as Markdown: random convolutions by grid (their largest ratio), then the rest one by one."""
    grids = list(dict.fromkeys(row["grid"].split(", ")[1] for row in rows if row["name"].startswith("convolution")))
    lines = [f"| layer | group | {' | '.join(grids)} |", f"| --- | --- |{' ---: |' * len(grids)}"]
    by_layer: dict[tuple[str, str], dict[str, float]] = {}
    rest = []
    for row in rows:
        if row["name"].startswith("convolution") and not row["name"].endswith("trained"):
            group, grid = row["grid"].split(", ")
            by_layer.setdefault((row["name"], group), {})[grid] = row["largest"]
        else:
            rest.append(row)
    for (name, group), ratios in by_layer.items():
        lines.append(f"| {name} | {group} | {' | '.join(f'{ratios[grid]:.2f}' for grid in grids)} |")
    lines += ["", "| layer or branch | group and grid | weights | certified / reached |", "| --- | --- | ---: | ---: |"]
    for row in rest:
        span = f"{row['least']:.2f} to {row['largest']:.2f}"
        lines.append(f"| {row['name']} | {row['grid']} | {row['weights']} | {span} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="of training, for the rows of trained weights")
    parser.add_argument("--out", type=Path, default=RESULTS / "lipschitz.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = {group: short_fit(group, steps=arguments.steps) for group in ("C4", "D4")}
    rows = [*layers(trained), *branches(trained)]
    arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments.out.with_suffix(".md").write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
