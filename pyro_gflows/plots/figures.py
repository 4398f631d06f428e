"""Figures of matplotlib without pyplot, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["draw_disks", "ends_of", "new_figure", "save_figure"]


def new_figure(columns: int, *, rows: int = 1, size: float = 4.0) -> tuple[Any, Any]:
    """Return a new figure and its array of axes, shape (rows, columns), without pyplot and its global state.

    Args:
        columns: The number of columns of axes.
        rows: The number of rows of axes.
        size: The side of each of the axes in inches.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> figure, axes = new_figure(3, rows=2)
        >>> axes.shape
        (2, 3)
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
    """Write a figure to a file, with nothing cut off at the margins.

    Args:
        figure: A figure of matplotlib.
        path: The file of the picture; its ending is the format (``.png``, ``.pdf``, ...).

    Example:
        >>> import tempfile
        >>> figure, axes = new_figure(1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_figure(figure, Path(folder) / "empty.png")
    """
    figure.savefig(path, dpi=110, bbox_inches="tight")


def draw_disks(axes: Any, centers: Tensor, *, radius: float, colors: Tensor) -> None:
    """Draw disks in existing axes, later ones in front of earlier ones.

    Args:
        axes: Matplotlib axes.
        centers: Their centers, shape (n, 2).
        radius: The radius of all disks, in the units of the axes.
        colors: Red, green and blue of each, in [0, 1], shape (n, 3).

    Example:
        >>> import torch
        >>> figure, axes = new_figure(1)
        >>> draw_disks(axes[0, 0], torch.rand(5, 2), radius=0.1, colors=torch.rand(5, 3))
        >>> len(axes[0, 0].collections[0].get_offsets())
        5
    """
    from matplotlib.collections import EllipseCollection  # an optional dependency: the extra "plots"

    diameters = [2 * radius] * len(centers)
    disks = EllipseCollection(
        diameters,
        diameters,
        [0.0] * len(centers),
        units="xy",
        offsets=centers.detach().cpu().numpy(),
        offset_transform=axes.transData,
        facecolors=colors.detach().cpu().numpy(),
        edgecolors="0.3",
        linewidths=0.4,
    )
    axes.add_collection(disks)


def ends_of(reach: float | tuple[float, float]) -> tuple[float, float]:
    """Return the ends of an axis that is given by half its length about 0, or by its ends.

    Args:
        reach: Half the length, or the two ends.
    """
    return reach if isinstance(reach, tuple) else (-reach, reach)
