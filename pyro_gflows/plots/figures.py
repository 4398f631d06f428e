"""The door to matplotlib: figures without pyplot, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["new_figure", "save_figure"]


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
