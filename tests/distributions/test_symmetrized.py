"""Symmetrized against sums written out by hand."""

import copy
import math
import pickle

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal, Symmetrized
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_invariant

D5 = VectorAction.plane("D5")
MEAN = torch.tensor([1.5, 0.4], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
BASES = {
    "full covariance": lambda: dist.MultivariateNormal(MEAN, COVARIANCE),
    "independent": lambda: dist.Normal(MEAN, torch.tensor([0.5, 0.2], dtype=torch.float64)).to_event(1),
    "batch": lambda: dist.MultivariateNormal(MEAN * torch.arange(3.0)[:, None], COVARIANCE),
}


@pytest.fixture(params=BASES)
def base(request):
    return BASES[request.param]()


def test_log_prob_is_the_mean_over_the_group(base):
    x = torch.randn(4, 1, 2, dtype=torch.float64)
    rho = D5.matrix(D5.elements())
    by_hand = torch.stack([base.log_prob(x @ matrix).exp() for matrix in rho]).mean(0).log()  # x @ M is M^-1 x
    torch.testing.assert_close(Symmetrized(base, D5).log_prob(x), by_hand, rtol=1e-10, atol=1e-10)


def test_log_prob_is_invariant(base):
    symmetric = Symmetrized(base.expand(()) if not base.batch_shape else base, D5)
    x = torch.randn(4, *base.batch_shape, 2, dtype=torch.float64)
    assert_invariant(symmetric, D5, x)


def test_far_from_the_data_the_log_prob_is_still_finite():
    x = torch.tensor([1e3, 0.0], dtype=torch.float64)
    assert -1e7 < Symmetrized(BASES["full covariance"](), D5).log_prob(x) < -1e5


def test_moments_are_those_of_the_draws(base):
    torch.manual_seed(0)
    symmetric = Symmetrized(base, D5)
    x = symmetric.sample((40_000,))
    assert x.shape == symmetric.shape((40_000,))
    assert ((x.mean(0) - symmetric.mean).abs() < 5 * (symmetric.variance / 40_000).sqrt()).all()
    torch.testing.assert_close(x.var(0), symmetric.variance, rtol=0.05, atol=0.0)
    assert symmetric.mean.shape == symmetric.variance.shape == symmetric.shape()


def test_moments_where_the_group_leaves_a_direction_alone():
    """C2 swaps the first two of three components: their mean and variance are those of both together."""
    swap = VectorAction.rows("S2").direct_sum(VectorAction.trivial("S2"))
    mean, sd = torch.tensor([3.0, 1.0, 7.0], dtype=torch.float64), torch.tensor([0.5, 0.25, 2.0], dtype=torch.float64)
    symmetric = Symmetrized(dist.Normal(mean, sd).to_event(1), swap)
    torch.testing.assert_close(symmetric.mean, torch.tensor([2.0, 2.0, 7.0], dtype=torch.float64))
    within = (0.5**2 + 0.25**2) / 2
    torch.testing.assert_close(symmetric.variance, torch.tensor([within + 1, within + 1, 4.0], dtype=torch.float64))


def test_variance_under_signed_permutations_needs_no_covariance():
    base = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2, dtype=torch.float64)),
        dist.MultivariateNormal(torch.stack([MEAN, -2 * MEAN.flip(0)]), COVARIANCE),
    )
    torch.manual_seed(0)
    symmetric = Symmetrized(base, VectorAction.plane("D4"))
    torch.testing.assert_close(symmetric.sample((40_000,)).var(0), symmetric.variance, rtol=0.05, atol=0.0)
    with pytest.raises(NotImplementedError, match="covariance_matrix"):
        Symmetrized(base, D5).variance  # noqa: B018


@pytest.mark.long
def test_density_integrates_to_one():
    line = torch.linspace(-9, 9, 601, dtype=torch.float64)
    log_prob = Symmetrized(BASES["full covariance"](), D5).log_prob(torch.cartesian_prod(line, line))
    assert abs(log_prob.exp().sum() * (line[1] - line[0]) ** 2 - 1) < 1e-9


