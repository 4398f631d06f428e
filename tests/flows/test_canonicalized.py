"""Canonicalized: exact invariance, normalization, the walls, and what must not follow it."""

import copy
import math
import pickle

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows import Canonicalized, EquivariantFlow, GActNorm, ImageAction, RowsAction, VectorAction
from pyro_gflows.groups import FiniteGroup, MatrixRepresentation, parse_group
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_invariant, randomize_
from pyro_gflows.training import FitSettings, fit

ACTIONS = {
    "S3": lambda: VectorAction.rows("S3"),
    "S3, two features": lambda: VectorAction.rows("S3", features=2),
    "S4, mean-free": lambda: RowsAction(4, mean_free=True),
    "S8": lambda: RowsAction(8, 3),
    "S50": lambda: RowsAction(50, 2),
    "one sign": lambda: VectorAction.signs(1),
    "C2^3": lambda: VectorAction.signs(3, copies=2),
    "C2^12": lambda: VectorAction.signs(12),
    "signed S2": lambda: RowsAction(2, 1, signed=True),
    "signed S20": lambda: RowsAction(20, 3, signed=[0, 1]),
    "signed S5, all even": lambda: RowsAction(5, 2, signed=[]),
    "two blocks": lambda: RowsAction((3, 4), 2),
    "C2": lambda: VectorAction.plane("C2"),
    "C5": lambda: VectorAction.plane("C5", copies=2),
    "D1": lambda: VectorAction.plane("D1"),
    "D2": lambda: VectorAction.plane("D2"),
    "D3": lambda: VectorAction.plane("D3"),
    "C4, regular": lambda: VectorAction.regular("C4"),
    "S3 x D4": lambda: RowsAction(3, VectorAction.plane("D4")),
    "S8 x C2": lambda: RowsAction(8, VectorAction.signs(1)),
    "4 x 4 matrix and rows": lambda: RowsAction(4, 1).direct_sum(RowsAction.of_matrix(4)),
    "signs of both sides": lambda: RowsAction.of_matrix((3, 2), blocks=(0, 1), odd=(True, True)),
}


