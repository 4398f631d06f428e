"""Digits: equivariant flows beside the same code with the trivial group, at several prices.

    python -m benchmarks.digits --seeds 5 --workers 2              # results/digits.md, from results/digits.jsonl
    python -m benchmarks.digits --seeds 3 --shares 10 25 50 100    # and the figure results/digits_data.png

Each flow under G in {C4, D4} meets two plain twins (C1), shown a random element of G with every image:

- "plain": as many parameters (within 6 %) and both at least as many steps and at least as much time;
- "large": |G| times the parameters, as many steps.

All are scored on the test images in every pose of G; the twins also symmetrized at test time, -log mean_g p(g x). A row
is the paired difference over seeds with its standard error. Validation images, in every pose, choose the weights that
are kept. A finished fit is one line of ``results/digits.jsonl``; a killed one goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Benchmark, Run, Seeds, main, markdown, mean_and_error
from pyro_gflows import ImageAction, plots
from pyro_gflows.datasets import DataSet, load_data
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.experiments.runs import finish
from pyro_gflows.training import Adam, FitSettings, OneCycle, Validation

RUNS = Path("runs") / "digits"
ORDER = {"C4": 4, "D4": 8}


@dataclass(frozen=True)
class Family:
    """A flow under each group and its plain twins.

    Attributes:
        flow, size: What to build; the widths go with it.
        width: Of the equivariant flow, by group.
        plain, large: Widths of the twins with as many and with |G| times the parameters.
        patient: Steps of the twin "plain" for each step of the flow: at least 1, and at least as much time.
        logit: Margin of the logit preprocessing.
    """

    flow: str
    size: Mapping[str, Any]
    settings: FitSettings
    width: Mapping[str, int]
    plain: Mapping[str, int]
    large: Mapping[str, int]
    patient: Mapping[str, float]
    logit: float


def _settings(steps: int, *, lr: float, every: int) -> FitSettings:
    return FitSettings(
        steps,
        batch_size=64,
        optimizer=Adam(lr=lr, clip_norm=50.0),
        schedule=OneCycle(warmup=0.1),
        validation=Validation(every, patience=1000),  # no early stop, but the best weights are kept
        checkpoint_every=100,
    )


_RESIDUAL = Family(
    "image-residual",
    {"scales": 2, "blocks": 3},
    _settings(400, lr=3e-2, every=100),
    width={"C4": 8, "D4": 4},
    plain={"C4": 10, "D4": 5},
    large={"C4": 31, "D4": 31},
    patient={"C4": 1.25, "D4": 1.25},
    logit=0.01,
)

FAMILIES = {
    "residual": _RESIDUAL,
    "residual_wide": dataclasses.replace(
        _RESIDUAL,
        settings=_settings(400, lr=3e-2, every=25),
        width={"C4": 16, "D4": 8},
        plain={"C4": 23, "D4": 13},
        large={"C4": 63, "D4": 63},
        patient={"C4": 1.5, "D4": 1.5},
    ),
    "coupling": Family(
        "image-coupling",
        {"scales": 2, "blocks": 2},
        _settings(600, lr=1e-2, every=50),
        width={"C4": 8, "D4": 4},
        plain={"C4": 15, "D4": 10},
        large={"C4": 33, "D4": 33},
        patient={"C4": 2.0, "D4": 2.0},
        logit=0.001,
    ),
}


def presets(family: str) -> list[Preset]:
    """The equivariant flows of a family and their twins."""
    chosen = FAMILIES[family]
    settings = chosen.settings
    found = []
    for group in ORDER:
        patient = dataclasses.replace(settings, steps=round(settings.steps * chosen.patient[group]))
        for label, own, width, training in (
            ("", group, chosen.width, settings),
            ("-plain", "C1", chosen.plain, patient),
            ("-large", "C1", chosen.large, settings),
        ):
            size = {**chosen.size, "width": width[group]}
            name = f"{family}-{group}{label}"
            preset = Preset(name, "digits", own, chosen.flow, size, training, augment=group, logit=chosen.logit)
            found.append(preset)
    return found


def part(share: int, group: str, *, seed: int) -> DataSet:
    """The digits with a share (in percent) of the training images, validated in every pose of the group."""
    data = load_data("digits", seed=seed)
    kept = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))  # the same images for all seeds
    train = data.train[kept[: round(len(kept) * share / 100)]]
    poses = ImageAction(group, size=8).act_all(data.validation).flatten(0, 1)
    return dataclasses.replace(data, name=f"digits, {share} %", train=train, validation=poses)


@dataclass(frozen=True)
class Row:
    """One flow, trained on a share (in percent) of the training images."""

    preset: Preset
    share: int = 100

    @property
    def name(self) -> str:
        """That of the preset."""
        return self.preset.name

    def labels(self) -> Mapping[str, Any]:
        """Name and share."""
        return {"name": self.name, "share": self.share}


def run(row: Row, *, seed: int, quick: bool) -> Mapping[str, Any]:
    """Train and measure one flow."""
    preset, data = row.preset.seeded(seed), part(row.share, row.preset.augment, seed=seed)
    if not quick:
        return finish(preset, data, RUNS / f"{row.name}-{row.share}-{seed}", progress=False)
    few = dataclasses.replace(data, test=data.test[:10], validation=data.validation[:10])
    preset = preset.change(settings=dataclasses.replace(preset.settings, steps=2))
    with tempfile.TemporaryDirectory() as folder:
        return finish(preset, few, Path(folder) / "run", progress=False)


Found = Mapping[tuple[str, int], Mapping[int, Run]]  # by (name, share) and seed


def by_name(runs: Sequence[Run]) -> Found:
    """The runs of each flow on each share, by seed."""
    found: dict[tuple[str, int], dict[int, Run]] = {}
    for run in runs:
        found.setdefault((run["name"], run["share"]), {})[run["seed"]] = run
    return found


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """The comparison on all training images, and how it depends on their share if others were asked for."""
    shares = sorted({run["share"] for run in runs})
    text = twin_table(runs)
    return f"{text}\n\n{data_table(runs, shares)}" if len(shares) > 1 else text


def twin_table(runs: Sequence[Run], *, share: int = 100) -> str:
    """Each flow beside each of its twins."""
    head = ["flow", "beside", "parameters", "steps", "seconds", "bits/dim, group mean", "plain, augmented"]
    head += ["plain, symmetrized", "difference to augmented", "difference to symmetrized"]
    lines, found = [], by_name(runs)
    for family in FAMILIES:
        for group in ORDER:
            own = found.get((f"{family}-{group}", share), {})
            for label in ("plain", "large"):
                twin = found.get((f"{family}-{group}-{label}", share), {})
                seeds = sorted(set(own) & set(twin))
                if seeds:
                    lines.append(_line(f"{family}-{group}", label, [own[s] for s in seeds], [twin[s] for s in seeds]))
    return markdown(head, lines, left=range(len(head)))


def _line(name: str, label: str, own: Sequence[Run], twin: Sequence[Run]) -> list[str]:
    ours = [run["group_bits_per_dim"] for run in own]
    columns = [[run[key] for run in twin] for key in ("group_bits_per_dim", "symmetrized_bits_per_dim")]
    differences = [paired([b - a for a, b in zip(ours, column, strict=True)]) for column in columns]
    pairs = [f"{own[0][key]} ({twin[0][key]})" for key in ("parameters", "steps")]
    spent, twins = (statistics.median(run["seconds"] for run in side) for side in (own, twin))
    means = [f"{statistics.mean(values):.4f}" for values in (ours, *columns)]
    return [f"{name}, {len(own)} seeds", label, *pairs, f"{spent:.0f} ({twins:.0f})", *means, *differences]


def paired(differences: Sequence[float]) -> str:
    """Mean and standard error of what the plain flow costs more."""
    mean, error = mean_and_error(differences)
    if len(differences) < 2:
        return f"{mean:+.4f}"
    return f"{mean:+.4f} +- {error:.4f} ({mean / error:.1f} SE)"


def data_table(runs: Sequence[Run], shares: Sequence[int]) -> str:
    """Bits/dim by the share of the training images: mean over seeds, twins as they are and symmetrized."""
    lines = [
        [name, *(_with_error(curve[share]) if share in curve else "-" for share in shares)]
        for name, curve in _curves(runs, shares).items()
    ]
    return markdown(["flow", *(f"{share} %" for share in shares)], lines, left=range(len(shares) + 1))


def _with_error(values: Sequence[float]) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.4f} +- {error:.4f}" if len(values) > 1 else f"{mean:.4f}"  # one seed has no spread


def _curves(runs: Sequence[Run], shares: Sequence[int]) -> dict[str, dict[int, list[float]]]:
    """For each flow that has several shares: the values of all seeds, by share."""
    found, curves = by_name(runs), {}
    for name in dict.fromkeys(run["name"] for run in runs):
        for key, suffix in (("group_bits_per_dim", ""), ("symmetrized_bits_per_dim", ", symmetrized")):
            if suffix and name.count("-") < 2:
                continue  # an invariant flow is its own symmetrization
            values = {share: [run[key] for run in found.get((name, share), {}).values()] for share in shares}
            curve = {share: own for share, own in values.items() if own}
            if len(curve) > 1:
                curves[name + suffix] = curve
    return curves


def draw(runs: Sequence[Run], folder: Path) -> None:
    """The figure of data efficiency, once there are several shares: a panel for each family."""
    shares = sorted({run["share"] for run in runs})
    curves = _curves(runs, shares)
    families = [family for family in FAMILIES if any(name.startswith(family) for name in curves)]
    if not families:
        return
    figure, axes = plots.new_figure(len(families), size=5.0)
    for panel, family in zip(axes[0], families, strict=True):
        for name, curve in curves.items():
            if name.startswith(family):
                style = "-" if name.count("-") < 2 else ":" if name.endswith("symmetrized") else "--"
                means = [statistics.mean(values) for values in curve.values()]
                errors = [mean_and_error(values)[1] if len(values) > 1 else 0.0 for values in curve.values()]
                panel.errorbar(list(curve), means, errors, linestyle=style, marker=".", label=name)
        panel.set(xlabel="training images (%)", ylabel="test bits/dim, group mean", xscale="log", title=family)
        panel.set_xticks(list(shares), [str(share) for share in shares])
        panel.legend(fontsize="small")
    plots.save_figure(figure, folder / "digits_data.png")


def more_options(parser: argparse.ArgumentParser) -> None:
    """How much of the data."""
    parser.add_argument(
        "--shares",
        type=int,
        nargs="+",
        default=[100],
        metavar="P",
        help="percent of the training images (default: 100)",
    )


PRESETS = [preset for family in FAMILIES for preset in presets(family)]


def choose(options: argparse.Namespace) -> list[Row]:
    """All flows on these shares."""
    return [Row(preset, share) for share in sorted(options.shares, reverse=True) for preset in PRESETS]


BENCHMARK = Benchmark(
    "digits",
    __doc__,
    [Row(preset) for preset in PRESETS],
    run,
    table,
    seeds=Seeds(5),
    more_options=more_options,
    choose=choose,
    after=draw,
)

if __name__ == "__main__":
    main(BENCHMARK)
