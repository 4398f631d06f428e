"""Path gradients: unbiased, without noise at the optimum, and the same whichever way the score is found."""

import copy

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantNormal, OrbitMixture, ParticleAction, Symmetrized, VectorAction
from pyro_gflows.flows import Canonicalized, OrbitFlow
from pyro_gflows.flows.learnable import learnable
from pyro_gflows.nn import LipschitzSum, RadialTerm, Ridges
from pyro_gflows.training import reverse_kl_loss
from pyro_gflows.training.objectives.path_gradient import draws_and_scores
from pyro_gflows.transforms import GActNorm, GResidual, InCoordinates, g_autoregressive, g_coupling, g_residual

LINE = VectorAction.from_generators([-torch.eye(1, dtype=torch.float64)])
PLANE = VectorAction.plane("D4")
REGULAR = VectorAction.regular("C2", copies=2)


def flow(action, make, *, base=InvariantNormal, layers=2, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = EquivariantFlow(base(action), [GActNorm(action), *(make(action) for _ in range(layers))]).double()
        for parameter in found.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return found.eval()


def scoring_residual(action, *, fast="score"):
    # far from singular, or the gradients have tails too long for an error bar from this many draws; and with few knots,
    # as the log-det has a kink at each, which a quadrature must resolve
    def branch(action):
        return LipschitzSum([Ridges(action, 2, knots=4), RadialTerm(action, knots=4)], bound=0.6)

    return g_residual(action, branch=branch, fast=fast)


def sampling_residual(action):
    return scoring_residual(action, fast="sample")


def symmetrized():
    plain = VectorAction.plane("C1")
    return Symmetrized(flow(plain, scoring_residual, layers=1).dist, PLANE)


def small_orbit_flow(action):
    return OrbitFlow(action, steps=2, width=2)


def canonicalized():
    torch.manual_seed(0)
    base = Canonicalized(PLANE, steps=2, width=2)
    for parameter in base.module.double().parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return base


def orbit_mixture():
    torch.manual_seed(1)
    mixture = OrbitMixture(PLANE)
    mixture.module.double()
    return mixture


CASES = {
    "residual, cheap to sample, in 1-D": lambda: flow(LINE, sampling_residual),
    "residual, cheap to sample, in 2-D": lambda: flow(PLANE, sampling_residual),
    "residual, cheap to score": lambda: flow(LINE, scoring_residual),
    "learnable base": lambda: flow(PLANE, sampling_residual, base=lambda a: InvariantNormal(a, covariance="full")),
    "orbit mixture under a flow": lambda: flow(PLANE, sampling_residual, base=OrbitMixture),
    "orbit flow under a flow": lambda: flow(PLANE, sampling_residual, base=small_orbit_flow, layers=1),
    "orbit mixture": orbit_mixture,
    "symmetrized flow": symmetrized,
    "canonicalized": canonicalized,
}


def target(x):
    """Without any symmetry, so that no error can cancel; not normalized."""
    return -0.5 * (x - 0.3).square().sum(-1) + 0.4 * (1.5 * x).sin().sum(-1)


def normal_grid(dim):
    """Evenly spaced nodes (the flows have kinks, at which Gauss's do badly) and weights of the standard normal."""
    nodes = torch.linspace(-7.0, 7.0, 2001 if dim == 1 else 101, dtype=torch.float64)
    grid = torch.cartesian_prod(*[nodes] * dim).reshape(-1, dim)
    return grid, torch.softmax(-0.5 * grid.square().sum(-1), 0)


def quadrature(distribution):
    """Nodes, as functions of the parameters, and weights of expectations under a distribution."""
    if isinstance(distribution, Symmetrized):
        nodes, weights = quadrature(distribution.base)
        images = distribution.action.act_all(nodes)
        return images.flatten(0, 1), weights.repeat(len(images)) / len(images)
    if isinstance(distribution, Canonicalized):
        nodes, weights = quadrature(distribution.density)
        images = distribution.action.act_all(nodes)
        return images.flatten(0, 1), weights.repeat(len(images)) / len(images)
    if isinstance(distribution, InvariantNormal):
        grid, weights = normal_grid(distribution.action.numel)
        return distribution.module.factor(grid) + distribution.module.location(grid), weights
    nodes, weights = quadrature(distribution.base_dist)
    for transform in distribution.transforms:
        nodes = transform(nodes)
    return nodes, weights


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_its_mean_is_the_exact_gradient_of_the_divergence(case):
    density = learnable(CASES[case]())
    parameters = [p for p in density.module.parameters() if p.numel()]
    torch.manual_seed(2)
    directions = [[torch.randn_like(p) for p in parameters] for _ in range(3)]

    def project(loss):
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = [list(zip(gradients, direction, strict=True)) for direction in directions]
        return torch.stack([sum((g * d).sum() for g, d in pair if g is not None) for pair in pairs])

    x, weights = quadrature(density.distribution)
    exact = project((weights * (density.distribution.log_prob(x) - 0.7 * target(x))).sum())
    batches = [project(reverse_kl_loss(density.distribution, target, 250, inverse_temperature=0.7)) for _ in range(30)]
    estimates = torch.stack(batches)
    error = (estimates.mean(0) - exact).abs() / (estimates.std(0) / len(estimates) ** 0.5)
    assert (error < 4).all(), error


@pytest.mark.parametrize("case", CASES)
def test_without_noise_where_the_fit_is_exact(case):
    density = learnable(CASES[case]())
    frozen = copy.deepcopy(density.distribution)
    loss = reverse_kl_loss(density.distribution, frozen.log_prob, 20)
    gradients = torch.autograd.grad(loss, list(density.module.parameters()), allow_unused=True)
    assert abs(loss.item()) < 1e-8
    assert max(g.abs().max().item() for g in gradients if g is not None and g.numel()) < 1e-6


@pytest.mark.parametrize(
    ("action", "make"),
    [
        (PLANE, sampling_residual),
        (REGULAR, sampling_residual),
        (REGULAR, lambda action: g_autoregressive(action, fast="sample")),
    ],
    ids=["residual in 2-D", "residual in 4-D", "autoregressive"],
)
def test_the_score_is_that_of_the_explicit_inverse(action, make):
    q = flow(action, make).dist
    x, log_q, score = draws_and_scores(q, 30)
    leaf = x.detach().requires_grad_()
    expected = q.log_prob(leaf)
    torch.testing.assert_close(log_q, expected.detach(), rtol=0, atol=1e-7)
    torch.testing.assert_close(score, torch.autograd.grad(expected.sum(), leaf)[0], rtol=1e-6, atol=1e-6)


def test_the_score_of_particles_is_along_their_space():
    """Configurations with center of mass 0 have fewer dimensions than coordinates: the dense Jacobian is singular."""

    def radial(action):
        return LipschitzSum([RadialTerm(action, knots=4)], bound=0.6)

    action = ParticleAction(3, 2)
    inner = flow(action.coordinates, lambda action: g_residual(action, branch=radial, fast="sample"))
    layers = [InCoordinates(layer, action) for layer in inner.transforms]
    q = EquivariantFlow(InvariantNormal(action), layers).double().eval().dist
    x, log_q, score = draws_and_scores(q, 30)
    leaf = x.detach().requires_grad_()
    expected = q.log_prob(leaf)
    torch.testing.assert_close(log_q, expected.detach(), rtol=0, atol=1e-7)
    torch.testing.assert_close(score, torch.autograd.grad(expected.sum(), leaf)[0], rtol=1e-6, atol=1e-6)


def test_a_flow_that_is_cheap_to_sample_is_not_inverted(monkeypatch):
    def refuse(*_):
        raise AssertionError("inverted")

    monkeypatch.setattr(GResidual, "many_passes", refuse)
    reverse_kl_loss(flow(PLANE, sampling_residual).dist, target, 10).backward()


def test_coupling_flows_too():
    """A flow of another kind, and a large noise to be without: the gradient's own where q = p, scored as one would."""
    q = flow(REGULAR, g_coupling)
    frozen = copy.deepcopy(q)
    path = reverse_kl_loss(q.dist, frozen, 50)
    x = q.dist.rsample((50,))
    full = (q(x.view_as(x)) - frozen(x)).mean()
    norms = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(q.parameters()))]).norm().item()
        for loss in (path, full)
    ]
    assert norms[0] < 1e-8 < 1e-2 < norms[1]


def test_single_precision():
    q = flow(PLANE, sampling_residual).float().dist
    x, log_q, score = draws_and_scores(q, 10)
    assert x.dtype == log_q.dtype == score.dtype == torch.float32


def test_any_distribution_with_reparametrized_draws():
    loc = torch.zeros(2, requires_grad=True)
    reverse_kl_loss(dist.Normal(loc, 1.0).to_event(1), lambda x: -0.5 * (x - 1).square().sum(-1), 1000).backward()
    assert torch.allclose(loc.grad, -torch.ones(2), atol=1e-5)
