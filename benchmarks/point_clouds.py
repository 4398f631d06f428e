"""Handwritten digits as sets of 50 points: a flow of sets beside autoregressive flows of lists.

    python -m benchmarks.point_clouds --data FOLDER --seeds 2

Each point is a pixel of an MNIST digit, drawn by its intensity, with uniform noise within the pixel. Every model has
about as many parameters, and is trained by the same code for as many steps on fresh sets of points of the same training
digits. The figures are log-likelihoods a point in nats, with respect to Lebesgue measure on the 28 x 28 square, of one
fixed set of points for each test digit. The uniform density scores -log 784 = -6.664.

- "sets": the density of :func:`benchmarks.cloud_sets.set_flow`, exactly invariant; a lower bound by importance weights;
- "sorted list": p(x) = q(sorted x) / 50!, where q is a density on lists that are sorted by y;
- "random order": a density of lists, trained on random orders; log of its mean over 64 orders, which is on average
  below the log of its mean over all orders.

The figures of other works are theirs: trained on 60,000 digits, on test sets of their own draws (flow scans:
arXiv:1902.01967, Neural Statistician: arXiv:1606.02185).

FOLDER has the file ``mnist.npz`` or the published files; without the option it is the one that the environment variable
PYRO_GFLOWS_DATA names, or MNIST is downloaded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cloud_lists import list_flow
from benchmarks.cloud_sets import set_flow
from benchmarks.harness import Benchmark, Run, Seeds, Stopwatch, grouped, main, markdown
from pyro_gflows.datasets import RawImages, image_set, point_clouds
from pyro_gflows.flows import AugmentedFlow, EquivariantFlow
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit

POINTS = 50
CENTER, UNIT = 14.0, 6.0  # of a coordinate, in pixels: models see (x - 14) / 6
VALIDATION = 1000  # of the training digits, on which nothing is trained
TEST_SEED = 0  # of the points of the test digits
ORDERS = 64
DRAWS = 64  # of the latent vector for each test set

Model = EquivariantFlow | AugmentedFlow


@dataclass(frozen=True)
class Row:
    """One kind of model, and its training.

    Attributes:
        name: The kind of model.
        steps: Steps of training, each on 64 digits.
        lr: Peak of the learning rate.
        data: The folder with MNIST.
    """

    name: str
    steps: int = 8000
    lr: float = 5e-3
    data: Path | None = None

    def labels(self) -> Mapping[str, Any]:
        """Kind, steps and learning rate."""
        return {"model": self.name, "steps": self.steps, "lr": self.lr}


# -- how a set of points, shape (n, 50, 2), is an event of each model --------------------------------------------------
def columns_of(points: Tensor) -> Tensor:
    """All first coordinates, then all second ones."""
    return points.mT.flatten(1)


def sorted_list(points: Tensor) -> Tensor:
    """(y_1, x_1, y_2, x_2, ...), sorted by y."""
    order = points[..., 1].argsort(-1)
    return points.gather(1, order[..., None].expand_as(points)).flip(-1).flatten(1)


def shuffled_list(points: Tensor, generator: torch.Generator) -> Tensor:
    """(y_1, x_1, y_2, x_2, ...) in a random order."""
    order = torch.rand(points.shape[:2], generator=generator).argsort(-1)
    return points.gather(1, order[..., None].expand_as(points)).flip(-1).flatten(1)


# -- how each model scores events --------------------------------------------------------------------------------------
def score_set(model: Any, points: Tensor) -> Mapping[str, Tensor]:
    """Bounds of the log-density of each set, from one draw of the latent vector and from many."""
    events = columns_of(points)
    bounds = {draws: model.importance_bound(events, draws=draws) for draws in (1, DRAWS)}
    return {"log_likelihood": bounds[DRAWS], "one_draw": bounds[1]}


def score_sorted(model: Any, points: Tensor) -> Mapping[str, Tensor]:
    """The log-density of each set."""
    return {"log_likelihood": model(sorted_list(points)) - math.lgamma(POINTS + 1)}


def score_shuffled(model: Any, points: Tensor) -> Mapping[str, Tensor]:
    """The log of the mean density over random orders, and the mean of the log-density."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.stack([model(shuffled_list(points, generator)) for _ in range(ORDERS)]).double()
    return {"log_likelihood": scores.logsumexp(0) - math.log(ORDERS), "one_draw": scores.mean(0)}


@dataclass(frozen=True)
class Kind:
    """How a model is made, what it is trained on, and how it is scored."""

    make: Callable[[], Model]
    event: Callable[[Tensor, torch.Generator], Tensor]
    score: Callable[[Any, Tensor], Mapping[str, Tensor]]


KINDS = {
    "sets": Kind(lambda: set_flow(POINTS), lambda points, _: columns_of(points), score_set),
    "sorted list": Kind(
        lambda: list_flow(POINTS, width=198, is_sorted=True), lambda points, _: sorted_list(points), score_sorted
    ),
    "random order": Kind(lambda: list_flow(POINTS, width=198, is_sorted=False), shuffled_list, score_shuffled),
}


# -- running -----------------------------------------------------------------------------------------------------------
def scaled_clouds(images: Tensor, seed: int | torch.Generator) -> Tensor:
    """Sets of points of images, in the units of the models."""
    return (point_clouds(images, points=POINTS, seed=seed) - CENTER) / UNIT


