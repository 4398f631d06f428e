"""Contrasts by cumulative sums are the products with Helmert's dense basis."""

import pytest
import torch

from pyro_gflows.guides.log_ratio import log_ratio_basis
from pyro_gflows.numerics.contrasts import contrasts, from_contrasts


@pytest.mark.parametrize("n", [1, 2, 3, 7, 200])
@pytest.mark.parametrize("dim", [-1, -2, 0])
def test_both_ways_are_products_with_the_basis(n, dim):
    generator = torch.Generator().manual_seed(n)
    basis = log_ratio_basis(n)
    x = 5 + torch.randn(4, n, generator=generator, dtype=torch.float64)
    y = torch.randn(4, n - 1, generator=generator, dtype=torch.float64)

    def placed(rows):
        return rows.reshape(2, 2, rows.shape[-1]).movedim(-1, dim)

    torch.testing.assert_close(contrasts(placed(x), dim), placed(x @ basis.T), rtol=0, atol=1e-12)
    torch.testing.assert_close(from_contrasts(placed(y), dim), placed(y @ basis), rtol=0, atol=1e-12)


def test_they_are_accurate_in_single_precision_where_the_mean_is_large():
    x = 1e4 + torch.randn(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = contrasts(x.float().double())
    assert (contrasts(x.float()) - exact).abs().max() < 2e-2
