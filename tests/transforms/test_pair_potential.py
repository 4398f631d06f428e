"""Pair potentials of particles: the bound of the curvature, exact log-dets, and inverses, with close pairs too."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn

from pyro_gflows import EquivariantFlow, InvariantNormal, ParticleAction
from pyro_gflows.nn import PairPotential
from pyro_gflows.numerics import BanachSolver, InverseDidNotConverge
from pyro_gflows.numerics.contrasts import from_contrasts
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import GPairPotential

ACTIONS = {
    "4 in the plane": ParticleAction(4, 2),
    "species in space": ParticleAction((2, 3), 3),
    "3 in space": ParticleAction((2, 1), 3, group="SO(3)"),
    "13 in space": ParticleAction(13, 3),
    "free": ParticleAction((1, 2), 2, group="C1", center="free"),
    "line": ParticleAction(2, 1),
    "four dimensions": ParticleAction(3, 4, group="C1"),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def layer_on(action, *, scale=2.0, seed=1, **options):
    layer = GPairPotential(action, knots=7, limit=5.0, **options).double()
    randomize_(layer, scale=scale, generator=generator(seed))
    return layer


def configurations(action, *batch, close=None):
    """Random configurations, in which the first two particles are as close as that."""
    x = 1.5 * torch.randn(*batch, *action.event_shape, dtype=torch.float64, generator=generator(2))
    if close is not None:
        away = torch.randn(*batch, action.d, dtype=torch.float64, generator=generator(3))
        x[..., 1, :] = x[..., 0, :] + close * away / away.norm(dim=-1, keepdim=True)
    return action.space.project(x)


def hessian_by_loops(potential, x):
    """The Hessian of one configuration from its definition, pair by pair."""
    n, d = x.shape
    species = [index for index, size in enumerate(potential.action.species) for _ in range(size)]
    kinds = {}
    weights = potential._weights().detach()
    center = torch.eye(n, dtype=x.dtype) - 1 / n

    def spring(z, row, scale=1.0):
        r = z.norm()
        value, slope = potential.radial(r / scale, row)
        outer = torch.outer(z, z) / r**2
        return slope * outer + scale * value / r * (torch.eye(len(z), dtype=x.dtype) - outer)

    total = torch.zeros(n * d, n * d, dtype=x.dtype)
    for i in range(n):
        for j in range(i + 1, n):
            difference = torch.zeros(1, n, dtype=x.dtype)
            difference[0, i], difference[0, j] = 1.0, -1.0
            rows = torch.kron(difference, torch.eye(d, dtype=x.dtype))
            kind = kinds.setdefault((species[i], species[j]), len(kinds))
            total += weights[0] * rows.T @ spring(x[i] - x[j], kind) @ rows
    if potential.one_body:
        for i in range(n):
            rows = torch.kron(center[i : i + 1], torch.eye(d, dtype=x.dtype))
            total += weights[1] * rows.T @ spring(x[i] - x.mean(0), len(kinds) + species[i]) @ rows
        rows = torch.kron(center, torch.eye(d, dtype=x.dtype))
        total += weights[2] * rows.T @ spring((x - x.mean(0)).flatten(), len(kinds) + species[-1] + 1, n**0.5) @ rows
    return total


@pytest.mark.parametrize("one_body", [True, False])
@pytest.mark.parametrize("name", ACTIONS)
def test_the_hessian_is_the_sum_over_pairs_and_the_derivative_of_the_gradient(name, one_body):
    action = ACTIONS[name]
    potential = layer_on(action, one_body=one_body).potential
    x = configurations(action, 2, close=1e-3)
    value, hessian = potential.call_and_jacobian(x)
    assert torch.equal(value, potential(x))
    by_autograd = torch.stack([torch.func.jacrev(potential)(each) for each in x])
    assert torch.allclose(hessian, by_autograd.reshape(hessian.shape), atol=1e-10)
    assert torch.allclose(hessian, torch.stack([hessian_by_loops(potential, each) for each in x]), atol=1e-10)
    assert hessian.abs().max() > 0.04


def test_the_gradient_is_that_of_the_sum_over_pairs():
    """Values by the formula, with the kind of each pair written out."""
    action = ParticleAction((2, 2), 2)
    layer = layer_on(action, one_body=False, bound=0.8)
    x = configurations(action, close=1e-3)
    kinds = {(0, 0): 0, (0, 1): 1, (1, 1): 2}
    of = [0, 0, 1, 1]
    y = x.clone()
    for i in range(4):
        for j in range(4):
            if i != j:
                r = (x[i] - x[j]).norm()
                g, _ = layer.potential.radial(r, kinds[min(of[i], of[j]), max(of[i], of[j])])
                y[i] += 0.8 / 4 * g * (x[i] - x[j]) / r
    assert torch.allclose(layer.inv(x), y, atol=1e-13)


# -- the bound ---------------------------------------------------------------------------------------------------------
def adversarial(action):
    """Configurations on a line, on one point but for one particle, in two clusters, and at random."""
    n, d = action.event_shape
    line = torch.zeros(n, d, dtype=torch.float64)
    line[:, 0] = torch.arange(n)
    alone = torch.zeros(n, d, dtype=torch.float64)
    alone[0, 0] = 3.0
    clusters = 1e-3 * torch.randn(n, d, dtype=torch.float64, generator=generator(5))
    clusters[n // 2 :, 0] += 2.0
    fixed = torch.stack([line, 0.1 * line, alone, clusters, torch.zeros_like(line)])
    return action.space.project(torch.cat([fixed, configurations(action, 30)]))


@pytest.mark.parametrize("one_body", [True, False])
@pytest.mark.parametrize("name", ACTIONS)
def test_no_eigenvalue_is_below_the_bound(name, one_body):
    action = ACTIONS[name]
    x = adversarial(action)
    for seed in range(5):
        potential = layer_on(action, one_body=one_body, scale=4.0, seed=seed).potential
        randomize_(potential.radial, scale=10.0, generator=generator(seed + 10))
        eigenvalues = torch.linalg.eigvalsh(potential.call_and_jacobian(x)[1].detach())
        bound = potential.curvature_bound().item()
        assert bound <= 0.97 + 1e-12
        assert eigenvalues.min() >= -bound - 1e-12
        assert eigenvalues.abs().max() <= potential.lipschitz_bound().item() + 1e-12


@pytest.mark.parametrize("one_body", [True, False])
def test_the_bound_is_attained(one_body):
    """Where all slopes are as low as they can be, the map is the multiplication by 1 - c."""
    action = ParticleAction((2, 3), 3)
    layer = layer_on(action, one_body=one_body)
    nn.init.constant_(layer.potential.radial.theta, -60.0)
    x = adversarial(action)
    assert torch.allclose(layer.inv(x), 0.03 * x, atol=1e-12)
    assert layer.potential.curvature_bound().item() == pytest.approx(0.97, abs=1e-12)


def test_the_bound_of_each_kind_of_pairs_is_attained():
    """Slopes that differ by kind: the bound is the largest eigenvalue of the graph with these weights on its edges."""
    action = ParticleAction((2, 3), 2)
    potential = layer_on(action, one_body=False).potential
    with torch.no_grad():
        potential.radial.theta.copy_(torch.tensor([[0.5], [-3.0], [-1.0]]).expand(-1, 7))
    slopes = (0.97 / 5 * potential.radial.slopes()[:, 0]).tolist()
    weights = torch.zeros(5, 5, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            weights[i, j] = 0.0 if i == j else slopes[(0 if max(i, j) < 2 else 2 if min(i, j) > 1 else 1)]
    only_negative = -weights.clamp_max(0)
    laplacian = torch.diag(only_negative.sum(0)) - only_negative
    assert potential.curvature_bound().item() == pytest.approx(torch.linalg.eigvalsh(laplacian)[-1].item(), abs=1e-12)
    # on every configuration the Hessian is this Laplacian of all slopes, times the identity of the plane
    expected = torch.kron(torch.diag(weights.sum(0)) - weights, torch.eye(2, dtype=torch.float64))
    assert torch.allclose(potential.call_and_jacobian(configurations(action))[1], expected, atol=1e-12)


def test_small_slopes_make_a_contraction():
    """Where the bound above is below 1 too, the iteration for contractions finds the same inverse."""
    action = ParticleAction(4, 2)
    layer = layer_on(action, scale=0.3)
    bound = layer.lipschitz_bound()
    assert bound < 1
    y = configurations(action, 5)
    root, _ = BanachSolver()(layer.potential, y, 2, lipschitz=bound)
    assert torch.allclose(root, layer(y), atol=1e-10)


# -- a layer -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fast", ["score", "sample"])
@pytest.mark.parametrize("name", ACTIONS)
def test_it_is_a_layer(name, fast):
    action = ACTIONS[name]
    layer = layer_on(action, fast=fast)
    assert_layer(layer, configurations(action, 3))
    identity = GPairPotential(action, fast=fast).double()
    x = configurations(action, 3)
    assert torch.allclose(identity(x), x, atol=1e-12)


@functools.cache
def trained(name, fast):
    """The layer of a flow after steps of maximum likelihood, on configurations with close pairs among them."""
    action = ACTIONS[name]
    flow = EquivariantFlow(InvariantNormal(action), [layer_on(action, scale=1.0, fast=fast)]).double()
    x = configurations(action, 16, close=0.3)
    optimizer = torch.optim.Adam(flow.parameters(), 0.05)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = -flow(x).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    return flow.transform


@pytest.mark.parametrize("close", [None, 1e-3])
@pytest.mark.parametrize("fast", ["score", "sample"])
@pytest.mark.parametrize("name", ["4 in the plane", "3 in space", "free"])
@pytest.mark.parametrize("after_training", [False, True])
def test_dense_jacobians_in_a_tangent_basis(name, fast, close, after_training):
    action = ACTIONS[name]
    layer = trained(name, fast) if after_training else layer_on(action, fast=fast)
    x = configurations(action, 2, close=close)
    basis = (
        action.space.tangent_basis(x[0]) if action.center == "mean-free" else torch.eye(action.n * action.d).double()
    )
    basis = basis.reshape(-1, *action.event_shape)
    for transform in (layer, layer.inv):
        y, ladj = transform.call_and_ladj(x)
        assert (transform.inv(y) - x).abs().max() < 1e-8
        assert (transform.inv.call_and_ladj(y)[1] + ladj).abs().max() < 1e-8
        jacobian = torch.stack([torch.func.jvp(transform, (x[0],), (v,))[1] for v in basis])
        dense = jacobian.flatten(1) @ basis.flatten(1).T
        assert torch.linalg.slogdet(dense).logabsdet.item() == pytest.approx(ladj[0].item(), abs=1e-8)


def test_the_center_of_mass_stays():
    action = ACTIONS["free"]
    layer = layer_on(action)
    x = configurations(action, 4)
    assert torch.allclose(layer(x).mean(-2), x.mean(-2), atol=1e-12)
    shift = torch.tensor([3.0, -2.0], dtype=torch.float64)
    assert torch.allclose(layer(x + shift), layer(x) + shift, atol=1e-10)


def test_permutations_within_a_species_only():
    action = ParticleAction((2, 2), 2)
    layer = layer_on(action)
    x = configurations(action, 3)
    within, across = [1, 0, 2, 3], [2, 1, 0, 3]
    assert torch.allclose(layer(x[:, within]), layer(x)[:, within], atol=1e-10)
    assert (layer(x[:, across]) - layer(x)[:, across]).abs().max() > 1e-2


# -- particles at one place --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_particles_at_one_place(dtype):
    """The value, the log-det and the derivative of the map are the limits of those of close particles."""
    action = ParticleAction(4, 2)
    layer = layer_on(action).to(dtype)
    x, near = (configurations(action, 3, close=close).to(dtype) for close in (0.0, 1e-6))
    x.requires_grad_()
    y, ladj = layer.inv.call_and_ladj(x)
    near_y, near_ladj = layer.inv.call_and_ladj(near)
    tol = 1e-4 if dtype == torch.float32 else 1e-5
    assert torch.allclose(y, near_y, atol=tol)
    assert torch.allclose(ladj, near_ladj, atol=tol)
    for direction in (layer, layer.inv):
        y, ladj = direction.call_and_ladj(x)
        gradients = torch.autograd.grad(y.sin().sum() + ladj.sum(), [x, *layer.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)
    assert torch.allclose(layer.inv(layer(x)), x, atol=10 * tol)
    together = torch.zeros(4, 2, dtype=dtype)
    y, ladj = layer.call_and_ladj(together)
    assert y.abs().max() == 0
    assert ladj.isfinite()


def test_the_derivative_where_particles_meet():
    action = ParticleAction(4, 2)
    layer = layer_on(action)
    x = configurations(action, close=0.0)
    found = torch.func.jacrev(layer.potential)(x).reshape(8, 8)
    step = 1e-6
    moved = torch.eye(8, dtype=torch.float64).reshape(8, 4, 2)
    by_steps = (layer.potential(x + step * moved) - layer.potential(x - step * moved)) / (2 * step)
    assert torch.allclose(found, by_steps.reshape(8, 8).T, atol=1e-5)
    assert torch.allclose(layer.potential.call_and_jacobian(x)[1], found, atol=1e-12)


# -- the inverse -------------------------------------------------------------------------------------------------------
def test_the_report_of_the_inverse():
    action = ParticleAction(13, 3)
    layer = layer_on(action, scale=4.0)
    y = configurations(action, 20, close=1e-3)
    root, report = layer.solver(layer.potential, y, 2, lipschitz=math.inf)
    assert report.converged
    assert report.iterations < 30
    assert report.residual < 1e-10
    assert torch.allclose(root + layer.potential(root), y, atol=1e-10)


def test_an_inverse_that_does_not_converge_raises():
    action = ParticleAction(4, 2)
    layer = layer_on(action)
    layer.solver.max_iterations = 1
    with pytest.raises(InverseDidNotConverge, match="DampedNewtonSolver stopped after 1 iterations"):
        layer(configurations(action, 5))


@pytest.mark.parametrize("name", ["4 in the plane", "13 in space"])
def test_round_trips_far_away_and_in_single_precision(name):
    action = ACTIONS[name]
    layer = layer_on(action, scale=3.0)
    far = 1e3 * configurations(action, 5)
    assert torch.allclose(layer(layer.inv(far)), far, rtol=1e-10)
    assert torch.allclose(layer.inv(layer(far)), far, rtol=1e-10)
    single = layer_on(action, scale=1.0).float()
    x = configurations(action, 50, close=1e-3).float()
    assert (single.inv(single(x)) - x).abs().max() < 1e-4
    assert (single(single.inv(x)) - x).abs().max() < 1e-3


def test_gradients_through_the_inverse():
    """The implicit function theorem, in the weights and in the event, against differences."""
    action = ParticleAction((2, 2), 2)
    layer = layer_on(action)
    y = configurations(action, 2).requires_grad_()
    leaves = [y, *layer.parameters()]
    direction = [torch.randn(each.shape, dtype=each.dtype, generator=generator(7)) for each in leaves]

    def total():
        x, ladj = layer.call_and_ladj(y)
        return x.sin().sum() + ladj.sum()

    found = torch.autograd.grad(total(), leaves)
    slope = sum((g * v).sum().item() for g, v in zip(found, direction, strict=True))
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for leaf, v in zip(leaves, direction, strict=True):
                leaf.add_(v, alpha=step)
            values.append(total().item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


# -- a density ---------------------------------------------------------------------------------------------------------
GRID = torch.linspace(-6, 6, 1201, dtype=torch.float64)  # the one coordinate of two particles on a line
ON_A_LINE = from_contrasts(GRID[:, None]).unsqueeze(-1)


@pytest.mark.parametrize("fast", ["score", "sample"])
def test_a_density_integrates_to_one(fast):
    action = ACTIONS["line"]
    flow = EquivariantFlow(InvariantNormal(action), [layer_on(action, scale=1.0, fast=fast)]).double()
    with torch.no_grad():
        density = flow(ON_A_LINE).exp()
    assert density.sum().item() * 0.01 == pytest.approx(1, abs=1e-2)
    assert (density - InvariantNormal(action).log_prob(ON_A_LINE).exp()).abs().max() > 0.05


def test_it_learns_a_density_and_keeps_its_floor():
    action = ACTIONS["line"]
    log_p = -((GRID.square() - 4).square()) / 4
    log_p = log_p - log_p.exp().sum().mul(0.01).log()
    flow = EquivariantFlow(InvariantNormal(action), [GPairPotential(action, limit=4.0)]).double()
    optimizer = torch.optim.Adam(flow.parameters(), 0.05)
    for _ in range(120):
        optimizer.zero_grad()
        (0.08 * log_p[::8].exp() @ -flow(ON_A_LINE[::8])).backward()
        optimizer.step()
    with torch.no_grad():
        log_q = flow(ON_A_LINE)
    assert log_q.exp().sum().item() * 0.01 == pytest.approx(1, abs=1e-3)
    assert 0 <= 0.01 * (log_p.exp() * (log_p - log_q)).sum().item() < 0.02


# -- bad input ---------------------------------------------------------------------------------------------------------
BAD = {
    "action": (lambda: GPairPotential(ParticleAction(4, 2).coordinates), TypeError, "a ParticleAction such as"),
    "one particle": (lambda: PairPotential(ParticleAction(1, 2, center="free")), ValueError, "at least 2 particles"),
    "bound": (lambda: GPairPotential(ParticleAction(4, 2), bound=1.0), ValueError, "0 < bound < 1, got 1.0"),
    "knots": (lambda: GPairPotential(ParticleAction(4, 2), knots=1), ValueError, "knots >= 2"),
    "fast": (lambda: GPairPotential(ParticleAction(4, 2), fast="both"), ValueError, "fast='score'"),
    "solver": (lambda: GPairPotential(ParticleAction(4, 2), solver=BanachSolver), TypeError, "solver to be a Solver"),
    "event": (
        lambda: GPairPotential(ParticleAction(4, 2))(torch.zeros(3, 5, 2)),
        ValueError,
        r"of shape \(\.\.\., 4, 2\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()


def test_what_is_certified_is_printed():
    assert "eigenvalues of the Jacobian above 0.1" in str(GPairPotential(ParticleAction(4, 2), bound=0.9))
