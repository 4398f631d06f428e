"""The comparators on the plane are bijections with their log-dets."""

import pytest
import torch

from benchmarks.densities import ROWS
from benchmarks.planar_comparators import SplineCouplings
from pyro_gflows.testing import assert_layer


def test_pyros_spline_couplings_are_a_layer():
    layer = SplineCouplings(2, hidden=6, bins=4, scale=3.0).double()
    assert_layer(layer, 2 * torch.randn(8, 2, dtype=torch.float64))


@pytest.mark.parametrize("name, parameters", [("8gaussians-coupling", 890), ("rings-coupling", 266)])
def test_they_have_as_many_parameters_as_the_stored_runs(name, parameters):
    (row,) = [row for row in ROWS if row.name == name]
    assert sum(p.numel() for p in row.build().parameters()) == parameters
