"""Pictures of log-densities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_gflows.evaluation.scores import log_probs
from pyro_gflows.plots.figures import ends_of, new_figure, save_figure

if TYPE_CHECKING:
    from pyro_gflows.targets import Density

__all__ = ["draw_density", "plot_density", "plot_log_probs"]

_FLOOR = 12.0  # the color scale of a log-density ends so many nats below the maximum


def draw_density(
    axes: Any, log_density: Any, *, reach: float | tuple[float, float], title: str = "", points: int = 200
) -> None:
    """Draw a log-density on the plane as an image, in existing axes.

    Args:
        axes: Matplotlib axes.
        log_density: A function from points, shape (n, 2), to log-densities in nats, shape (n,).
        reach: Half the side of the square that is shown, which has its center at the origin; or the two ends of its
            sides, such as (0, 2 pi) for two angles.
        title: The title of the picture.
        points: The number of pixels of a side.

    Example:
        >>> from pyro_gflows.targets import density
        >>> figure, axes = new_figure(1)
        >>> draw_density(axes[0, 0], density("rings").log_prob, reach=4.0, title="rings")
        >>> axes[0, 0].get_title()
        'rings'
    """
    ends = ends_of(reach)
    line = torch.linspace(*ends, points)
    y, x = torch.meshgrid(line, line, indexing="ij")
    values = log_density(torch.stack([x, y], dim=-1).reshape(-1, 2)).reshape(points, points)
    top = float(values.max())
    axes.imshow(
        values.double().clamp(min=top - _FLOOR).cpu().numpy(),
        origin="lower",
        extent=(*ends, *ends),
        vmin=top - _FLOOR,
        vmax=top,
    )
    axes.set_title(title)


def plot_density(
    flow: nn.Module, path: str | Path, *, reach: float | tuple[float, float], target: Density | None = None
) -> None:
    """Write a picture of the log-density of a flow on the plane, beside the exact one where it is known.

    Args:
        flow: A flow of vectors of the plane.
        path: The file of the picture; its ending is the format (``.png``, ``.pdf``, ...).
        reach: Half the side of the square that is shown, which has its center at the origin; or the two ends of its
            sides, such as (0, 2 pi) for two angles.
        target: The exact density, or None.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction, g_radial
        >>> action = VectorAction.plane("O(2)")
        >>> flow = EquivariantFlow(InvariantNormal(action), [g_radial(action)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_density(flow, Path(folder) / "density.png", reach=3.0)
        ...     (Path(folder) / "density.png").exists()
        True
    """
    like = next(flow.parameters())
    figure, axes = new_figure(1 if target is None else 2)
    draw_density(axes[0, 0], lambda x: log_probs(flow, x.to(like)), reach=reach, title="flow, log-density")
    if target is not None:
        draw_density(axes[0, 1], target.log_prob, reach=reach, title=f"{target.name}, log-density")
    save_figure(figure, path)


def plot_log_probs(model: Tensor, data: Tensor, path: str | Path) -> None:
    """Write histograms of the log-densities of a flow at its own samples and at test data, which agree for a good fit.

    This is a picture of the fit for events of any dimension.

    Args:
        model: Log-densities at samples of the flow, shape (n,).
        data: Log-densities of the flow at test data, shape (m,).
        path: The file of the picture.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> from pyro_gflows import InvariantNormal, VectorAction
        >>> base = InvariantNormal(VectorAction.trivial("C1", copies=10))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     x, y = base.sample((500,)), torch.randn(500, 10)
        ...     plot_log_probs(base.log_prob(x), base.log_prob(y), Path(folder) / "scores.png")
    """
    figure, axes = new_figure(1)
    for values, label in ((model, "samples of the flow"), (data, "test data")):
        axes[0, 0].hist(values.detach().double().cpu().numpy(), bins=60, density=True, histtype="step", label=label)
    axes[0, 0].set_xlabel("log-density (nats)")
    axes[0, 0].legend()
    save_figure(figure, path)
