"""What the experiments share: their arguments, fits that are taken up where they stopped, and their files."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from settings import SETTINGS, Setting

from pyro_gflows.datasets import DataSet, load_data
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.experiments.runs import finish

__all__ = ["Job", "arguments", "bits", "finished", "image_data", "markdown"]


@dataclass(frozen=True)
class Job:
    """What one experiment was asked for.

    Attributes:
        setting: Its size.
        folder: Where everything is written; a killed experiment goes on from it.
        images: The user's folder of image files, or None.
        seeds: Seeds 0, 1, ... of every row.
        device: Where to train.
    """

    setting: Setting
    folder: Path
    images: str | None
    seeds: int
    device: str


def arguments(description: str, name: str) -> Job:
    """Read the command line of an experiment."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="small", help="how large; small runs on a CPU")
    parser.add_argument("--images", metavar="FOLDER", help="where MNIST and CIFAR-10 lie (default: download)")
    parser.add_argument("--out", type=Path, help="folder of models, JSON and figures; a killed run goes on from it")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of every row")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="threads of torch (on a CPU, other numbers round otherwise)")
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    folder = given.out or Path("runs") / "paper" / f"{name}-{given.setting}"
    return Job(SETTINGS[given.setting], folder, given.images, given.seeds, given.device)


def image_data(job: Job, name: str, *, seed: int) -> DataSet:
    """A data set with as many test images as the setting scores."""
    data, kept = load_data(name, seed=seed, folder=job.images), job.setting.test_images
    return data if kept is None else dataclasses.replace(data, test=data.test[:kept])


def finished(job: Job, preset: Preset, data: DataSet, *, seed: int) -> dict[str, Any]:
    """The metrics of one fit, trained now as far as it is not yet."""
    folder = job.folder / f"{data.name}-{preset.name}-{seed}"
    print(f"{data.name}, {preset.name}, seed {seed}: {preset.settings.steps} steps, {folder}", flush=True)
    metrics = finish(preset.seeded(seed), data, folder, device=job.device)
    print(f"  {bits(metrics):.4f} bits/dim (group mean), {metrics['parameters']} parameters", flush=True)
    return {**metrics, "folder": str(folder)}


def bits(metrics: dict[str, Any]) -> float:
    """Test bits/dim averaged over the group; under the trivial group, of the images as they are."""
    return float(metrics.get("group_bits_per_dim", metrics["bits_per_dim"]))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
