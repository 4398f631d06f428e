"""Layers and bases on rows without a network: small matrices, at a cost that is linear in the number of rows."""

import pytest
import torch

from pyro_gflows import GActNorm, GLinear, GRadial, InvariantNormal, RowsAction
from pyro_gflows.distributions import InvariantStudentT
from pyro_gflows.testing import assert_invariant, assert_layer, randomize_
from pyro_gflows.transforms import GLinearPLU
from tests.constructors.row_actions import LARGE, SMALL, enumerated, hidden_units, mixture

LAYERS = [GActNorm, GLinear, GLinearPLU, GRadial]
EVERY = SMALL | LARGE
SOME = ["mixture of 3", "signed S4, odd and even", "S3 x C4", "S50", "5 hidden units", "two large blocks", "S7 x SO(2)"]


def events(action, *batch, seed=0):
    return torch.randn(*batch, action.numel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_weights(module, scale=0.3):
    return randomize_(module.double(), scale=scale, generator=torch.Generator().manual_seed(1))


def dense(function, action):
    with torch.no_grad():
        return function(torch.eye(action.numel, dtype=torch.float64)).T


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_an_equivariant_bijection_with_its_log_det(layer, name):
    action = EVERY[name]
    assert_layer(random_weights(layer(action)), events(action, 2))


@pytest.mark.parametrize("name", SMALL)
def test_linear_layers_reach_every_equivariant_matrix_of_the_table(name):
    action = SMALL[name]
    table = enumerated(action)
    known = random_weights(GLinear(table), scale=1.0)
    logarithm = known.generator.matrix().detach()
    found = GLinear(action)
    count = sum(weight.numel() for weight in found.parameters())
    assert count == sum(weight.numel() for weight in known.parameters())
    # minus the matrix exponential has negative eigenvalues, which only the triangular layer reaches
    matrix = -torch.linalg.matrix_exp(logarithm)
    layer = GLinearPLU.from_matrix(action, matrix)
    torch.testing.assert_close(dense(layer, action), matrix, rtol=1e-10, atol=1e-10)
    log_det = layer.call_and_ladj(events(action))[1]
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("name", EVERY)
def test_the_exponential_layer_is_the_exponential_of_its_generator(name):
    action = EVERY[name]
    layer = random_weights(GLinear(action), scale=0.05)
    layer.max_log_scale = 1e6  # so far that it does not shorten the logarithms
    generator, matrix = dense(layer.generator, action), dense(layer, action)
    torch.testing.assert_close(matrix, torch.linalg.matrix_exp(generator), rtol=1e-9, atol=1e-9)
    log_det = layer.call_and_ladj(events(action))[1]
    torch.testing.assert_close(log_det, generator.trace(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("covariance", ["isotypic", "full"])
def test_a_base_has_the_density_of_its_covariance(covariance, name):
    action = EVERY[name]
    mean = bool(action.decomposition[0].is_trivial)
    base = InvariantNormal(action, covariance=covariance, mean=mean)
    random_weights(base.module)
    x, matrix = events(action, 3), base.covariance_matrix.detach()
    expected = torch.distributions.MultivariateNormal(base.mean.detach(), matrix).log_prob(x)
    torch.testing.assert_close(base.log_prob(x).detach(), expected, rtol=1e-10, atol=1e-8)
    for matrices in action.matrix(action.sample((3,), torch.Generator().manual_seed(0))):
        torch.testing.assert_close(matrices @ matrix @ matrices.T, matrix, rtol=0.0, atol=1e-10)
    assert_invariant(base, action, x)


@pytest.mark.parametrize("name", SMALL)
def test_the_full_covariance_has_the_parameters_of_the_table(name):
    action = SMALL[name]
    for covariance in ("isotypic", "full"):
        found, known = (InvariantNormal(a, covariance=covariance).module for a in (action, enumerated(action)))
        assert sum(p.numel() for p in found.parameters()) == sum(p.numel() for p in known.parameters())


@pytest.mark.parametrize("name", ["S5", "mixture of 3", "two blocks"])
def test_a_full_covariance_is_matched(name):
    action = SMALL[name]
    known = InvariantNormal(enumerated(action), covariance="full")
    random_weights(known.module)
    base = InvariantNormal(action, covariance="full")
    base.module.double().factor.match_(known.covariance_matrix.detach())
    torch.testing.assert_close(base.covariance_matrix, known.covariance_matrix, rtol=0.0, atol=1e-10)


def test_every_feature_is_standardized_and_only_invariant_directions_are_shifted():
    action = mixture(8)
    scales = torch.cat([torch.full((7,), 0.1), torch.tensor([3.0, 7.0] * 8), torch.full((8,), 0.5), torch.ones(1)])
    x = events(action, 200) * scales.double() + scales.double()
    layer = GActNorm(action).double()
    out = layer.initialize(x)
    rows = action.unpack(out)
    features = rows.even[0].flatten(0, 1)
    assert len(layer.log_scale) == 5 and len(layer.shift) == 4
    torch.testing.assert_close(features[:, 1:].mean(0), torch.zeros(3, dtype=torch.float64), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(features[:, 1:].square().mean(0).sqrt(), torch.ones(3).double(), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(out[:, :7].square().mean(), torch.ones(()).double(), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(rows.rest.mean(0), torch.zeros(1, dtype=torch.float64), rtol=0.0, atol=1e-12)
    assert_layer(layer, x[:3])


def test_odd_features_are_scaled_one_by_one_and_not_shifted():
    action = hidden_units(6)
    layer = random_weights(GActNorm(action))
    assert len(layer.log_scale) == 4 and len(layer.shift) == 1
    rows = action.unpack(layer(torch.zeros(action.numel, dtype=torch.float64)))
    assert not rows.odd[0].any() and rows.even[0].any()


@pytest.mark.parametrize("layer", LAYERS)
def test_ten_thousand_rows_take_no_dense_matrix(layer):
    action = RowsAction(10_000, 3)  # a matrix of this event has 7 GB
    made = random_weights(layer(action))
    x = events(action, 2)
    y, ladj = made.call_and_ladj(x)
    back, inverse_ladj = made.inv_call_and_ladj(y)
    torch.testing.assert_close(back, x, rtol=0.0, atol=1e-8)
    torch.testing.assert_close(ladj, -inverse_ladj, rtol=1e-10, atol=1e-10)
    assert sum(value.numel() for value in made.state_dict().values()) < 1000


@pytest.mark.parametrize("base", [InvariantNormal, InvariantStudentT])
@pytest.mark.parametrize("covariance", ["isotypic", "full"])
def test_bases_of_ten_thousand_rows_take_no_dense_matrix(base, covariance):
    action = RowsAction(10_000, 3)
    made = base(action, covariance=covariance, mean=True)
    random_weights(made.module)
    draws = made.rsample((2,))
    assert made.log_prob(draws).isfinite().all()
    (image,) = action.act_each(action.sample((1,)), draws[:1])
    torch.testing.assert_close(made.log_prob(image), made.log_prob(draws[0]), rtol=1e-12, atol=1e-8)
