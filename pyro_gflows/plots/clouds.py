"""Pictures of sets of points of the plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.plots.figures import new_figure, save_figure

__all__ = ["draw_clouds", "plot_clouds"]


def draw_clouds(
    axes: Any, clouds: Tensor, *, size: tuple[float, float] = (28.0, 28.0), title: str = "", columns: int = 8
) -> None:
    """Draw sets of points side by side, each in a frame of its own, in existing axes.

    Args:
        axes: Matplotlib axes.
        clouds: Points (x, y), with y downwards as the rows of an image, shape ``(n, points, 2)``.
        size: Width and height of the rectangle of one set, such as the columns and rows of the image that
            :func:`~pyro_gflows.datasets.point_clouds` draws from. Points outside are not drawn.
        title: The title of the picture.
        columns: The number of sets side by side.

    Raises:
        ValueError: The points have another shape.

    Example:
        >>> figure, axes = new_figure(1)
        >>> draw_clouds(axes[0, 0], 28 * torch.rand(16, 50, 2), title="noise")
        >>> axes[0, 0].get_lines()[0].get_xydata().shape  # 16 sets of 50 points
        (800, 2)
    """
    if clouds.ndim != 3 or clouds.shape[-1] != 2:
        raise ValueError(f"expected sets of points of the plane, of shape (n, points, 2), got {tuple(clouds.shape)}")
    points = clouds.detach().double().cpu()
    ends = torch.tensor(size, dtype=points.dtype)
    inside = ((points >= 0) & (points <= ends)).all(-1)
    index = torch.arange(len(points))
    corners = torch.stack([index % columns, index // columns], -1) * ends
    drawn = (points + corners[:, None])[inside]
    axes.plot(drawn[:, 0].numpy(), drawn[:, 1].numpy(), ".", markersize=1.5)
    rows = -(-len(points) // columns)
    for count, side, line in ((columns, 0, axes.axvline), (rows, 1, axes.axhline)):
        for place in range(count + 1):
            line(place * size[side], color="0.85", linewidth=0.8)
    axes.set(xlim=(0, columns * size[0]), ylim=(rows * size[1], 0), aspect="equal", title=title)
    axes.set_axis_off()


def plot_clouds(
    samples: Tensor, data: Tensor, path: str | Path, *, size: tuple[float, float] = (28.0, 28.0), columns: int = 8
) -> None:
    """Write a picture of sets of points that a flow has drawn beside sets of data.

    Args:
        samples: Sets of the flow, shape ``(n, points, 2)``; the first ``columns**2`` are drawn.
        data: Sets of test data, as many at most.
        path: The file of the picture.
        size: Width and height of the rectangle of one set.
        columns: The number of sets side by side.

    Raises:
        ValueError: The points have another shape.
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> clouds = 28 * torch.rand(16, 50, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_clouds(clouds, clouds, Path(folder) / "clouds.png", columns=4)
    """
    figure, axes = new_figure(2)
    titles = ("samples of the flow", "test data")
    for panel, clouds, title in zip(axes[0], (samples, data), titles, strict=True):
        draw_clouds(panel, clouds[: columns**2], size=size, title=title, columns=columns)
    save_figure(figure, path)
