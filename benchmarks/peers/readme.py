"""The performance table of README.md, from the finished runs: ``python -m benchmarks.peers.readme``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Run, Store, markdown
from benchmarks.harness.command import RESULTS
from benchmarks.peers import vectors
from benchmarks.peers.residual import LOOSE
from benchmarks.peers.table import value_text

__all__ = ["performance_table", "with_table"]

README = Path(__file__).parents[2] / "README.md"
BEGIN = "<!-- performance: made by python -m benchmarks.peers.readme -->"
END = "<!-- end of performance -->"
HEAD = ["", "compared with", "training step", "scoring, forward", "sampling, inverse"]
TASKS = ("training step", "scoring", "sampling")
RACE = "8gaussians at equal training time"


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        title: Its head.
        peer: What it is compared with.
        families: The rows whose ratios a cell lists.
        ours: What has the symmetry in each family, and what has not, if it was measured.
        tasks: The task of each column, or None.
        pairs: The peer for one of ours, where it is not ``peer``.
        at_equal_error: The task for which ours at the error of the peer is listed.
    """

    title: str
    peer: str
    families: Sequence[str]
    ours: Sequence[tuple[str, str | None]]
    tasks: Sequence[str | None] = TASKS
    pairs: Mapping[tuple[str, str], str] = field(default_factory=dict)
    at_equal_error: str | None = None


_VECTORS = [(vectors.C4, vectors.C1)]
_RESIDUAL = ("training step", "evaluation", "inverse")
LINES: Sequence[Line] = [
    Line("affine coupling, 16 coordinates", "zuko RealNVP", ["affine coupling"], _VECTORS),
    Line("spline coupling", "zuko NSF(passes=2)", ["spline coupling"], _VECTORS),
    Line(
        "autoregressive",
        "zuko MAF",
        ["autoregressive"],
        _VECTORS,
        pairs={(vectors.C4, "sampling"): "zuko MAF(passes=4)"},
    ),
    Line(
        "residual layer, 2 / 8 / 64 coordinates",
        "normflows",
        [f"residual layer, d = {d}" for d in (2, 8, 64)],
        [("ours, D8", "ours, C1"), ("ours, C4", "ours, C1"), ("ours, C4", "ours, C1")],
        _RESIDUAL,
        at_equal_error="inverse",
    ),
    Line(
        "residual layer, 3 x 32 x 32 images",
        "normflows",
        ["residual layer, 3 x 32 x 32"],
        [("ours, C4", "ours, C1")],
        _RESIDUAL,
        at_equal_error="inverse",
    ),
    Line(
        "convolution, 1 / 32 / 128 images",
        "torch conv2d",
        [f"convolution, batch {batch}" for batch in (1, 32, 128)],
        [("ours, EquivariantConv C4", None)] * 3,
        ("forward and backward", "forward", None),
    ),
    Line("image coupling flow", "plain flow (C1)", ["image flow"], [("ours, C4", None)]),
]


def performance_table(runs: Sequence[Run]) -> str:
    """The table and the sentences below it.

    Args:
        runs: The finished runs; the last of a row counts.
    """
    found = {(run["device"], run["family"], run["task"]): run for run in runs}
    rows = [[line.title, line.peer, *(_cell(line, task, found) for task in line.tasks)] for line in LINES]
    return "\n".join([markdown(HEAD, rows, left=(0, 1)), "", " ".join([*_race(found), *_where(runs)])])


def _cell(line: Line, task: str | None, found: Mapping[tuple[str, str, str], Run]) -> str:
    if task is None:
        return ""
    cells = []
    for family, (with_it, without) in zip(line.families, line.ours, strict=True):
        run = found.get(("cpu", family, task))
        if run is None:
            return "not measured"
        end = f", to {LOOSE:g}" if task == line.at_equal_error else ""
        ratios = [
            _ratio(run, side, line.pairs.get((side, task), line.peer), end) for side in (with_it, without) if side
        ]
        cells.append(ratios[0] if len(ratios) == 1 else f"{ratios[0]} ({ratios[1]})")
    return " / ".join(cells)


def _ratio(run: Run, ours: str, peer: str, end: str) -> str:
    twin = peer + ours.removeprefix("ours")  # a peer that was made with the weights of ours
    for pair in run["pairs"]:
        if pair["ours"] == ours + end and pair["peer"] in (peer, twin) and "values" not in pair:
            return f"{pair['ratio'][1]:.2f}"
    return "not measured"


def _race(found: Mapping[tuple[str, str, str], Run]) -> Iterator[str]:
    run = next((run for (device, family, _), run in found.items() if (device, family) == ("cpu", RACE)), None)
    if run is None:
        return
    both: dict[str, list[str]] = {}
    for pair in run["pairs"]:  # first all gaps, then all evaluations
        for side, value in zip((pair["ours"], pair["peer"]), pair["values"], strict=True):
            both.setdefault(side, [])
            if (text := value_text(value)) not in both[side]:
                both[side].append(text)
    texts = {side: " nats, ".join(values) + " evaluations" for side, values in both.items()}
    ours = " or ".join(text for side, text in texts.items() if side.startswith("ours"))
    theirs = ", ".join(
        f"{side.split(' on ')[0]}: {text}" for side, text in texts.items() if not side.startswith("ours")
    )
    yield f"Gap on `8gaussians` after equal training time, and evaluations a log-density: {ours} ({theirs})."


def _where(runs: Sequence[Run]) -> Iterator[str]:
    places = dict.fromkeys(
        f"{run['processor']}, torch {run['torch']}, {run['threads']} thread" for run in runs if run["device"] == "cpu"
    )
    cuda = dict.fromkeys(run["processor"] for run in runs if run["device"] == "cuda")
    yield f"Measured on: {'; '.join(places)}. CUDA: {'; '.join(cuda) or 'not measured'}."


def with_table(text: str, table: str) -> str:
    """A page whose text between the two markers is the table.

    Raises:
        ValueError: If the page has not each marker once.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected the markers {BEGIN!r} and {END!r} once each")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write the table into README.md."""
    table = performance_table(Store(RESULTS / "peers.jsonl").runs)
    README.write_text(with_table(README.read_text(encoding="utf-8"), table), encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
