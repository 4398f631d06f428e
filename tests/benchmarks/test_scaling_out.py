"""The plan for many devices: its counts against counts by hand, its model against closed forms, and that it runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.clusters import Cluster
from benchmarks.device_flows import FAMILIES
from benchmarks.scaling_out import ROWS, table
from benchmarks.step_costs import costs_of

ROOT = Path(__file__).parents[2]
RUN = {"parameters": 1000, "batch": 100, "launches": 50, "products": 3_000_000, "others": 1_000_000, "bytes": 200_000}


def test_operations_are_counted_by_hand():
    x, y = torch.ones(2, 3), torch.ones(3, 4)
    found = costs_of(lambda: ((x @ y).exp() + 1.0).t().contiguous())  # the view launches nothing
    assert (found.launches, found.products, found.others) == (4, 2 * 2 * 3 * 4, 3 * 8)
    assert found.bytes == 4 * (6 + 12 + 8 + 16 + 16 + 16)


def test_an_all_reduce_is_a_latency_and_a_ring():
    cluster = Cluster(near=1e9, far=1e8, near_latency=1e-3, far_latency=1e-4)
    assert cluster.all_reduce(1e6, 1) == 0.0
    assert cluster.all_reduce(1e6, 8) == pytest.approx(1e-3 + 2 * 7 / 8 * 1e-3)
    assert cluster.all_reduce(1e6, 64) == pytest.approx(1e-3 + 3e-4 + 2 * 63 / 64 * 1e-2)


@pytest.mark.parametrize(
    ("figures", "seconds"),
    [({"host": 1.0}, 50.0), ({"operations": 1e3, "host": 0.0}, 2000.0), ({"memory": 1e3, "host": 0.0}, 100.0)],
    ids=["launching", "arithmetic", "memory"],
)
def test_the_slowest_part_decides(figures, seconds):
    cluster = Cluster(**{"operations": 1e15, "memory": 1e15, **figures})
    assert cluster.compute(RUN, 50) == pytest.approx(seconds)
    sent = cluster.all_reduce(4000, 8) + cluster.all_reduce(8, 8)
    assert cluster.step(RUN, 50, 8) == pytest.approx(seconds + sent)


def test_the_table_has_all_parts():
    figures = RUN | {"tensors": 4, "step": 1e-2, "event": 8e-5, "fixed": 2e-3, "load": 0.0}
    flow = {**ROWS[0].labels(), **figures}
    times = {"sizes": [1024], "quartiles": [[1e-4] * 3], "latency": 1e-4, "bandwidth": 1e9, "load": 0.0}
    sent = {**ROWS[-1].labels(), **times}
    text = table(ROWS, [flow, sent])
    assert text.count("## ") == 4
    small = FAMILIES["coupling"].batches[0]
    one, predicted = 1e3 * (2e-3 + small * 8e-5), 1e3 * (2e-3 + small / 2 * 8e-5 + 4000 / 1e9 + 2e-4)
    assert f"| coupling | 512 | {one:.1f} | {predicted:.1f} |" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["devices", "scaling_out"])
def test_two_processes_are_timed(name, tmp_path):
    pytest.importorskip("lightning")
    only = {"devices": "residual 512", "scaling_out": "all-reduce"}[name]
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--only", only]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"devices": "| 1,828 | 512 |", "scaling_out": "Fitted: "}[name] in done.stdout
