"""Pictures of particles: distances of pairs, energies, and strips of configurations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.plots.figures import draw_disks, new_figure, save_figure

__all__ = [
    "draw_configurations",
    "draw_energies",
    "draw_pair_distances",
    "plot_configurations",
    "plot_energies",
    "plot_pair_distances",
]

_BINS = 80
# of the species: blue, orange, green, red, purple
_COLORS = ((0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16), (0.58, 0.4, 0.74))
_FARTHEST = 0.75  # the share of white in the color of the particle that is farthest from the viewer


def draw_pair_distances(axes: Any, samples: Tensor, data: Tensor, *, weights: Tensor | None = None) -> None:
    """Draw histograms of the distances of all pairs of particles, of draws of a flow and of exact draws.

    Distances are the same for all images of a configuration, so the histograms compare the shapes of configurations.

    Args:
        axes: Matplotlib axes.
        samples: Configurations that the flow has drawn, shape ``(count, n, d)``.
        data: Exact draws, such as test data, shape ``(m, n, d)``.
        weights: Importance weights of the samples, shape ``(count,)``: a third histogram is of the weighted samples.

    Raises:
        ValueError: If the configurations have another shape.

    Example:
        >>> figure, axes = new_figure(1)
        >>> draw_pair_distances(axes[0, 0], torch.randn(50, 4, 2), torch.randn(50, 4, 2))
        >>> axes[0, 0].get_xlabel()
        'distance of a pair'
    """
    first, second = (_distances(_checked(x)) for x in (samples, data))
    shared = None if weights is None else weights.unsqueeze(-1).expand_as(first)
    _draw_histograms(axes, first, second, (0.0, 1.05 * float(_quantile(second, 0.9999))), weights=shared)
    axes.set(xlabel="distance of a pair", ylabel="density")


def plot_pair_distances(samples: Tensor, data: Tensor, path: str | Path, *, weights: Tensor | None = None) -> None:
    """Write a picture of the distances of all pairs of particles, by :func:`draw_pair_distances`.

    Args:
        samples: Configurations that the flow has drawn, shape ``(count, n, d)``.
        data: Exact draws, such as test data, shape ``(m, n, d)``.
        path: The file of the picture.
        weights: Importance weights of the samples, shape ``(count,)``, or None.

    Raises:
        ValueError: If the configurations have another shape.
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> x = torch.randn(500, 4, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_pair_distances(x, x.flip(0), Path(folder) / "distances.png", weights=torch.ones(500))
    """
    figure, axes = new_figure(1)
    draw_pair_distances(axes[0, 0], samples, data, weights=weights)
    save_figure(figure, path)


def draw_energies(
    axes: Any, samples: Tensor, data: Tensor, *, energy: Callable[[Tensor], Tensor], weights: Tensor | None = None
) -> None:
    """Draw histograms of the energies of configurations, of draws of a flow and of exact draws.

    The picture shows the energies that exact draws have. Draws of a flow may have much larger ones, where particles
    overlap: the legend says how many lie above the range of the picture.

    Args:
        axes: Matplotlib axes.
        samples: Configurations that the flow has drawn, shape ``(count, n, d)``.
        data: Exact draws, such as test data, shape ``(m, n, d)``.
        energy: The energy, such as ``target.energy``: from configurations to shape ``(count,)``.
        weights: Importance weights of the samples, shape ``(count,)``: a third histogram is of the weighted samples.

    Raises:
        ValueError: If the configurations have another shape.

    Example:
        >>> figure, axes = new_figure(1)
        >>> x = torch.randn(50, 4, 2)
        >>> draw_energies(axes[0, 0], x, x.flip(0), energy=lambda x: x.square().sum((-2, -1)))
        >>> axes[0, 0].get_xlabel()
        'energy'
    """
    with torch.no_grad():
        first, second = (energy(_checked(x)) for x in (samples, data))
    low, high = float(second.min()), float(_quantile(second, 0.999))
    margin = 0.15 * (high - low)
    _draw_histograms(axes, first, second, (low - margin, high + margin), weights=weights)
    axes.set(xlabel="energy", ylabel="density")


def plot_energies(
    samples: Tensor,
    data: Tensor,
    path: str | Path,
    *,
    energy: Callable[[Tensor], Tensor],
    weights: Tensor | None = None,
) -> None:
    """Write a picture of the energies of configurations, by :func:`draw_energies`.

    Args:
        samples: Configurations that the flow has drawn, shape ``(count, n, d)``.
        data: Exact draws, such as test data, shape ``(m, n, d)``.
        path: The file of the picture.
        energy: The energy, such as ``target.energy``: from configurations to shape ``(count,)``.
        weights: Importance weights of the samples, shape ``(count,)``, or None.

    Raises:
        ValueError: If the configurations have another shape.
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> from pyro_gflows.targets import DoubleWell
        >>> x = 2 * torch.randn(500, 4, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_energies(x, x.flip(0), Path(folder) / "energies.png", energy=DoubleWell().energy)
    """
    figure, axes = new_figure(1)
    draw_energies(axes[0, 0], samples, data, energy=energy, weights=weights)
    save_figure(figure, path)


def _draw_histograms(
    axes: Any, samples: Tensor, data: Tensor, ends: tuple[float, float], *, weights: Tensor | None
) -> None:
    """Draw the densities of values of draws of a flow, with and without weights, and of exact draws."""
    edges = torch.linspace(*ends, _BINS + 1, dtype=torch.float64)
    above = float((samples > ends[1]).double().mean())
    name = "draws of the flow" + (f" ({_percent(above)} above)" if above > 0 else "")
    curves = [(data, torch.ones_like(data), "exact draws", {"histtype": "stepfilled", "color": "0.85"})]
    curves += [(samples, torch.ones_like(samples), name, {"histtype": "step", "color": "tab:blue"})]
    if weights is not None:
        look = {"histtype": "step", "color": "tab:orange", "linestyle": "--"}
        curves += [(samples, weights, "the same draws, weighted", look)]
    for values, mass, label, look in curves:
        values, mass = (x.detach().double().flatten().cpu() for x in (values, mass))
        # shares of all draws, also of those outside of the picture
        mass = mass / (mass.sum() * (edges[1] - edges[0]))
        inside = (values >= ends[0]) & (values <= ends[1])
        axes.hist(values[inside].numpy(), bins=edges.numpy(), weights=mass[inside].numpy(), label=label, **look)
    axes.set(xlim=ends, ylim=(0.0, 1.3 * axes.get_ylim()[1]))  # room for the legend
    axes.legend(fontsize="small")


def draw_configurations(
    axes: Any, x: Tensor, *, species: Sequence[int] | None = None, title: str = "", columns: int = 8
) -> None:
    """Draw configurations side by side, in existing axes.

    Each configuration is centered and rotated to its principal axes, the longest of which is horizontal, so that two
    configurations that differ by a rotation look the same. The diameter of the disks is 0.7 of the usual distance to
    the nearest particle. In space the third axis points to the viewer: farther particles are paler and lie behind.

    Args:
        axes: Matplotlib axes.
        x: Configurations of particles in the plane or in space, shape ``(count, n, d)`` with d = 2 or 3.
        species: The numbers of particles of each species, which have colors of their own; by default one species.
        title: The title of the picture.
        columns: The number of configurations side by side.

    Raises:
        ValueError: If the configurations have another shape, or the species another number of particles.

    Example:
        >>> figure, axes = new_figure(1)
        >>> draw_configurations(axes[0, 0], torch.randn(16, 13, 3), title="noise")
        >>> len(axes[0, 0].collections[0].get_offsets())  # 16 configurations of 13 particles
        208
    """
    x = _checked(x)
    count, n, d = x.shape
    if d not in (2, 3):
        raise ValueError(f"expected particles in the plane or in space, got d = {d}")
    species = (n,) if species is None else tuple(species)
    if sum(species) != n:
        raise ValueError(f"expected species of {n} particles in all, got {tuple(species)}")
    aligned = _aligned(x)
    radius = 0.35 * float(_nearest(x).median())
    reach = aligned[..., :2].abs().amax((-2, -1))
    side = 2.2 * (float(reach.max().clamp_max(2 * reach.median())) + radius)
    index = torch.arange(count)
    corners = torch.stack([index % columns + 0.5, index // columns + 0.5], -1) * side
    places = corners.unsqueeze(1) + aligned[..., :2] * torch.tensor([1.0, -1.0], dtype=aligned.dtype)  # y downwards
    depth = aligned[..., 2] if d == 3 else torch.zeros_like(aligned[..., 0])
    colors = _shaded(depth, species)
    order = depth.flatten().argsort()
    draw_disks(axes, places.flatten(0, 1)[order], radius=radius, colors=colors.flatten(0, 1)[order])
    rows = -(-count // columns)
    for lines, line in ((columns, axes.axvline), (rows, axes.axhline)):
        for place in range(lines + 1):
            line(place * side, color="0.85", linewidth=0.8)
    axes.set(xlim=(0, columns * side), ylim=(rows * side, 0), aspect="equal", title=title)
    axes.set_axis_off()


def plot_configurations(
    samples: Tensor, data: Tensor, path: str | Path, *, species: Sequence[int] | None = None, columns: int = 8
) -> None:
    """Write a picture of configurations that a flow has drawn, a strip of them above a strip of exact draws.

    Args:
        samples: Configurations of the flow, shape ``(count, n, d)`` with d = 2 or 3; the first ``2 * columns`` are
            drawn.
        data: Exact draws, such as test data, as many at most.
        path: The file of the picture.
        species: The numbers of particles of each species, which have colors of their own; by default one species.
        columns: The number of configurations side by side.

    Raises:
        ValueError: If the configurations have another shape, or the species another number of particles.
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> x = 2 * torch.randn(16, 4, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_configurations(x, x.flip(0), Path(folder) / "configurations.png", species=(1, 3))
    """
    figure, axes = new_figure(1, rows=2)
    figure.set_size_inches(1.2 * columns, 5.4)
    for panel, x, title in zip(axes[:, 0], (samples, data), ("draws of the flow", "exact draws"), strict=True):
        draw_configurations(panel, x[: 2 * columns], species=species, title=title, columns=columns)
    save_figure(figure, path)


def _checked(x: Tensor) -> Tensor:
    if x.ndim != 3 or x.shape[1] < 2:
        raise ValueError(f"expected configurations of particles of shape (count, n, d), got {tuple(x.shape)}")
    return x.detach().double().cpu()


def _distances(x: Tensor) -> Tensor:
    i, j = torch.triu_indices(x.shape[1], x.shape[1], 1)
    return (x[:, i] - x[:, j]).norm(dim=-1)


def _nearest(x: Tensor) -> Tensor:
    """The distance of each particle to the nearest other one."""
    apart = torch.cdist(x, x) + torch.diag(torch.full((x.shape[1],), math.inf, dtype=x.dtype))
    return apart.amin(-1)


def _aligned(x: Tensor) -> Tensor:
    """Configurations after the rotation to their principal axes; mirror images stay apart."""
    x = x - x.mean(1, keepdim=True)
    rotations = torch.linalg.eigh(x.mT @ x).eigenvectors.flip(-1)
    z = x @ rotations
    # a principal axis has no sign: let the third moments along all but the last one be positive
    signs = torch.where(z.pow(3).sum(1, keepdim=True) < 0, -1.0, 1.0)
    signs[..., -1:] = signs[..., :-1].prod(-1, keepdim=True) * torch.linalg.det(rotations)[:, None, None].sign()
    return z * signs


def _shaded(depth: Tensor, species: Sequence[int]) -> Tensor:
    """Colors by species, paler for particles that are farther away, shape ``(count, n, 3)``."""
    names = [_COLORS[k % len(_COLORS)] for k, size in enumerate(species) for _ in range(size)]
    pure = torch.tensor(names, dtype=depth.dtype)
    nearest, farthest = depth.amax(1, keepdim=True), depth.amin(1, keepdim=True)
    white = _FARTHEST * (nearest - depth) / (nearest - farthest).clamp_min(1e-12)
    return pure + (1 - pure) * white.unsqueeze(-1)


def _quantile(values: Tensor, level: float) -> Tensor:
    # torch.quantile refuses more than 2^24 values
    return values.flatten().sort().values[math.ceil(level * values.numel()) - 1]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
