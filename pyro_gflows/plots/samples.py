"""Pictures of samples: grids of images, points of the plane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_gflows.plots.figures import new_figure, save_figure

if TYPE_CHECKING:
    from pyro_gflows.datasets import GrayLevels

__all__ = ["draw_images", "plot_samples"]


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


def plot_samples(samples: Tensor, data: Tensor, path: str | Path, *, scaling: GrayLevels | None = None) -> None:
    """Write samples beside data: grids of images, or the first two coordinates of vectors.

    Args:
        samples: From the flow, shape (n,) + event_shape.
        data: Held-out events of the same event shape.
        path: The picture's file.
        scaling: Turns images back into gray values; None stretches them to their range.
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
