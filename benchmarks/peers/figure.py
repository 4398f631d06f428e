"""A dot plot of all ratios, with their quartiles and limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Run

__all__ = ["draw"]


def draw(runs: Sequence[Run], folder: Path) -> None:
    """Write ``peers.png``: a line for each pair, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    latest = {(run["family"], run["task"], run["device"]): run for run in runs}
    lines = [
        (f"{family}, {task}: {pair['ours'].removeprefix('ours, ')} / {pair['peer']}", pair)
        for (family, task, device), run in latest.items()
        if device == "cpu"
        for pair in run["pairs"]
    ]
    if not lines:
        return
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.16 * len(lines)))
    for place, (_, pair) in enumerate(lines):
        low, middle, high = pair["ratio"]
        color = {"met": "tab:green", "missed": "tab:red"}.get(pair["verdict"], "tab:blue")
        axes.plot([low, high], [place, place], color=color, linewidth=1)
        axes.plot([middle], [place], "o", color=color, markersize=4)
        if pair["limit"] is not None:
            axes.plot([pair["limit"]], [place], "|", color="black", markersize=7)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set(
        xscale="log",
        xlabel="ours / peer: median, quartiles, and the limit (|); below 1 is faster",
        ylim=(len(lines), -1),
    )
    axes.set_yticks(range(len(lines)), [text for text, _ in lines], fontsize=6)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(folder / "peers.png", dpi=110, bbox_inches="tight")
    pyplot.close(figure)
