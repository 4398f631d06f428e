"""Pictures of log-densities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_gflows.evaluation.scores import log_probs
from pyro_gflows.plots.figures import new_figure, save_figure

if TYPE_CHECKING:
    from pyro_gflows.targets import Density

__all__ = ["draw_density", "plot_density", "plot_log_probs"]

_FLOOR = 12.0  # nats below the maximum at which the color scale of a log-density ends


def draw_density(axes: Any, log_density: Any, *, reach: float, title: str = "", points: int = 200) -> None:
    """Draw a log-density of the plane as an image.

    Args:
        axes: Matplotlib axes.
        log_density: Callable from points (n, 2) to log-densities (n,) in nats.
        reach: Half the side of the square that is shown.
        title: Above the picture.
        points: Pixels a side.
    """
    line = torch.linspace(-reach, reach, points)
    y, x = torch.meshgrid(line, line, indexing="ij")
    values = log_density(torch.stack([x, y], dim=-1).reshape(-1, 2)).reshape(points, points)
    top = float(values.max())
    axes.imshow(
        values.double().clamp(min=top - _FLOOR).cpu().numpy(),
        origin="lower",
        extent=(-reach, reach, -reach, reach),
        vmin=top - _FLOOR,
        vmax=top,
    )
    axes.set_title(title)


def plot_density(flow: nn.Module, path: str | Path, *, reach: float, target: Density | None = None) -> None:
    """Write the log-density of a flow on the plane, beside the true one where it is known."""
    like = next(flow.parameters())
    figure, axes = new_figure(1 if target is None else 2)
    draw_density(axes[0, 0], lambda x: log_probs(flow, x.to(like)), reach=reach, title="flow, log-density")
    if target is not None:
        draw_density(axes[0, 1], target.log_prob, reach=reach, title=f"{target.name}, log-density")
    save_figure(figure, path)


def plot_log_probs(model: Tensor, data: Tensor, path: str | Path) -> None:
    """Write histograms of log-densities: the flow's own samples beside held-out data. They agree for a good fit."""
    figure, axes = new_figure(1)
    for values, label in ((model, "flow's samples"), (data, "held-out data")):
        axes[0, 0].hist(values.detach().double().cpu().numpy(), bins=60, density=True, histtype="step", label=label)
    axes[0, 0].set_xlabel("log-density (nats)")
    axes[0, 0].legend()
    save_figure(figure, path)
