"""Pictures of the loss in training."""

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
    """Write a picture of the training and the validation NLL over the steps, with the exact floor where it is known.

    Args:
        train: Pairs (step, NLL in nats) on the training data.
        validation: Pairs (step, NLL in nats) on the validation data; may be empty.
        path: The file of the picture.
        floor: The entropy of the data in nats, which is the lowest possible NLL, or None.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_loss([(1, 3.2), (100, 2.7)], [(100, 2.8)], Path(folder) / "loss.png", floor=2.6)
    """
    figure, axes = new_figure(1)
    for curve, label in ((train, "training"), (validation, "validation")):
        if curve:
            axes[0, 0].plot(*zip(*curve, strict=True), label=label)
    if floor is not None:
        axes[0, 0].axhline(floor, linestyle="--", color="black", label="floor")
    axes[0, 0].set(xlabel="step", ylabel="NLL (nats)")
    axes[0, 0].legend()
    save_figure(figure, path)