def base_on(action, dtype=torch.float64, *, spread=0.5, distance=2.0, **options):
    """A base with random weights, placed at a random point at which images are some standard deviations apart."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    base = Canonicalized(action, **{"steps": 2, "width": 4, **options})
    base.module.to(dtype)
    location = distance * torch.randn(action.numel, generator=generator, dtype=torch.float64)
    covariance = spread**2 * (torch.eye(action.numel, dtype=torch.float64) + 0.5)
    base.start_at(location.to(dtype), torch.linalg.cholesky(covariance).to(dtype))
    randomize_(base.module.transform, scale=0.15, generator=generator)
    return base


# -- invariance ----------
@pytest.mark.long
@pytest.mark.parametrize("name", ACTIONS)
def test_is_exactly_invariant(name):
    action = ACTIONS[name]()
    base = base_on(action)
    x = base.sample((1000,))
    images = action.act_each(action.sample(1000), x)
    assert (base.log_prob(images) - base.log_prob(x.clone())).abs().max() < 1e-10
    assert_invariant(base, action, x[:3], elements=action.sample(4), tol=1e-9)


@pytest.mark.parametrize("name", ["S3", "S3, two features", "S8", "C2^12", "signed S20", "two blocks", "D3", "C5"])
def test_is_invariant_in_single_precision(name):
    action = ACTIONS[name]()
    base = base_on(action, torch.float32, spread=0.2)
    x = base.sample((1000,))
    images = action.act_each(action.sample(1000), x)
    assert images.dtype == torch.float32
    assert (base.log_prob(images) - base.log_prob(x.clone())).abs().max() <= 1e-5 * action.numel**0.5


@pytest.mark.parametrize("name", ACTIONS)
def test_the_score_of_a_draw_is_the_density_there(name):
    base = base_on(ACTIONS[name](), distance=4.0)
    x = base.rsample((50,))
    torch.testing.assert_close(base.log_prob(x), base.log_prob(x.clone()), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["S3, two features", "C5", "signed S20"])
def test_canonical_forms_are_equal_for_all_images_and_are_drawn_uniformly(name):
    action = ACTIONS[name]()
    base = base_on(action)
    x = base.sample((200,))
    forms = base.canonical_form(x)
    torch.testing.assert_close(base.canonical_form(action.act_each(action.sample(200), x)), forms)
    torch.testing.assert_close(base.canonical_form(forms), forms)
    gaps = base.module.into.coordinates(forms)[:, : base.module.into.gap_domain.dimension]
    assert bool((gaps > -1e-12).all())


# -- normalization ----------
@pytest.mark.long
@pytest.mark.parametrize(
    "action",
    [
        RowsAction(3, mean_free=True),
        RowsAction(2, 1, signed=True),
        VectorAction.plane("C5"),
        VectorAction.plane("D3"),
        VectorAction.signs(2),
        VectorAction.plane("C2"),
        VectorAction.rows("S2"),
    ],
    ids=["S3", "signed S2", "C5", "D3", "C2^2", "C2", "S2"],
)
def test_integrates_to_one_in_the_plane(action):
    base = base_on(action, spread=0.4, distance=2.0)
    half, count = 7.0, 600
    ticks = torch.linspace(-half, half, 2 * count + 1, dtype=torch.float64)[1::2]  # midpoints
    grid = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        total = torch.cat([base.log_prob(part) for part in grid.split(50_000)]).exp().sum() * (2 * half / count) ** 2
    assert float(total) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["S3", "S3, two features", "S4, mean-free", "C2^3", "two blocks", "S3 x D4", "4 x 4 matrix and rows"]
)
def test_integrates_to_one_by_importance_weights(name):
    """The mean of p / r over draws of a wider density r is 1; r is an average over images, so that it covers p."""
    action = ACTIONS[name]()
    base = base_on(action, spread=0.5, distance=1.5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        forms = base.canonical_form(base.sample((4000,)))
        wide = dist.MultivariateNormal(forms.mean(0), 1.3 * forms.T.cov())
        drawn = wide.sample((40_000,))
        elements = action.elements()
        x = action.act_each(elements[torch.randint(len(elements), (len(drawn),), generator=generator)], drawn)
        proposal = torch.stack([wide.log_prob(action.act(g, x)) for g in elements]).logsumexp(0) - math.log(
            len(elements)
        )
        weights = (base.log_prob(x) - proposal).exp()
    error = float(weights.std() / len(weights) ** 0.5)
    assert error < 0.1 and abs(float(weights.mean()) - 1.0) < 5 * error


@pytest.mark.long
def test_the_kernel_does_not_count():
    """-1 in both factors of C2 x C2 acts as the identity: two transformations of four elements (contract 50)."""
    group = parse_group("C2 x C2")
    flips = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)[:, None, None]
    action = VectorAction(MatrixRepresentation(group, flips * torch.eye(2, dtype=torch.float64)))
    base = base_on(action, spread=0.6, distance=1.0)
    assert base.order == 2
    ticks = torch.linspace(-9.0, 9.0, 801, dtype=torch.float64)[1::2]
    total = base.log_prob(torch.cartesian_prod(ticks, ticks)).exp().sum() * (18.0 / 400) ** 2
    assert float(total.detach()) == pytest.approx(1.0, abs=2e-3)


def test_the_scale_of_a_key_does_not_matter():
    key = 3.0 * torch.kron(torch.eye(3), torch.tensor([[0.6, 0.8]]))  # the same features of each row
    action = VectorAction.rows("S3", features=2)
    first, second = base_on(action, key=key), base_on(action, key=0.2 * key)
    x = first.sample((20,))
    torch.testing.assert_close(first.log_prob(x.clone()), second.log_prob(x))
    sorted_by = first.canonical_form(x).unflatten(-1, (3, 2)) @ torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert bool((sorted_by.diff(dim=-1) > 0).all())


# -- walls ----------
def trained(base, steps=60):
    """The base after some steps of maximum likelihood on draws from a wider and skewed density."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(base.module.parameters(), lr=2e-2)
    center = base.canonical_form(base.sample((100,))).mean(0)
    noise = torch.randn(256, base.action.numel, generator=generator, dtype=torch.float64)
    x = center + 1.5 * noise + 0.5 * noise.square()
    for _ in range(steps):
        optimizer.zero_grad()
        (-base.log_prob(x).mean()).backward()
        optimizer.step()
    return base


