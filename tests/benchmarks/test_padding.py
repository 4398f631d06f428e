"""The map x -> -x under D4 is learned with a padding, and cannot be approached without one."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import padding

RESULTS = Path(padding.__file__).parent / "results" / "padding.jsonl"
ROWS = {row.name: row for row in padding.BENCHMARK.rows}


@pytest.mark.parametrize("seed", range(2))
def test_without_padding_the_error_is_at_least_the_squared_length_at_every_point(seed):
    """Every chamber is mapped to itself, and its point nearest to -x is 0; after some steps of training as well."""
    flow = padding.trained(ROWS["without padding"], seed=seed, steps=25)
    x = torch.randn(2000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = flow(x)
        errors = padding.errors(flow, x)
    torch.testing.assert_close(errors, (y + x).square().sum(-1))
    assert (y - x).norm(dim=-1).mean() > 0.3  # no identity
    assert (padding.chamber(x) == padding.chamber(y)).all()
    assert (errors >= x.square().sum(-1)).all()


def test_the_chamber_of_minus_x_is_another_one_from_which_0_is_nearest():
    x = torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert (padding.chamber(-x) != padding.chamber(x)).all()
    others = torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    same = padding.chamber(x)[:, None] == padding.chamber(others)
    assert ((x @ others.T)[same] > 0).all()  # so |y + x|^2 > |x|^2 for y in the chamber of x
    assert not ((x @ others.T)[~same] > 0).all()


def test_the_committed_runs_reach_the_map_with_padding_only():
    runs = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    errors = {name: [run["error"] for run in runs if run["name"] == name] for name in ROWS}
    assert len(errors["with padding"]) >= 3
    assert max(errors["with padding"]) <= 1e-4
    for run in runs:
        if run["name"] != "with padding":
            assert run["error"] >= run["squared_norm"] and run["least_excess"] >= 0 and run["same_chamber"] == 1


@pytest.mark.slow
def test_with_padding_the_map_is_learned():
    figures = padding.run(ROWS["with padding"], seed=7, quick=False)
    assert figures["error"] <= 1e-4
