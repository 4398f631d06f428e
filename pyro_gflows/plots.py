"""Pictures of flows: densities, samples and losses, as files, with no global plotting state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_gflows.infer.evaluate import log_probs

if TYPE_CHECKING:
    from pyro_gflows.datasets import Density, GreyLevels

__all__ = [
    "draw_density",
    "draw_images",
    "new_figure",
    "plot_density",
    "plot_log_probs",
    "plot_loss",
    "plot_samples",
    "save_figure",
]

_FLOOR = 12.0  # nats below the maximum at which the colour scale of a log-density ends


def new_figure(columns: int, *, rows: int = 1, size: float = 4.0) -> tuple[Any, Any]:
    """A figure and its (rows, columns) array of axes, independent of pyplot.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # an optional dependency: the extra "plots"
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib, which is not installed: pip install 'pyro-gflows[plots]'"
        ) from error
    figure = Figure(figsize=(size * columns, size * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure, with nothing cut off."""
    figure.savefig(path, dpi=110, bbox_inches="tight")


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


def draw_images(axes: Any, images: Tensor, *, title: str = "", columns: int = 8) -> None:
    """Draw images (n, channels, h, w) with values in [0, 1] as one grid; more than three channels show the first."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    grid = torch.ones(rows * columns, channels, height + 1, width + 1)
    grid[:n, :, :height, :width] = images.detach().float().cpu().clamp(0, 1)
    grid = grid.reshape(rows, columns, channels, height + 1, width + 1)
    picture = grid.permute(0, 3, 1, 4, 2).reshape(rows * (height + 1), columns * (width + 1), channels)
    axes.imshow((picture if channels == 3 else picture[..., 0]).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title)
    axes.set_axis_off()


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


def plot_samples(samples: Tensor, data: Tensor, path: str | Path, *, scaling: GreyLevels | None = None) -> None:
    """Write samples beside data: grids of images, or the first two coordinates of vectors.

    Args:
        samples: From the flow, shape (n,) + event_shape.
        data: Held-out events of the same event shape.
        path: The picture's file.
        scaling: Turns images back into grey values; None stretches them to their range.
    """
    figure, axes = new_figure(2)
    titles = ("flow, samples", "held-out data")
    for panel, x, title in zip(axes[0], (samples, data), titles, strict=True):
        x = x.detach().cpu()
        if x.ndim == 4:
            low, high = data.min(), data.max()
            unit = (x - low) / (high - low) if scaling is None else scaling.to_unit(x)
            draw_images(panel, unit[:64], title=title)
        else:
            first = x.flatten(1)
            second = first[:, 1] if first.shape[1] > 1 else torch.zeros(len(first))
            panel.plot(first[:5000, 0].numpy(), second[:5000].numpy(), ".", markersize=1)
            reach = float(data.flatten(1)[:, :2].abs().max()) * 1.1
            panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title)
    save_figure(figure, path)


def plot_loss(
    train: Sequence[tuple[int, float]],
    held_out: Sequence[tuple[int, float]],
    path: str | Path,
    *,
    floor: float | None = None,
) -> None:
    """Write the training and held-out NLL over steps, with the exact floor where there is one."""
    figure, axes = new_figure(1)
    for curve, label in ((train, "training"), (held_out, "held-out")):
        if curve:
            axes[0, 0].plot(*zip(*curve, strict=True), label=label)
    if floor is not None:
        axes[0, 0].axhline(floor, linestyle="--", color="black", label="floor")
    axes[0, 0].set(xlabel="step", ylabel="NLL (nats)")
    axes[0, 0].legend()
    save_figure(figure, path)
