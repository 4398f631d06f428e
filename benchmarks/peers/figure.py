"""A dot plot of the ratios of times on the CPU, with their quartiles and limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.harness import Run
from benchmarks.peers.contest import Pair

__all__ = ["draw"]

COLORS = {"zuko": "tab:blue", "nflows": "tab:orange", "normflows": "tab:green", "Pyro": "tab:purple",
          "FrEIA": "tab:brown", "torch": "black", "escnn": "tab:pink", "plain": "tab:cyan"}  # fmt: skip


def _lines(runs: Sequence[Run]) -> Iterator[tuple[str, list[Pair]]]:
    """A line for each family and task, with the ratios of times of its last run."""
    latest = {(run["family"], run["task"]): run for run in runs if run["device"] == "cpu"}
    order = list(dict.fromkeys(family for family, _ in latest))
    for family, task in sorted(latest, key=lambda place: order.index(place[0])):
        pairs = [pair for pair in latest[family, task]["pairs"] if "values" not in pair]
        if pairs:
            yield f"{family}, {task}", pairs


def draw(runs: Sequence[Run], folder: Path) -> None:
    """Write ``peers.png``: a color for each library, a circle with the symmetry and a square without it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = list(_lines(runs))
    if not lines:
        return
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.3 * len(lines)))
    for place, (_, pairs) in enumerate(lines):
        for number, pair in enumerate(pairs):
            low, middle, high = pair["ratio"]
            height = place + 0.5 * ((number + 0.5) / len(pairs) - 0.5)
            library = pair["peer"].split()[0].rstrip(",")
            color = COLORS.get(library, "gray")
            axes.plot([low, high], [height, height], color=color, linewidth=1)
            marker = "s" if "C1" in pair["ours"] else "o"
            axes.plot([middle], [height], marker, color=color, markersize=4)
        for limit in {pair["limit"] for pair in pairs} - {None}:
            axes.plot([limit] * 2, [place - 0.35, place + 0.35], color="red", linewidth=1.2)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set(
        xscale="log", xlabel="time of ours / time of the peer: median and quartiles", ylim=(len(lines) - 0.4, -0.6)
    )
    axes.set_yticks(range(len(lines)), [text for text, _ in lines], fontsize=8)
    ticks = [0.2, 0.5, 1, 2, 5, 10]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", alpha=0.3)
    for library, color in COLORS.items():
        axes.plot([], [], "o", color=color, label=library)
    axes.plot([], [], "o", color="gray", label="with the symmetry")
    axes.plot([], [], "s", color="gray", label="without it (C1)")
    axes.plot([], [], color="red", label="limit")
    axes.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    figure.savefig(folder / "peers.png", dpi=100, bbox_inches="tight")
    pyplot.close(figure)