@pytest.mark.long
@pytest.mark.parametrize("spread", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("name", ["S3", "signed S2", "D3", "S3, two features"])
def test_the_density_is_finite_and_flat_at_a_wall_after_training(name, spread):
    """With gaps of any spread s, log q at a gap of 1e-12 equals that at 1e-6."""
    base = trained(base_on(ACTIONS[name](), spread=spread, distance=2 * spread))
    into = base.module.into
    typical = into.coordinates(base.canonical_form(base.sample((5,)))).detach()
    for wall in range(into.gap_domain.dimension):
        scores = []
        for gap in (1e-12, 1e-9, 1e-6):
            there = typical.clone()
            there[:, wall] = gap
            scores.append(base.log_prob(into.event(there)))
        assert scores[0].isfinite().all()
        assert (torch.stack(scores) - scores[0]).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["S3", "signed S20", "two blocks"])
def test_keys_that_tie_give_no_nan_in_single_precision(name):
    """Neither the score nor a gradient is NaN (contract 51)."""
    base = base_on(ACTIONS[name](), torch.float32)
    x = base.sample((5,))
    into = base.module.into
    there = into.coordinates(base.canonical_form(x)).detach()
    there[:, : into.gap_domain.dimension : 2] = 0.0
    x = into.event(there).detach().requires_grad_()
    score = base.log_prob(x)
    assert score.isfinite().all()
    for gradient in torch.autograd.grad(score.sum(), [x, *base.module.parameters()], allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


def test_far_from_the_walls_q_starts_as_the_normal_that_it_is_placed_at():
    action = VectorAction.rows("S3", features=2)
    base = Canonicalized(action, steps=2, width=4)
    base.module.double()
    generator = torch.Generator().manual_seed(0)
    location = torch.tensor([0.0, 1.0, 20.0, -3.0, 40.0, 2.0], dtype=torch.float64)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64) / 3 + torch.eye(6)
    factor = torch.linalg.cholesky(root @ root.T)
    base.start_at(location, factor)
    x = location + 0.5 * torch.randn(200, 6, generator=generator, dtype=torch.float64) @ factor.T
    expected = dist.MultivariateNormal(location, scale_tril=factor).log_prob(x) - math.log(6)
    torch.testing.assert_close(base.log_prob(x), expected, rtol=0, atol=1e-8)


# -- gradients and the contract with Pyro ----------
def test_draws_are_reparametrized_and_scores_have_gradients():
    base = base_on(VectorAction.rows("S3", features=2))
    x = base.rsample((20,))
    score = base.log_prob(x)
    gradients = torch.autograd.grad((x.square().sum() + score.sum()), list(base.module.parameters()), allow_unused=True)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert not base.sample((3,)).requires_grad


def test_the_gradient_of_the_score_is_that_of_finite_differences():
    base = base_on(VectorAction.plane("D3"), distance=3.0)
    x = base.sample((4,)).requires_grad_()
    assert torch.autograd.gradcheck(base.log_prob, x)


def test_shapes_support_and_seeds():
    base = base_on(VectorAction.rows("S3"))
    batch = base.expand((2, 4))
    assert batch.batch_shape == (2, 4) and batch.sample((5,)).shape == (5, 2, 4, 3)
    assert batch.log_prob(torch.zeros(3, dtype=torch.float64)).shape == (2, 4)
    assert batch.module is base.module and base.support.event_dim == 1
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(base.sample((3,)))
    assert torch.equal(*draws)
    assert base.log_prob(torch.zeros(0, 3, dtype=torch.float64)).shape == (0,)