def test_support_is_the_orbit_of_the_bases():
    square = dist.Uniform(torch.zeros(2), torch.ones(2)).to_event(1)
    symmetric = Symmetrized(square, VectorAction.plane("C4"))
    x = torch.tensor([[-0.5, 0.5], [0.2, -0.3]])
    torch.testing.assert_close(symmetric.log_prob(x), torch.full((2,), -math.log(4.0)))
    assert symmetric.support.check(torch.tensor([[-0.5, 0.5], [-0.5, 1.5]])).tolist() == [True, False]
    with pytest.raises(ValueError, match="support"):
        symmetric.log_prob(torch.tensor([2.0, 0.0]))


def test_gradients_are_finite_though_images_leave_the_bases_support():
    symmetric = Symmetrized(dist.Gamma(torch.tensor([2.5, 1.5]), 1.0).to_event(1), VectorAction.plane("C4"))
    x = torch.tensor([[-0.5, 0.5], [0.2, -0.3]], requires_grad=True)
    log_prob = symmetric.log_prob(x)
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and x.grad is not None and x.grad.isfinite().all()


def test_draws_are_reparametrized_given_the_element():
    mean = MEAN.clone().requires_grad_()
    symmetric = Symmetrized(dist.MultivariateNormal(mean, COVARIANCE), D5)
    assert symmetric.has_rsample
    (gradient,) = torch.autograd.grad(symmetric.rsample((20_000,)).square().sum(-1).mean(), mean)
    torch.testing.assert_close(gradient, 2 * MEAN, rtol=0.05, atol=0.05)  # E|x|^2 = |mean|^2 + const
    assert not symmetric.sample().requires_grad


def test_expand_and_batches():
    symmetric = Symmetrized(BASES["full covariance"](), D5)
    wide = symmetric.expand((3,)).expand((2, 3))
    assert symmetric.batch_shape == () and wide.batch_shape == (2, 3)
    x = torch.randn(2, dtype=torch.float64)
    assert wide.log_prob(x).shape == (2, 3) and wide.sample((5,)).shape == (5, 2, 3, 2)
    torch.testing.assert_close(wide.log_prob(x), symmetric.log_prob(x).expand(2, 3))


def test_module_is_that_of_the_base():
    action = VectorAction.plane("D5", copies=2)
    base = InvariantNormal(VectorAction.plane("C1", copies=2), covariance="full")
    symmetric = Symmetrized(base, action)
    assert list(symmetric.module.parameters()) == list(base.module.parameters())
    assert symmetric.expand((3,)).module is symmetric.module
    symmetric.module.double()
    assert symmetric.sample().dtype == torch.float64
    spline = dist.transforms.spline_coupling(2)
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [spline])
    assert list(Symmetrized(flow, D5).module.parameters()) == list(spline.parameters())


def test_copies_pickles_and_descriptions_agree():
    base = InvariantNormal(VectorAction.plane("C2"), covariance="full")
    symmetric = Symmetrized(base, D5)
    x = torch.randn(3, 2)
    for other in (copy.deepcopy(symmetric), pickle.loads(pickle.dumps(symmetric)), build(describe(symmetric))):
        assert torch.equal(other.log_prob(x), symmetric.log_prob(x))


def test_bad_input():
    base = dist.Normal(torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"event shape \(2,\).*got \(\).*to_event"):
        Symmetrized(base, D5)
    with pytest.raises(ValueError, match="infinitely many"):
        Symmetrized(base.to_event(1), VectorAction.plane("O(2)"))
    with pytest.raises(TypeError, match=r"flow\.dist"):
        Symmetrized(torch.nn.Linear(2, 2), D5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        Symmetrized(base.to_event(1), D5).log_prob(torch.zeros(3))
