"""The shape of a tail against another library's fit, for tails of every length."""

import math

import numpy as np
import pytest
import torch
from arviz.stats.stats import _gpdfit

from pyro_gflows.numerics import pareto_shape


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 9, 10, 13, 40, 41, 300, 900])
@pytest.mark.parametrize("shape", [-0.4, 1e-3, 0.7, 2.0])
def test_the_fit_is_that_of_another_library(count, shape):
    uniform = np.random.default_rng(count).uniform(0.01, 0.99, size=count)
    values = np.expm1(-shape * np.log(uniform)) / shape
    with np.errstate(over="ignore"):  # its weights on the grid
        expected = float(_gpdfit(np.sort(values))[0])
    assert math.isfinite(expected)
    assert pareto_shape(torch.as_tensor(np.log(values))) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("count", [2, 10, 300])
def test_order_and_unit_change_nothing(count):
    logs = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    k = pareto_shape(logs)
    assert pareto_shape(logs.flip(0)) == pytest.approx(k, abs=1e-12)
    assert pareto_shape(logs - 5000.0) == pytest.approx(k, abs=1e-9)
    assert pareto_shape(logs.float()) == pytest.approx(k, abs=1e-5)


@pytest.mark.parametrize("logs", [torch.zeros(0), torch.zeros(2, 2)])
def test_what_is_no_list_of_values_is_refused(logs):
    with pytest.raises(ValueError, match=r"logarithms of shape \(n,\)"):
        pareto_shape(logs)
