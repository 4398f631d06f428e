"""Pictures of samples: grids of images, or points of the plane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_gflows.plots.figures import ends_of, new_figure, save_figure

if TYPE_CHECKING:
    from pyro_gflows.datasets import GrayLevels

__all__ = ["draw_images", "plot_samples"]


def draw_images(axes: Any, images: Tensor, *, title: str = "", columns: int = 8) -> None:
    """Draw images as one grid, in existing axes.

    Args:
        axes: Matplotlib axes.
        images: Values in [0, 1], shape (n, C, H, W). Three channels are red, green and blue; otherwise the first
            channel is drawn in gray.
        title: The title of the picture.
        columns: The number of columns of the grid.

    Raises:
        ValueError: If the images are whole levels.

    Example:
        >>> figure, axes = new_figure(1)
        >>> draw_images(axes[0, 0], torch.rand(16, 1, 8, 8), title="noise")
        >>> axes[0, 0].get_images()[0].get_array().shape  # two rows of eight images, with gaps
        (18, 72)
    """
    if not images.is_floating_point():
        raise ValueError(
            f"expected images with values in [0, 1], got whole levels of {images.dtype}; pass the scaled images, "
            "scaling.to_unit(scaling.dequantize(levels))"
        )
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    grid = torch.ones(rows * columns, channels, height + 1, width + 1)
    grid[:n, :, :height, :width] = images.detach().float().cpu().clamp(0, 1)
    grid = grid.reshape(rows, columns, channels, height + 1, width + 1)
    picture = grid.permute(0, 3, 1, 4, 2).reshape(rows * (height + 1), columns * (width + 1), channels)
    axes.imshow((picture if channels == 3 else picture[..., 0]).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title)
    axes.set_axis_off()


def plot_samples(
    samples: Tensor,
    data: Tensor,
    path: str | Path,
    *,
    scaling: GrayLevels | None = None,
    reach: float | tuple[float, float] | None = None,
) -> None:
    """Write a picture of samples beside test data: grids of images, or the first two coordinates of vectors.

    Args:
        samples: Samples of the flow, shape (n,) + event_shape.
        data: Test data, shape (m,) + event_shape.
        path: The file of the picture.
        scaling: The scaling of the gray levels of images, which maps them back to [0, 1]; None stretches the range of
            the data to [0, 1].
        reach: For vectors, half the side of the square that is shown, which has its center at the origin; or the two
            ends of its sides, such as (0, 2 pi) for angles. By default the square holds all data.

    Raises:
        ValueError: If samples or data are whole levels.
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> from pyro_gflows.targets import density
        >>> data = density("rings").sample(1000)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_samples(torch.randn(1000, 2), data, Path(folder) / "samples.png")
    """
    for name, x in (("samples", samples), ("data", data)):
        if not x.is_floating_point():
            raise ValueError(
                f"expected {name} of a floating dtype, got {x.dtype}; pass the scaled images, which "
                "scaling.dequantize(levels) gives, not whole levels"
            )
    figure, axes = new_figure(2)
    titles = ("samples of the flow", "test data")
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
            ends = ends_of(float(data.flatten(1)[:, :2].abs().max()) * 1.1 if reach is None else reach)
            panel.set(xlim=ends, ylim=ends, aspect="equal", title=title)
    save_figure(figure, path)
