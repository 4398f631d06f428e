"""Certified Lipschitz bounds beside the true norms: linear layers as matrices, whole branches by a search.

    python -m benchmarks.lipschitz

A layer's norm is the largest singular value of its matrix; the ratio of the certified bound to it is at least 1. A
branch's constant is at least the largest singular value of its Jacobian that sampling and gradient ascent find. Weights
are random, all of one sign (the smoothest kernels, for which zero padding loses most), or trained on digits. float64.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.harness import Benchmark, Run, grouped, main, markdown
from pyro_gflows import EquivariantFlow, GActNorm, GResidual, ImageAction, InvariantNormal, VectorAction, g_residual
from pyro_gflows.actions import LinearAction
from pyro_gflows.datasets import load_data
from pyro_gflows.nn import Contraction, LipschitzConv, LipschitzLinear, LipschitzNetwork
from pyro_gflows.testing import randomize_
from pyro_gflows.training import Adam, FitSettings, fit

SEEDS = 3
SIZES = (2, 3, 4, 6, 7, 8)
STEPS = 60  # of training, for the rows of trained weights
ACTIVATIONS = ("splines", "lipswish", "clipswish", "curves", "sorted_pairs")
ORDERS = {"C4": 4, "D4": 8, "shifts": 1}  # channels of a regular field


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


@functools.cache
def trained_layers(group: str, *, steps: int) -> list[GResidual]:
    """The residual layers of a small flow that was trained for a moment on the digits; in float64."""
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
    return [layer for layer in flow.double().eval().transforms if isinstance(layer, GResidual)]


class Measured(Protocol):
    """What a row measures, under several weights."""

    def ratios(self, group: str, *, quick: bool) -> list[float]:
        """Certified bound over norm, or over the largest slope that is found, for each of the weights."""
        ...


@dataclass(frozen=True)
class RandomConvolution:
    """A convolution between images of one channel ("image") and two regular fields ("hidden"), on a grid."""

    source: str
    target: str
    size: int
    kernel_size: int

    def ratios(self, group: str, *, quick: bool) -> list[float]:
        """Under random weights, and weights of one sign."""
        shifts = group == "shifts"
        image = ImageAction.translations(1, size=self.size) if shifts else ImageAction(group, 1, size=self.size)
        actions = {"image": image, "hidden": image.regular_fields(2)}
        return random_ratios(LipschitzConv(actions[self.source], actions[self.target], kernel_size=self.kernel_size))


@dataclass(frozen=True)
class RandomLinear:
    """A linear layer between three regular fields."""

    def ratios(self, group: str, *, quick: bool) -> list[float]:
        """Under random weights, and weights of one sign."""
        action = VectorAction.regular(group, copies=3)
        return random_ratios(LipschitzLinear(action, action))


@dataclass(frozen=True)
class TrainedConvolution:
    """The layers at one place of trained branches."""

    place: int

    def ratios(self, group: str, *, quick: bool) -> list[float]:
        """Of each residual layer."""
        return [ratio(layer.branch.layers[self.place]) for layer in trained_layers(group, steps=2 if quick else STEPS)]


@dataclass(frozen=True)
class RandomBranch:
    """A branch of that depth and activation on a grid of 6 x 6."""

    depth: int
    activation: str

    def ratios(self, group: str, *, quick: bool) -> list[float]:
        """From several seeds."""
        action = ImageAction(group, 1, size=6)
        x = torch.randn(64, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            branch = LipschitzNetwork(action, width=4, depth=self.depth, activation=self.activation).double()
            found.append(_slack(branch, x, quick=quick))
        return found


@dataclass(frozen=True)
class TrainedBranch:
    """Trained branches on digits."""

    def ratios(self, group: str, *, quick: bool) -> list[float]:
        """Of each residual layer."""
        digits = load_data("digits").test[:64].double()
        layers = trained_layers(group, steps=2 if quick else STEPS)
        return [_slack(layer.branch, digits, quick=quick) for layer in layers]


def _slack(branch: Contraction, x: Tensor, *, quick: bool) -> float:
    steps, count = (1, 4) if quick else (15, len(x))
    return float(branch.lipschitz_bound()) / largest_slope(branch, x[:count], steps=steps)


@dataclass(frozen=True)
class Row:
    """A layer or branch under a group, on a grid if it has one.

    Attributes:
        layer: What it is called.
        group: The group.
        measured: How its ratios are found.
        size: Of the grid; None for a linear layer.
    """

    layer: str
    group: str
    measured: Measured
    size: int | None = None

    @property
    def grid(self) -> str:
        """The group, and the size of the grid."""
        return self.group if self.size is None else f"{self.group}, {self.size} x {self.size}"

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.layer}, {self.grid}"

    def labels(self) -> Mapping[str, str]:
        """Layer and grid."""
        return {"name": self.layer, "grid": self.grid}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The least and the largest ratio over weights, which have seeds of their own."""
    ratios = row.measured.ratios(row.group, quick=quick)
    return {"weights": len(ratios), "least": min(ratios), "largest": max(ratios)}


def _convolutions(group: str) -> list[Row]:
    channels = {"image": 1, "hidden": 2 * ORDERS[group]}
    return [
        Row(
            f"convolution {kernel}x{kernel}, {channels[source]} to {channels[target]} channels",
            group,
            RandomConvolution(source, target, size, kernel),
            size,
        )
        for size in SIZES
        for source, target in (("image", "hidden"), ("hidden", "hidden"), ("hidden", "image"))
        for kernel in (3, 5)
    ]


def _trained_convolutions(group: str) -> list[Row]:
    hidden = 4 * ORDERS[group]
    return [
        Row(f"convolution 3x3, {channels} channels, trained", group, TrainedConvolution(place), 8)
        for place, channels in enumerate((f"1 to {hidden}", f"{hidden} to 1"))
    ]


CONVOLUTIONS = [row for group in ORDERS for row in _convolutions(group)]
OTHERS = [
    *(Row("linear", group, RandomLinear()) for group in ("C4", "D4")),
    *(row for group in ("C4", "D4") for row in _trained_convolutions(group)),
    *(
        Row(f"branch, {activation}, depth {depth}", "C4", RandomBranch(depth, activation), 6)
        for depth, activation in itertools.product((1, 2, 3), ACTIVATIONS)
    ),
    *(Row("branch, splines, depth 1, trained", group, TrainedBranch(), 8) for group in ("C4", "D4")),
]


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """Random convolutions by grid (their largest ratio), then the rest one by one."""
    by_layer: dict[tuple[str, str], dict[int | None, float]] = {}
    rest = []
    for found in grouped(rows, runs):
        row = found.row
        if isinstance(row.measured, RandomConvolution):
            by_layer.setdefault((row.layer, row.group), {})[row.size] = found["largest"]
        else:
            span = f"{found['least']:.2f} to {found['largest']:.2f}"
            rest.append([row.layer, row.grid, f"{found['weights']}", span])
    lines = [
        [*layer, *(f"{ratios[size]:.2f}" if size in ratios else "" for size in SIZES)]
        for layer, ratios in by_layer.items()
    ]
    first = markdown(["layer", "group", *(f"{size} x {size}" for size in SIZES)], lines, left=range(2))
    head = ["layer or branch", "group and grid", "weights", "certified / reached"]
    return f"{first}\n\n{markdown(head, rest, left=range(2))}"


BENCHMARK = Benchmark("lipschitz", __doc__, [*CONVOLUTIONS, *OTHERS], run, table)

if __name__ == "__main__":
    main(BENCHMARK)
