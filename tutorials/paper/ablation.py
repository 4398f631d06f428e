"""The paper's ablation: coupling flows over many groups, group-averaged test bits/dim against epochs.

    python tutorials/paper/ablation.py                                      # digits, a quarter of an hour on one core
    python tutorials/paper/ablation.py --setting full --images FOLDER       # Rotation MNIST, GPU

C1, C2, C4, D1, D2 and D4 move a pixel grid exactly, so those flows are exactly invariant. Of the other groups the
layers carry the exact subgroup (C4 of C8, D4 of O(2), ...) and only the networks carry the group itself (``g_soft_coupling_image_flow``):
how far such a flow is from invariant is measured, by turns of 45 degrees, and so is the plain flow. All flows have about
as many hidden channels, so that a step costs about the same, and see every image in a random pose of C4 (D4).
The curves are test figures and choose nothing. Writes ablation.json, ablation.md and ablation.png.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from common import Job, arguments, finished, image_data, markdown

from pyro_gflows import ImageAction, OffGridAction, plots
from pyro_gflows.datasets import DataSet
from pyro_gflows.evaluation import log_probs
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.families import build_action
from pyro_gflows.serialization import load
from pyro_gflows.serialization.files import write_json

TURNS = {"C1": 1, "C2": 2, "C4": 4, "C8": 8, "C12": 12, "C16": 16, "SO(2)": 16}
MIRRORED = {"C1": 1, "D1": 2, "D2": 4, "D4": 8, "D8": 16, "D12": 24, "D16": 32, "O(2)": 32}
PANELS = {"C4": TURNS, "D4": MIRRORED}  # the group over which bits/dim are averaged: groups and channels of a field


def preset(job: Job, data: DataSet, group: str, channels: int, *, average: str) -> Preset:
    """The flow of one group, with about as many hidden channels as C4 has in this setting."""
    size: dict[str, Any] = {
        **job.setting.coupling,
        "width": max(1, round(4 * job.setting.coupling["width"] / channels)),
    }
    if isinstance(build_action(group, data.event_shape), OffGridAction):
        size["soft"] = True
    name = f"coupling-{group}" if group != "C1" else f"coupling-C1-{average}"
    return Preset(
        name, "", group, "image-coupling", size, job.setting.train_coupling, augment=average, logit=job.setting.logit
    )


def in_every_pose(data: DataSet, group: str) -> DataSet:
    """The data with the test images in every pose of the group as held-out data: their NLL is the group average's."""
    poses = ImageAction(group, data.event_shape[0], size=data.event_shape[1:]).act_all(data.test)
    return dataclasses.replace(data, validation=poses.flatten(0, 1))


def measured(job: Job, group: str, channels: int, *, average: str, seed: int) -> dict[str, Any]:
    """Figures and curve of one flow."""
    plain = image_data(job, job.setting.data[0], seed=seed)
    data = in_every_pose(plain, average)
    metrics = finished(job, preset(job, data, group, channels, average=average), data, seed=seed)
    flow = load(metrics["folder"]).double()
    epoch = metrics["batch_size"] / len(data.train)
    curve = [(step * epoch, bits_of(data, nll)) for step, nll in metrics["validation_curve"]]
    exact = str(flow.action.group)
    return {
        **metrics,
        "average": average,
        "curve": curve,
        "exact_group": exact,
        "error_of_eighth_turns": eighth_turns(flow, data),
    }


def eighth_turns(flow: EquivariantFlow, data: DataSet) -> float:
    """Mean of |log p(g x) - log p(x)| / |log p(x)| over the turns g by 45, 135, 225 and 315 degrees.

    The levels are turned, bilinearly on black, and then made real without noise: noise would not turn with them.
    """
    assert data.scaling is not None
    action = OffGridAction("C8", data.event_shape[0], size=data.event_shape[1:])
    levels = data.scaling.quantize(data.test[:64]).double()
    here = log_probs(flow, data.scaling.to_real(levels + 0.5))
    turned = torch.stack([action.act(torch.tensor(element), levels) for element in (1, 3, 5, 7)])
    there = torch.stack([log_probs(flow, data.scaling.to_real(images + 0.5)) for images in turned])
    return float(((there - here).abs() / here.abs()).mean())


def bits_of(data: DataSet, nll: float) -> float:
    """Bits per dimension of a mean NLL in nats."""
    assert data.scaling is not None
    return data.scaling.bits_per_dim(nll, pixels=data.event_shape.numel())


def draw(rows: list[dict[str, Any]], path: Path, *, note: str) -> None:
    """Curves of seed 0, one panel for turns and one for turns and reflections."""
    panels = list(dict.fromkeys(row["average"] for row in rows))
    figure, axes = plots.new_figure(len(panels), size=5.0)
    for panel, average in zip(axes[0], panels, strict=True):
        for row in rows:
            if row["average"] == average and row["seed"] == 0:
                style = "--" if row["group"] == "C1" else "-" if row["exact_group"] == row["group"] else ":"
                panel.plot(*zip(*row["curve"], strict=True), style, label=row["group"])
        panel.set(xlabel="epoch", ylabel=f"test bits/dim, mean over {average}")
        panel.set_title("dashed: plain; dotted: the group in the networks alone", fontsize="small")
        panel.legend()
    figure.suptitle(f"Coupling flows: {note}")
    plots.save_figure(figure, path)


COLUMNS = [
    "group",
    "exact",
    "seed",
    "parameters",
    "seconds a step",
    "bits/dim, mean over C4 (D4)",
    "error of turns by 45 degrees (mean)",
]


def main() -> None:
    job = arguments(__doc__ or "", "ablation")
    rows = [
        measured(job, group, channels, average=average, seed=seed)
        for seed in range(job.seeds)
        for average, groups in PANELS.items()
        for group, channels in groups.items()
        if job.setting.compared is None or group in job.setting.compared
    ]
    table = markdown(COLUMNS, [cells(row) for row in rows])
    write_json(job.folder / "ablation.json", {"setting": job.setting.note, "rows": rows})
    (job.folder / "ablation.md").write_text(f"{job.setting.note}\n\n{table}\n", encoding="utf-8")
    draw(rows, job.folder / "ablation.png", note=job.setting.note)
    print(f"\n{job.setting.note}\n{table}\n\nwritten to {job.folder}")


def cells(row: dict[str, Any]) -> list[str]:
    return [
        row["group"] if row["group"] != "C1" else f"none (augmented by {row['augment']})",
        row["exact_group"],
        str(row["seed"]),
        f"{row['parameters']:,}",
        f"{row['seconds'] / row['steps']:.3f}",
        f"{row['curve'][-1][1]:.4f}",
        f"{row['error_of_eighth_turns']:.1e}",
    ]


if __name__ == "__main__":
    main()