def test_a_flow_on_it_is_saved_copied_and_rebuilt():
    action = VectorAction.rows("S3", features=2)
    base = base_on(action)
    base.module.float()
    identity = GActNorm(action)
    flow = EquivariantFlow(base, [identity.requires_grad_(False)])
    x = torch.randn(5, 6)
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(twin(x), flow(x))
        randomize_(twin.base_module, scale=1.0)
        assert not torch.equal(twin(x), flow(x))
    rebuilt = build(describe(base))
    rebuilt.module.load_state_dict(base.module.state_dict())
    assert torch.equal(rebuilt.log_prob(x), base.log_prob(x))


# -- what must not follow it ----------
def test_a_trainable_layer_after_a_density_with_jumps_warns_and_is_not_fitted():
    """What would go wrong is in test_jumps_that_are_shifted.py (contract 49)."""
    action = VectorAction.rows("S3", features=2)
    base = Canonicalized(action, steps=2, width=4)
    assert base.may_jump and "continuous across mirrors only" in repr(base)
    with pytest.warns(UserWarning, match=r"Canonicalized may jump, and a trainable layer after it"):
        flow = EquivariantFlow(base, [GActNorm(action)])
    with pytest.raises(ValueError, match="expected all trainable weights inside Canonicalized"):
        fit(flow, torch.randn(50, 6), settings=FitSettings(steps=2), progress=False)
    flow.transform.requires_grad_(False)
    assert fit(flow, base.sample((50,)), settings=FitSettings(steps=2), progress=False).steps == 2


def test_a_density_of_keys_alone_is_continuous_across_its_mirrors():
    for action in (VectorAction.rows("S3"), VectorAction.signs(2), VectorAction.plane("D4")):
        base = Canonicalized(action, steps=2, width=4)
        assert not base.may_jump and "mirrors only" not in repr(base)
        EquivariantFlow(base, [GActNorm(action)])
    assert Canonicalized(VectorAction.plane("C4"), steps=2, width=4).may_jump


# -- errors ----------
def test_bad_input_says_what_was_expected():
    with pytest.raises(TypeError, match="expected a VectorAction .* got ImageAction"):
        Canonicalized(ImageAction("C4", size=2))
    with pytest.raises(ValueError, match=r"needs a finite group, got S8 x O\(2\)"):
        Canonicalized(RowsAction(8, VectorAction.plane("O(2)")))
    table = [[(i + j) % 4 for j in range(4)] for i in range(4)]
    quaternary = FiniteGroup("Z4", table, [1])
    turn = torch.linalg.matrix_power
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    unknown = VectorAction(MatrixRepresentation(quaternary, torch.stack([turn(quarter, k) for k in range(4)])))
    with pytest.raises(ValueError, match="no fundamental domain is known for .*Z4.* use OrbitFlow"):
        Canonicalized(unknown)
    rows = VectorAction.rows("S3", features=2)
    with pytest.raises(ValueError, match=r"expected a key of shape \(3, 6\)"):
        Canonicalized(rows, key=torch.ones(2, 6))
    with pytest.raises(ValueError, match="expected a key that commutes with the group"):
        Canonicalized(rows, key=torch.randn(3, 6, generator=torch.Generator().manual_seed(0)))
    base = Canonicalized(rows, steps=2, width=4)
    with pytest.raises(ValueError, match="in every key .* all rows tie"):
        base.start_at(torch.tensor([1.0, 2.0] * 3), torch.eye(6))
    with pytest.raises(ValueError, match="finite mode"):
        base.start_at(torch.full((6,), torch.nan), torch.eye(6))
    with pytest.raises(ValueError, match="within the support|Expected value"):
        base.log_prob(torch.full((6,), torch.nan))


def test_a_start_of_another_shape_is_refused():
    base = Canonicalized(RowsAction(8, 2), steps=1, width=2)
    with pytest.raises(ValueError, match=r"a mode of shape \(16,\) and a factor of shape \(16, 16\)"):
        base.start_at(torch.zeros(8), torch.eye(16))
