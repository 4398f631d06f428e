"""Pictures of Moser's flow on two angles: its vector field, and how its error depends on the grid and the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pyro_gflows.numerics import periodic_grid
from pyro_gflows.plots.densities import draw_density
from pyro_gflows.plots.figures import new_figure, save_figure
from pyro_gflows.transforms import GMoser

__all__ = ["draw_velocity", "plot_moser", "plot_moser_errors"]


def draw_velocity(axes: Any, transform: GMoser, t: float, *, arrows: int = 20, title: str = "") -> None:
    """Draw the density (1 - t) p + t q of two angles at a time t, with the velocity of its points as arrows.

    Args:
        axes: Matplotlib axes.
        transform: Moser's flow of two angles.
        t: The time, between 0 and 1.
        arrows: The number of arrows along each axis.
        title: The title of the picture.

    Raises:
        ValueError: The flow is of another number of angles.

    Example:
        >>> from pyro_gflows.actions import TorusAction
        >>> from pyro_gflows.transforms import moser
        >>> uniform = lambda x: -2 * math.log(2 * math.pi) + 0 * x[..., 0]
        >>> bumps = lambda x: (1 + 0.5 * x.cos().prod(-1)).log() - 2 * math.log(2 * math.pi)
        >>> figure, axes = new_figure(1)
        >>> draw_velocity(axes[0, 0], moser(uniform, bumps, TorusAction.point_group("D4")), 0.5, title="t = 0.5")
        >>> axes[0, 0].get_title()
        't = 0.5'
    """
    if transform.action_in.numel != 2:
        raise ValueError(f"expected a flow of two angles, got one of {transform.action_in.numel}")

    def log_density(x: torch.Tensor) -> torch.Tensor:
        return ((1 - t) * transform.p(x).exp() + t * transform.q(x).exp()).log()

    draw_density(axes, log_density, reach=(0.0, 2 * math.pi), title=title)
    points = periodic_grid(arrows, 2).reshape(-1, 2).to(transform.potential.value) + math.pi / arrows
    with torch.no_grad():
        velocity = transform.velocity(t, points)
    x, v = points.cpu().numpy(), velocity.cpu().numpy()
    axes.quiver(x[:, 0], x[:, 1], v[:, 0], v[:, 1], color="white", pivot="mid", width=0.004)


def plot_moser(transform: GMoser, path: str | Path, *, times: Sequence[float] = (0.0, 0.5, 1.0)) -> None:
    """Write a picture of the vector field of Moser's flow of two angles, at some times side by side.

    Args:
        transform: Moser's flow of two angles.
        path: The file of the picture; its ending is the format (``.png``, ``.pdf``, ...).
        times: The times, between 0 and 1.

    Raises:
        ValueError: The flow is of another number of angles.
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> from pyro_gflows.actions import TorusAction
        >>> from pyro_gflows.transforms import moser
        >>> uniform = lambda x: -2 * math.log(2 * math.pi) + 0 * x[..., 0]
        >>> bumps = lambda x: (1 + 0.5 * x.cos().prod(-1)).log() - 2 * math.log(2 * math.pi)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_moser(moser(uniform, bumps, TorusAction.point_group("D4")), Path(folder) / "field.png")
    """
    figure, axes = new_figure(len(times))
    for place, t in zip(axes[0], times, strict=True):
        draw_velocity(place, transform, t, title=f"t = {t:g}")
    save_figure(figure, path)


def plot_moser_errors(grids: dict[int, float], steps: dict[int, float], path: str | Path) -> None:
    """Write a picture of errors of Moser's flow over the grid and over the steps, on logarithmic axes.

    Args:
        grids: The error for each number of grid points along an axis.
        steps: The error for each number of steps; a line of slope -4 is drawn beside it.
        path: The file of the picture.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_moser_errors({8: 1e-2, 16: 1e-6}, {8: 1e-3, 16: 6e-5}, Path(folder) / "errors.png")
    """
    figure, axes = new_figure(2)
    left, right = axes[0]
    left.semilogy(list(grids), list(grids.values()), "o-")
    left.set_xlabel("points of the grid along each axis")
    left.set_ylabel("largest error of the density")
    right.loglog(list(steps), list(steps.values()), "o-", label="error")
    last, error = list(steps.items())[-1]
    right.loglog(list(steps), [error * (last / n) ** 4 for n in steps], "--", label="order 4")
    right.set_xlabel("steps")
    right.legend()
    save_figure(figure, path)
