"""The table of all comparisons, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.harness import Run, markdown

__all__ = ["pairs_of", "ratio_text", "table", "value_text"]

HEAD = ["task", "ours", "peer", "unit", "ours", "peer", "ratio (quartiles)", "limit", "parameters, ours / peer"]


def latest(rows: Sequence[Any], runs: Sequence[Run]) -> Iterator[tuple[Any, Run | None]]:
    """Every row with its last run, or None."""
    for row in rows:
        labels = row.labels()
        own = [run for run in runs if all(run.get(key) == value for key, value in labels.items())]
        yield row, own[-1] if own else None


def value_text(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio_text(ratio: Sequence[float]) -> str:
    """A median with its quartiles, or the median alone where nothing was repeated."""
    low, middle, high = ratio
    digits = 2 if middle >= 0.1 else 3
    text = f"{middle:.{digits}f}"
    return text if low == high else f"{text} ({low:.{digits}f}-{high:.{digits}f})"


def limit_text(pair: Mapping[str, Any]) -> str:
    """The limit and whether it is met."""
    return "" if pair["limit"] is None else f"{pair['limit']:g}: {pair['verdict']}"


def pairs_of(run: Run) -> Iterator[list[str]]:
    """The cells of every pair of a run."""
    for pair in run["pairs"]:
        sides = pair["ours"], pair["peer"]
        yield [
            f"{run['family']}, {run['task']}",
            *sides,
            pair.get("unit", run["unit"]),
            *(
                value_text(pair["values"][place] if "values" in pair else run["values"][side][1])
                for place, side in enumerate(sides)
            ),
            ratio_text(pair["ratio"]),
            limit_text(pair),
            " / ".join(str(run["parameters"].get(side, "-")) for side in sides),
        ]


def _section(device: str, found: Iterable[tuple[Any, Run | None]]) -> str:
    lines: list[list[str]] = []
    where: list[str] = []
    notes: list[tuple[str, str, Mapping[str, str]]] = []
    absent: list[str] = []
    for row, run in found:
        if run is None:
            absent.append(f"{row.family}, {row.task}")
            continue
        lines += pairs_of(run)
        where.append(f"{run['processor']}, torch {run['torch']}, {run['threads']} thread(s)")
        for peer, text in run["missing"].items():
            lines.append([f"{run['family']}, {run['task']}", "", peer, text, *[""] * (len(HEAD) - 4)])
        notes.append((run["family"], run["size"], run["notes"]))
    text = [f"## {'CPU' if device == 'cpu' else 'CUDA'}", ""]
    if where:
        text += ["; ".join(dict.fromkeys(where)) + ".", "", markdown(HEAD, lines, left=(0, 1, 2, 3)), ""]
    if absent:
        text.append(f"Not measured: {'; '.join(absent)}.")
    text += ["", *_footnotes(notes)] if notes else []
    return "\n".join(text)


def _footnotes(notes: Iterable[tuple[str, str, Mapping[str, str]]]) -> list[str]:
    """A line for each family and size, with what its peers do otherwise."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for family, size, words in notes:
        found.setdefault((family, size), {}).update(words)
    return [
        f"- *{family}*: {size}. " + " ".join(f"{peer}: {text}." for peer, text in words.items())
        for (family, size), words in found.items()
    ]


def table(rows: Sequence[Any], runs: Sequence[Run]) -> str:
    """A section for each device, with the last run of every row."""
    found = list(latest(rows, runs))
    devices = dict.fromkeys(row.device for row in rows)
    return "\n\n".join(_section(device, [each for each in found if each[0].device == device]) for device in devices)
