"""Digits: equivariant flows beside the same code with the trivial group, at several prices.

    python -m benchmarks.digits --seeds 5 --workers 2              # results/digits.md, from results/digits.jsonl
    python -m benchmarks.digits --seeds 3 --shares 10 25 50 100    # and the figure results/digits_data.png

Each flow under G in {C4, D4} meets two plain twins (C1), shown a random element of G with every image:

- "plain": as many parameters (within 6 %) and both at least as many steps and at least as much time;
- "large": |G| times the parameters, as many steps.

All are scored on the test images in every pose of G; the twins also symmetrized at test time, -log mean_g p(g x). A row
is the paired difference over seeds with its standard error. Validation images, in every pose, choose the weights that
are kept. A finished fit is one line of ``benchmarks/results/digits.jsonl``; a killed one goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pyro_gflows import ImageAction, plots
from pyro_gflows.datasets import DataSet, load_data
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.experiments.runs import finish
from pyro_gflows.training import Adam, FitSettings, OneCycle, Validation

RESULTS = Path(__file__).parent / "results"
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


def presets(family: str, *, steps: int | None = None) -> list[Preset]:
    """The equivariant flows of a family and their twins."""
    chosen = FAMILIES[family]
    settings = chosen.settings if steps is None else dataclasses.replace(chosen.settings, steps=steps)
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


def fit_one(preset: Preset, seed: int, share: int) -> dict[str, Any]:
    """Train and measure one flow; its row."""
    torch.set_num_threads(1)
    data = part(share, preset.augment, seed=seed)
    metrics = finish(preset.seeded(seed), data, RUNS / f"{preset.name}-{share}-{seed}", progress=False)
    return {"name": preset.name, "seed": seed, "share": share, **metrics}


Rows = Mapping[tuple[str, int], Mapping[int, Mapping[str, Any]]]  # by (name, share) and seed


def by_name(rows: Sequence[Mapping[str, Any]]) -> Rows:
    found: dict[tuple[str, int], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["name"], row["share"]), {})[row["seed"]] = row
    return found


def table(rows: Sequence[Mapping[str, Any]], *, share: int = 100) -> str:
    """The comparison, as Markdown."""
    lines = [
        "| flow | beside | parameters | steps | seconds | bits/dim, group mean | plain, augmented | "
        "plain, symmetrized | difference to augmented | difference to symmetrized |",
        "| --- " * 10 + "|",
    ]
    found = by_name(rows)
    for family in FAMILIES:
        for group in ORDER:
            own = found.get((f"{family}-{group}", share), {})
            for label in ("plain", "large"):
                twin = found.get((f"{family}-{group}-{label}", share), {})
                seeds = sorted(set(own) & set(twin))
                if seeds:
                    lines.append(_line(f"{family}-{group}", label, [own[s] for s in seeds], [twin[s] for s in seeds]))
    return "\n".join(lines)


def _line(name: str, label: str, own: Sequence[Mapping[str, Any]], twin: Sequence[Mapping[str, Any]]) -> str:
    ours = [row["group_bits_per_dim"] for row in own]
    columns = [[row[key] for row in twin] for key in ("group_bits_per_dim", "symmetrized_bits_per_dim")]
    differences = [paired([b - a for a, b in zip(ours, column, strict=True)]) for column in columns]
    pairs = [f"{own[0][key]} ({twin[0][key]})" for key in ("parameters", "steps")]
    spent = " ({:.0f})".join(["{:.0f}", ""]).format(
        *(statistics.median(r["seconds"] for r in side) for side in (own, twin))
    )
    means = [f"{statistics.mean(values):.4f}" for values in (ours, *columns)]
    return "| " + " | ".join([f"{name}, {len(own)} seeds", label, *pairs, spent, *means, *differences]) + " |"


def paired(differences: Sequence[float]) -> str:
    """Mean and standard error of what the plain flow costs more."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.4f}"
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{mean:+.4f} +- {error:.4f} ({mean / error:.1f} SE)"


def data_table(rows: Sequence[Mapping[str, Any]], shares: Sequence[int]) -> str:
    """Bits/dim by the share of the training images: mean over seeds, twins as they are and symmetrized."""
    lines = ["| flow | " + " | ".join(f"{share} %" for share in shares) + " |", "| --- " * (len(shares) + 1) + "|"]
    for name, curve in _curves(rows, shares).items():
        cells = [_mean_and_error(*curve[share]) if share in curve else "-" for share in shares]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def _mean_and_error(mean: float, error: float) -> str:
    return f"{mean:.4f} +- {error:.4f}" if error else f"{mean:.4f}"  # one seed has no spread


def _curves(rows: Sequence[Mapping[str, Any]], shares: Sequence[int]) -> dict[str, dict[int, tuple[float, float]]]:
    """For each flow, by share: mean and standard error over the seeds that every share has."""
    found, curves = by_name(rows), {}
    for name in dict.fromkeys(row["name"] for row in rows):
        for key, suffix in (("group_bits_per_dim", ""), ("symmetrized_bits_per_dim", ", symmetrized")):
            if suffix and name.count("-") < 2:
                continue  # an invariant flow is its own symmetrization
            curve = {}
            for share in shares:
                values = [row[key] for row in found.get((name, share), {}).values()]
                if values:
                    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
                    curve[share] = (statistics.mean(values), spread)
            if len(curve) > 1:
                curves[name + suffix] = curve
    return curves


def draw(rows: Sequence[Mapping[str, Any]], shares: Sequence[int], path: Path) -> None:
    """The figure of data efficiency: a panel for each family."""
    curves = _curves(rows, shares)
    families = [family for family in FAMILIES if any(name.startswith(family) for name in curves)]
    figure, axes = plots.new_figure(len(families), size=5.0)
    for panel, family in zip(axes[0], families, strict=True):
        for name, curve in curves.items():
            if name.startswith(family):
                style = "-" if name.count("-") < 2 else ":" if name.endswith("symmetrized") else "--"
                means, errors = zip(*curve.values(), strict=True)
                panel.errorbar(list(curve), means, errors, linestyle=style, marker=".", label=name)
        panel.set(xlabel="training images (%)", ylabel="test bits/dim, group mean", xscale="log", title=family)
        panel.set_xticks(list(shares), [str(share) for share in shares])
        panel.legend(fontsize="small")
    plots.save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="in place of each family's own")
    parser.add_argument("--shares", type=int, nargs="+", default=[100], help="percent of the training images")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="run only presets whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS / "digits.jsonl")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(row["name"], row["seed"], row["share"]) for row in rows}
    todo = [
        (preset, seed, share)
        for share in sorted(arguments.shares, reverse=True)
        for seed in range(arguments.seeds)
        for family in FAMILIES
        for preset in presets(family, steps=arguments.steps)
        if arguments.only in preset.name and (preset.name, seed, share) not in done
    ]
    # fresh interpreters: a fork of a process with torch's thread pools can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool, arguments.out.open("a") as file:
        for future in [pool.submit(fit_one, *item) for item in todo]:
            row = future.result()
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(
                f"{row['name']} {row['share']} % seed {row['seed']}: {row['group_bits_per_dim']:.4f} bits/dim",
                flush=True,
            )
    text = table(rows)
    shares = sorted({row["share"] for row in rows})
    if len(shares) > 1:
        text += "\n\n" + data_table(rows, shares)
        draw(rows, shares, arguments.out.with_name("digits_data.png"))
    print(text)
    arguments.out.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
