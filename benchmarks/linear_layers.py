"""What invertible equivariant convolutions cost, beside a convolution of the same channels and beside each other.

    python -m benchmarks.linear_layers

CPU time of one thread, forward, without gradients, in float32 on 64 x 64 images with random weights; kernels, bounds
and exponentials are computed in every call. Each ratio is the median of rounds in which both sides are timed, with the
quartiles beside it. Nothing is kept: these are times of the machine at hand.

- "exponential": GConvExponential of a 3 x 3 kernel over one convolution with this kernel and padding, for each term of
  its series.
- "spectral": GSpectralConv over one 3 x 3 convolution with zero padding.
- "spectral and exponential": GSpectralConv over the GConvExponential with the same kernel on the periodic grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.harness import Benchmark, Run, grouped, interleaved_ratios, main, markdown
from pyro_gflows import GConvExponential, GSpectralConv, ImageAction
from pyro_gflows.nn.conv import convolve
from pyro_gflows.numerics.exponential_series import series_length
from pyro_gflows.testing import randomize_

SIZE = 64
ROUNDS = 5


class Measured(Protocol):
    """What a row times."""

    def sides(self, action: ImageAction, x: Tensor) -> tuple[Callable[[], Tensor], Callable[[], Tensor], int]:
        """The layer, what it is compared with, and the number of times that the latter counts."""
        ...


@dataclass(frozen=True)
class Exponential:
    """GConvExponential beside as many convolutions as its series has terms."""

    def sides(self, action: ImageAction, x: Tensor) -> tuple[Callable[[], Tensor], Callable[[], Tensor], int]:
        """The layer, one convolution, and the number of terms."""
        layer = randomize_(GConvExponential(action), scale=0.1, generator=torch.Generator().manual_seed(0))
        assert isinstance(layer, GConvExponential)
        kernel = layer.kernel()
        return lambda: layer(x), lambda: convolve(x, kernel, padding=action.padding), _terms(layer, x)


@dataclass(frozen=True)
class Spectral:
    """GSpectralConv beside a 3 x 3 convolution."""

    support: int | None

    def sides(self, action: ImageAction, x: Tensor) -> tuple[Callable[[], Tensor], Callable[[], Tensor], int]:
        """The layer, and one convolution."""
        layer = _spectral(action, self.support)
        kernel = torch.randn(action.channels, action.channels, 3, 3, generator=torch.Generator().manual_seed(1))
        return lambda: layer(x), lambda: functional.conv2d(x, kernel, padding=1), 1


@dataclass(frozen=True)
class Both:
    """GSpectralConv beside GConvExponential."""

    support: int

    def sides(self, action: ImageAction, x: Tensor) -> tuple[Callable[[], Tensor], Callable[[], Tensor], int]:
        """Two layers with one kernel."""
        # without a bound of the growth, of which the two layers have different estimates
        layer = _spectral(action, self.support, max_log_scale=1e6)
        other = GConvExponential(action, kernel_size=self.support, bias=False, max_log_scale=1e6)
        reach = self.support // 2
        kernel = layer.generator.kernel().roll((reach, reach), (2, 3))[..., : self.support, : self.support]
        other.conv.assign_(kernel)
        torch.testing.assert_close(other(x), layer(x), rtol=1e-3, atol=1e-3)
        return lambda: layer(x), lambda: other(x), 1


def _spectral(action: ImageAction, support: int | None, *, max_log_scale: float = 3.0) -> GSpectralConv:
    layer = GSpectralConv(action, support=support, max_log_scale=max_log_scale)
    randomize_(layer, scale=0.3 / (support or SIZE), generator=torch.Generator().manual_seed(0))
    return layer


def _terms(layer: GConvExponential, x: Tensor) -> int:
    steps, terms = series_length(layer.norm(), torch.finfo(x.dtype).eps)
    return steps * terms


GROUPS: dict[str, Callable[[int], ImageAction]] = {
    "shifts": lambda channels: ImageAction.translations(channels, size=SIZE),
    "shifts and C4": lambda channels: ImageAction.translations(
        channels // 4, size=SIZE, point_group="C4", fields="regular"
    ),
    "C4": lambda channels: ImageAction("C4", channels // 4, size=SIZE, fields="regular"),
}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        layer: What is compared.
        group: The group that acts on the images.
        channels: Of the images.
        batch: The number of images.
        measured: What is timed.
        support: The side of the kernel, in words.
    """

    layer: str
    group: str
    channels: int
    batch: int
    measured: Measured
    support: str = "3"

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.layer}, {self.group}, {self.channels} channels, {self.batch} images, support {self.support}"

    def labels(self) -> Mapping[str, str]:
        """The name."""
        return {"name": self.name}


@torch.no_grad()
def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The ratio of the times, for each of the counts of the other side: lower quartile, median and upper quartile."""
    action = GROUPS[row.group](row.channels)
    images = min(row.batch, 2) if quick else row.batch
    x = torch.randn(images, *action.event_shape, generator=torch.Generator().manual_seed(2))
    work, other, count = row.measured.sides(action, x)
    calls = 1 if quick or images * row.channels > 256 else 4
    ratios = interleaved_ratios(work, other, calls=calls, rounds=2 if quick else ROUNDS)
    return {"ratio": [ratio / count for ratio in ratios], "count": count}


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """A line for each row."""
    head = ["layer", "group", "channels", "images", "support", "convolutions", "time over theirs"]
    lines = []
    for found in grouped(rows, runs):
        row, (low, middle, high) = found.row, found["ratio"]
        count = "" if isinstance(row.measured, Both) else f"{found['count']}"
        ratio = f"{middle:.2f} ({low:.2f}-{high:.2f})"
        lines.append([row.layer, row.group, f"{row.channels}", f"{row.batch}", row.support, count, ratio])
    return markdown(head, lines, left=range(2))


ROWS = [
    *(
        Row("exponential", group, channels, batch, Exponential())
        for group in ("C4", "shifts and C4")
        for channels in (12, 24)
        for batch in (128, 8)
    ),
    *(
        Row("spectral", group, channels, batch, Spectral(support), "all" if support is None else f"{support}")
        for group, support in (("shifts", 3), ("shifts", None), ("shifts and C4", None))
        for channels in (12, 24)
        for batch in (128, 32, 8)
    ),
    *(
        Row("spectral and exponential", "shifts and C4", 12, 8, Both(support), f"{support}")
        for support in (3, 7, 15, 31)
    ),
]
BENCHMARK = Benchmark("linear_layers", __doc__, ROWS, run, table, kept=False)

if __name__ == "__main__":
    main(BENCHMARK)
