"""Samples of residual flows under rotations, rotation-reflections and translations, and their latent rotations.

    python tutorials/paper/samples.py                                       # digits, minutes on two cores
    python tutorials/paper/samples.py --setting full --images FOLDER        # GPU

Each flow is trained on images moved by random elements of its group. For each it writes samples beside data, and a strip
in which latent vectors are moved by the group: T(g z) = g T(z), so the samples move along.
"""

from __future__ import annotations

from typing import Any

from common import Job, arguments, bits, finished, image_data

from pyro_gflows import plots
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.experiments.runs import draw
from pyro_gflows.serialization import load
from pyro_gflows.serialization.files import write_json

GROUPS = {"rotations": "C4", "rotation-reflections": "D4", "translations": "translations"}


def sampled(job: Job, title: str, group: str) -> dict[str, Any]:
    """Fit one flow and draw from it."""
    name = job.setting.data[0]
    data = image_data(job, name, seed=0)
    size = dict(job.setting.residual)
    if group == "translations":
        # squeezing a periodic grid would halve the group; one scale, with as many blocks in all, keeps every shift
        size["blocks"] *= 2 * size.pop("scales", 1) - 1
    preset = Preset(
        f"samples-{title}",
        "",
        group,
        "image-residual",
        size,
        job.setting.train_residual,
        augment=group,
        logit=job.setting.logit,
    )
    metrics = finished(job, preset, data, seed=0)
    flow = load(metrics["folder"])
    moved = flow.action.act_each(flow.action.sample((len(data.test),)), data.test)
    plots.plot_samples(draw(flow, 64), moved, job.folder / f"samples-{title}.png", scaling=data.scaling)
    plots.plot_latent_rotations(flow, job.folder / f"latent-{title}.png", scaling=data.scaling)
    return {**metrics, "title": title}


def main() -> None:
    job = arguments(__doc__ or "", "samples")
    rows = [sampled(job, title, group) for title, group in GROUPS.items()]
    write_json(job.folder / "samples.json", {"setting": job.setting.note, "rows": rows})
    for row in rows:
        print(f"{row['title']}: {bits(row):.4f} bits/dim, invariance error {row['invariance_error']:.1e}")
    print(f"written to {job.folder}")


if __name__ == "__main__":
    main()
