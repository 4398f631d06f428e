"""Heavy-tailed and compact invariant bases, against closed forms and torch's own distributions."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal, InvariantStudentT, InvariantUniformBall
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_invariant, randomize_

ACTION = VectorAction.rows("S3", features=2)
MAKE = {
    "t": lambda action, **options: InvariantStudentT(action, df=5.0, **options),
    "ball": InvariantUniformBall,
    "normal": InvariantNormal,
}


@pytest.fixture(params=MAKE)
def make(request):
    return MAKE[request.param]


@torch.no_grad()
@pytest.mark.parametrize("covariance", ["isotropic", "isotypic", "full"])
def test_moments_and_entropy_are_those_of_the_draws(make, covariance):
    base = make(ACTION, covariance=covariance, mean=True)
    randomize_(base.module.double())
    x = base.sample((40000,))
    assert x.dtype == torch.float64
    assert_invariant(base, ACTION, x[:50])
    sd = base.variance.sqrt()
    assert ((x.mean(0) - base.mean) / sd).abs().max() < 5 / 200
    torch.testing.assert_close(x.var(0), base.variance, rtol=0.1, atol=0)
    torch.testing.assert_close(torch.cov(x.T), base.covariance_matrix, rtol=0, atol=0.1 * float(sd.max()) ** 2)
    assert -base.log_prob(x).mean().item() == pytest.approx(base.entropy().item(), abs=0.05)


def test_the_t_distribution_is_pyros():
    base = InvariantStudentT(ACTION, df=3.0).expand((2,))
    reference = dist.MultivariateStudentT(torch.tensor(3.0), torch.zeros(6), torch.eye(6))
    x = base.sample((5,))
    assert x.shape == (5, 2, 6)
    torch.testing.assert_close(base.log_prob(x), reference.log_prob(x))


def test_the_density_on_the_ball_is_one_over_its_volume():
    base = InvariantUniformBall(VectorAction.space("SO(3)"))
    x = base.sample((2000,))
    assert x.norm(dim=-1).max() <= math.sqrt(5) * (1 + 1e-6)
    assert base.log_prob(x).exp().mul(4 / 3 * math.pi * 5**1.5).sub(1).abs().max() < 1e-5
    assert base.log_prob(torch.tensor([0.0, 0.0, 2.3])) == -math.inf
    shells = (x.norm(dim=-1) / math.sqrt(5)) ** 3
    assert shells.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 2000))


def test_descriptions_and_gradients(make):
    base = make(ACTION, covariance="full")
    assert repr(build(describe(base))) == repr(base)
    base.rsample((8,)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in base.module.parameters())


def test_a_description_says_whether_the_mean_is_learned(make):
    action = VectorAction.trivial("C2", copies=2)
    assert "mean=True" in repr(make(action, mean=True)) and "mean" not in repr(make(action))


@pytest.mark.parametrize(
    ("df", "variance"), [(0.5, math.inf), (1.5, math.inf), (2.0, math.inf), (2.5, 5.0), (4.0, 2.0)]
)
def test_a_variance_is_finite_above_two_degrees_of_freedom(df, variance):
    assert InvariantStudentT(ACTION, df=df).variance.tolist() == [pytest.approx(variance)] * ACTION.numel


@pytest.mark.parametrize("df", [0.0, -1.0, math.inf, math.nan])
def test_degrees_of_freedom_are_positive(df):
    with pytest.raises(ValueError, match="positive, finite degrees of freedom"):
        InvariantStudentT(ACTION, df=df)
