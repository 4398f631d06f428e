"""The memory benchmark: its gauge reads what was allocated, and its claim holds at a small size."""

import pytest
import torch

from benchmarks.memory import CASES, build, peak_bytes, table


@pytest.mark.long
def test_the_gauge_reads_a_known_allocation():
    def work():
        first = torch.empty(250_000)
        del first  # not there any more when the others come
        second, third = torch.empty(500_000), torch.empty(500_000)
        return len(second) + len(third)

    outside = torch.empty(1_000_000)
    assert peak_bytes(work) == pytest.approx(4_000_000, rel=1e-3)
    assert len(outside) == 1_000_000


@pytest.mark.long
def test_a_deeper_stack_in_constant_memory_needs_little_more():
    x = torch.randn(8, 3, 8, 8)
    peaks = {}
    for memory in ("plain", "recompute", "constant"):
        for depth in (2, 4):
            flow = build("residual", memory, depth, size=8, width=2).train()
            peaks[memory, depth] = peak_bytes(lambda flow=flow: flow(x).mean().backward())
    added = {memory: peaks[memory, 4] - peaks[memory, 2] for memory in ("plain", "recompute", "constant")}
    assert added["plain"] > 4 * added["constant"]
    assert added["plain"] > 4 * added["recompute"]


def test_the_table_has_a_line_for_each_case():
    row = {"device": "cpu", "seconds": 2.0, "depth": 8}
    rows = [row | {"family": family, "memory": memory, "peak_bytes": 10**6} for family, memory in CASES]
    rows.append(rows[0] | {"depth": 16, "peak_bytes": 1_500_000})
    lines = table([], rows).splitlines()
    assert len(lines) == 2 + len(CASES)
    assert "50 %" in lines[2]
