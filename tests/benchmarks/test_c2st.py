"""The classifier two-sample test."""

import pytest
import torch

pytest.importorskip("sklearn", reason="pip install 'pyro-gflows[data]'")
from benchmarks.c2st import c2st


@pytest.fixture
def x():
    return torch.randn(1200, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.long
def test_draws_of_one_distribution_are_not_told_apart(x):
    assert c2st(x[:600], x[600:]) == pytest.approx(0.5, abs=0.06)


@pytest.mark.long
def test_shifted_draws_are_told_apart(x):
    assert c2st(x[:600], x[600:] + torch.tensor([1.5, 0.0])) > 0.7


@pytest.mark.long
def test_the_unit_of_a_coordinate_does_not_matter(x):
    unit = torch.tensor([1e-3, 10.0])
    assert c2st(x[:200] * unit, (x[200:400] + 1) * unit) == pytest.approx(c2st(x[:200], x[200:400] + 1), abs=0.02)


@pytest.mark.long
def test_the_seed_decides(x):
    assert c2st(x[:600], x[600:], seed=1) == c2st(x[:600], x[600:], seed=1)


def test_bad_draws_are_refused(x):
    with pytest.raises(ValueError, match="one shape"):
        c2st(x[:10], x[:9])
    with pytest.raises(ValueError, match="infinite or nan"):
        c2st(x[:10], x[:10] / 0)
