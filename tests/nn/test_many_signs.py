"""Networks and layers for more signs than a table lists."""

import pytest
import torch

from pyro_gflows import GLinear, GRadial, InvariantNormal, VectorAction, g_autoregressive, g_residual
from pyro_gflows.nn import EquivariantMLP, HiddenFields
from pyro_gflows.testing import assert_equivariant, assert_invariant, assert_layer, randomize_

SIGNS = VectorAction.signs(12, copies=2)


def events(count=3):
    return torch.randn(count, SIGNS.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("hidden", [None, HiddenFields(4, 2)])
def test_networks_are_equivariant(hidden):
    network = randomize_(EquivariantMLP(SIGNS, SIGNS, width=2, hidden_fields=hidden).double())
    assert_equivariant(network, SIGNS, SIGNS, events())
    assert network(events()).abs().max() > 0.1


@pytest.mark.parametrize("make", [GLinear, GRadial, g_autoregressive, g_residual])
def test_layers(make):
    assert_layer(randomize_(make(SIGNS).double()), events(2))


@pytest.mark.parametrize("covariance", ["isotypic", "full"])
def test_bases(covariance):
    base = InvariantNormal(SIGNS, covariance=covariance)
    randomize_(base.module.double())
    assert_invariant(base, SIGNS, events())
    matrix = base.covariance_matrix
    pairs = matrix.unflatten(0, (2, 12)).unflatten(-1, (2, 12)).detach()
    assert bool((pairs[0, :, 1].diagonal() != 0).all()) == (covariance == "full")  # the copies of one sign
    assert (matrix.abs() > 1e-12).sum() == (48 if covariance == "full" else 24)