def train(kind: Kind, images: Tensor, *, settings: FitSettings) -> Model:
    """A model, fitted to fresh sets of points of training digits."""
    torch.manual_seed(settings.seed)
    model = kind.make()

    def sampler(n: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(images), (n,), generator=generator)
        return kind.event(scaled_clouds(images[chosen], generator), generator)

    fit(model, sampler, settings=settings, progress=False)
    return model


def per_point(score: Callable[[Any, Tensor], Mapping[str, Tensor]], model: Model, points: Tensor) -> dict[str, float]:
    """Means of log-likelihoods a point, in nats for pixels as units of length, and the standard error of the first."""
    with torch.no_grad():
        parts = [score(model, part) for part in points.split(250)]
    found = {name: torch.cat([part[name] for part in parts]).double() / POINTS for name in parts[0]}
    figures = {name: float(values.mean()) - 2 * math.log(UNIT) for name, values in found.items()}
    values = found["log_likelihood"]
    return {**figures, "standard_error": float(values.std() / math.sqrt(len(values)))}


def digits_of(folder: Path | None, *, quick: bool) -> RawImages:
    """MNIST; in a quick run without a folder, random images in its place."""
    if quick and folder is None:
        images = torch.randint(1, 255, (VALIDATION + 100, 1, 28, 28), dtype=torch.uint8)
        labels = torch.zeros(len(images), dtype=torch.int64)
        return RawImages(images, labels, images[:20], labels[:20])
    return image_set("mnist", folder=folder)


def parameters(model: Model) -> int:
    """The number of parameters, without those that a mask sets to 0."""
    if isinstance(model, AugmentedFlow):
        return sum(weight.numel() for weight in model.parameters())
    return int(model.transforms[0].network.weights())  # type: ignore[operator, union-attr]


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train and measure one model."""
    kind, raw = KINDS[row.name], digits_of(row.data, quick=quick)
    chosen = torch.randperm(len(raw.train), generator=torch.Generator().manual_seed(0))
    validation, training = raw.train[chosen[:VALIDATION]], raw.train[chosen[VALIDATION:]]
    settings = FitSettings(
        5 if quick else row.steps,
        batch_size=64,
        seed=seed,
        optimizer=Adam(lr=row.lr, clip_norm=50.0),
        schedule=OneCycle(warmup=0.1),
        check_symmetry=False,  # the points are in no order by construction
    )
    with Stopwatch() as watch:
        model = train(kind, training, settings=settings)
    test = scaled_clouds(raw.test[:20] if quick else raw.test, TEST_SEED)
    some = scaled_clouds(validation[: 20 if quick else VALIDATION], TEST_SEED + 1)
    figures = per_point(kind.score, model.eval(), test)
    figures["validation"] = per_point(kind.score, model, some)["log_likelihood"]
    about = {"digits": len(training), "parameters": parameters(model)}
    return {**figures, **about, "cpu_seconds": watch.cpu_seconds}


BOUNDS = {"sets": f"bound, {DRAWS} draws", "sorted list": "exact", "random order": f"bound, {ORDERS} orders"}
PUBLISHED = {"flow scans": -5.26, "Neural Statistician": -5.37, "permutation flows": -5.49, "sorting flows": -5.53}


def table(chosen: Sequence[Row], runs: Sequence[Run]) -> str:
    """The models with their means over seeds, the uniform density, and published figures."""
    head = ["model", "score", "digits", "parameters", "steps", "seeds", "log-likelihood a point, mean (lowest)"]
    head += ["standard error over digits", "training, CPU seconds"]
    lines = [
        [
            found.row.name,
            BOUNDS[found.row.name],
            f"{found['digits']:,}",
            f"{found['parameters']:,}",
            f"{found['steps']:,}",
            f"{len(found.runs)}",
            f"{found.mean('log_likelihood'):.3f} ({found.least('log_likelihood'):.3f})",
            f"{found['standard_error']:.3f}",
            f"{found.median('cpu_seconds'):.0f}",
        ]
        for found in grouped(chosen, runs)
    ]
    lines.append(["uniform density", "exact", *["-"] * 4, f"{-2 * math.log(2 * CENTER):.3f}", "-", "-"])
    for name, value in PUBLISHED.items():
        lines.append([f"{name}, published", "", "60,000", *["-"] * 3, f"{value:.2f}", "-", "-"])
    return markdown(head, lines, left=(0, 1))


def more_options(parser: argparse.ArgumentParser) -> None:
    """Where the digits are, and how long models are trained."""
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the folder with MNIST")
    parser.add_argument("--steps", type=int, default=Row.steps, help=f"of training (default: {Row.steps})")


def rows(steps: int = Row.steps, data: Path | None = None) -> list[Row]:
    """A row for each kind of model."""
    return [Row(name, steps, data=data) for name in KINDS]


BENCHMARK = Benchmark(
    "point_clouds",
    __doc__,
    rows(),
    run,
    table,
    seeds=Seeds(2),
    more_options=more_options,
    choose=lambda options: rows(options.steps, options.data),
)

if __name__ == "__main__":
    main(BENCHMARK)
