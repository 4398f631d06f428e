"""Table 1 of the paper: residual flows with the symmetry beside plain ones, in bits per dimension.

    python tutorials/paper/table1.py                                        # digits, minutes on two cores
    python tutorials/paper/table1.py --setting shortened --images FOLDER    # MNIST and CIFAR-10 subsets, CPU
    python tutorials/paper/table1.py --setting full --images FOLDER         # the full sets, GPU

Plain flows (the same constructor under the trivial group) see a random group element of every image. The same command
goes on after a kill. Writes table1.json, table1.md and samples.
"""

from __future__ import annotations

from typing import Any

from common import Job, arguments, bits, finished, image_data, markdown

from pyro_gflows.experiments.presets import Preset
from pyro_gflows.serialization.files import write_json


def presets(job: Job) -> list[Preset]:
    """Each flow of the table, and a plain twin for each group; residual first."""
    setting, found = job.setting, []
    for family, size, settings in (
        ("residual", setting.residual, setting.train_residual),
        ("coupling", setting.coupling, setting.train_coupling),
    ):
        for group in setting.groups:
            for own, label in ((group, group), ("C1", f"plain-{group}")):
                name = f"{family}-{label}"
                found.append(
                    Preset(name, "", own, f"image-{family}", size, settings, augment=group, logit=job.setting.logit)
                )
    return found


def row(metrics: dict[str, Any]) -> list[str]:
    group = metrics["group"] if metrics["group"] != "C1" else f"none (augmented by {metrics['augment']})"
    return [
        metrics["data"],
        metrics["flow"].removeprefix("image-"),
        group,
        str(metrics["seed"]),
        f"{metrics['parameters']:,}",
        f"{metrics['seconds'] / metrics['steps']:.3f}",
        f"{bits(metrics):.4f}",
        f"{metrics['symmetrized_bits_per_dim']:.4f}",
        f"{metrics['invariance_error']:.1e}",
    ]


COLUMNS = [
    "data",
    "flow",
    "group",
    "seed",
    "parameters",
    "seconds a step",
    "bits/dim, group mean",
    "bits/dim, symmetrized",
    "invariance error (float64)",
]


def main() -> None:
    job = arguments(__doc__ or "", "table1")
    rows = []
    for name in job.setting.data:
        for seed in range(job.seeds):
            data = image_data(job, name, seed=seed)
            rows += [finished(job, preset, data, seed=seed) for preset in presets(job)]
    table = markdown(COLUMNS, [row(metrics) for metrics in rows])
    write_json(job.folder / "table1.json", {"setting": job.setting.note, "rows": rows})
    (job.folder / "table1.md").write_text(f"{job.setting.note}\n\n{table}\n", encoding="utf-8")
    print(f"\n{job.setting.note}\n{table}\n\nwritten to {job.folder}")


if __name__ == "__main__":
    main()
