"""Pictures of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyro_gflows.plots.figures import new_figure, save_figure

__all__ = ["plot_loss"]


def plot_loss(
    train: Sequence[tuple[int, float]],
    validation: Sequence[tuple[int, float]],
    path: str | Path,
    *,
    floor: float | None = None,
) -> None:
    """Write the training and held-out NLL over steps, with the exact floor where there is one."""
    figure, axes = new_figure(1)
    for curve, label in ((train, "training"), (validation, "held-out")):
        if curve:
            axes[0, 0].plot(*zip(*curve, strict=True), label=label)
    if floor is not None:
        axes[0, 0].axhline(floor, linestyle="--", color="black", label="floor")
    axes[0, 0].set(xlabel="step", ylabel="NLL (nats)")
    axes[0, 0].legend()
    save_figure(figure, path)
