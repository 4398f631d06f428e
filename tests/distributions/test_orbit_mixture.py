"""OrbitMixture: a mixture of normals, checked against Pyro's own."""

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.distributions import OrbitMixture
from pyro_gflows.testing import assert_invariant, randomize_

ACTION = VectorAction.rows("S3", features=2)


@pytest.fixture
def base(dtype):
    base = OrbitMixture(ACTION)
    randomize_(base.module.to(dtype))
    return base


def test_is_the_mixture_of_the_images(base, dtype):
    normal = base.base
    matrices = ACTION.matrix(ACTION.elements()).to(dtype)
    components = dist.MultivariateNormal(ACTION.act_all(normal.mean), matrices @ normal.covariance_matrix @ matrices.mT)
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(6, dtype=dtype)), components)
    x = base.sample((7, 2))
    assert x.shape == (7, 2, 6) and x.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(base.log_prob(x), mixture.log_prob(x), rtol=0, atol=tolerance)
    assert_invariant(base, ACTION, x)


def test_every_mode_is_drawn_equally_often():
    base = OrbitMixture(VectorAction.rows("S3"), covariance="isotypic", spread=10.0)
    with torch.no_grad():
        base.module[0].factor.log_scale.fill_(-4.0)
    order = base.sample((6000,)).argsort(-1)
    counts = torch.unique(order, dim=0, return_counts=True)[1]
    assert len(counts) == 6 and (counts - 1000).abs().max() < 5 * 29


def test_draws_carry_gradients_to_the_mean_and_the_covariance():
    base = OrbitMixture(ACTION)
    base.rsample((16,)).sin().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in base.module.parameters())


@pytest.mark.parametrize("covariance", ["full", "isotypic", "isotropic"])
def test_is_placed_at_a_location_with_a_covariance_so_far_as_it_can_have_it(covariance):
    base = OrbitMixture(ACTION, covariance=covariance)
    base.module.double()
    generator = torch.Generator().manual_seed(2)
    location = torch.randn(6, generator=generator, dtype=torch.float64)
    factor = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    base.start_at(location, factor.requires_grad_())
    wanted, identity = (factor @ factor.T).detach(), torch.eye(6, dtype=torch.float64)
    nearest = {"full": wanted, "isotypic": wanted.diagonal().mean() * identity, "isotropic": identity}
    torch.testing.assert_close(base.base.mean, location)
    torch.testing.assert_close(base.base.covariance_matrix, nearest[covariance], rtol=1e-10, atol=1e-10)
    assert all(parameter.is_leaf for parameter in base.module.parameters())


def test_bad_input_says_what_was_expected():
    with pytest.raises(TypeError, match="expected a VectorAction .* got ImageAction"):
        OrbitMixture(ImageAction("C4", size=2))
    with pytest.raises(ValueError, match="infinitely many elements"):
        OrbitMixture(VectorAction.plane("O(2)"))
    with pytest.raises(ValueError, match="expected covariance to be one of"):
        OrbitMixture(ACTION, covariance="diagonal")
