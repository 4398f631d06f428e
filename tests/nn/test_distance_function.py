"""Functions of distances: the spline in the logarithm of r, its start at another function, and its table."""

import math

import pytest
import torch

from pyro_gflows.nn.distance_function import DistanceFunction, spline_basis


@pytest.mark.parametrize(("shortest", "longest"), [(1.0, 9.0), (0.3, 9.0), (0.2, 9.0), (0.05, 10.0)])
def test_it_starts_close_to_another_function(shortest, longest):
    """Also where splines lie between two entries of the table, which a solver may take for no rank at all."""
    function = DistanceFunction(shortest, longest)
    function.start_at(lambda squares: -squares / 2)
    squares = torch.linspace(max(shortest, longest / 20) ** 2, 16.0, 50)
    torch.testing.assert_close(function(squares), -squares / 2, rtol=0, atol=0.02)


def test_it_is_a_spline_in_the_logarithm_constant_below_and_linear_beyond():
    function = DistanceFunction(1.0, 9.0, coefficients=7)
    with torch.no_grad():
        function.double().coefficients.copy_(torch.randn(7, generator=torch.Generator().manual_seed(0)))
    squares = torch.linspace(0, 81, 1024, dtype=torch.float64)
    t = squares.clamp_min(1.0).log() / (2 * math.log(9.0))
    expected = 10 * spline_basis(t, 7) @ function.coefficients
    torch.testing.assert_close(function(squares), expected, rtol=0, atol=1e-9)
    beyond = function(torch.tensor([81.0, 91.0, 101.0], dtype=torch.float64))
    torch.testing.assert_close(beyond[2] - beyond[1], beyond[1] - beyond[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_distance_has_no_value(value):
    function = DistanceFunction(1.0, 9.0)
    function.start_at(lambda squares: -squares)
    found = function(torch.tensor([4.0, value]))
    assert found[0].isfinite() and not found[1].isfinite()
