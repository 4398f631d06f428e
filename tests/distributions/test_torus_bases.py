"""Bases on tori: normalized by quadrature, invariant, exact draws, large concentrations, and flows on them."""

import copy
import math
from fractions import Fraction

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantUniform, InvariantVonMises, TorusAction, VectorAction, g_residual
from pyro_gflows.distributions.von_mises import log_von_mises
from pyro_gflows.serialization import load, save
from pyro_gflows.spaces import Torus
from pyro_gflows.testing import assert_invariant, randomize_
from tests.constructors.torus import square, thirds
from tests.contracts.second_device import SECOND, second_device

ACTIONS = {
    "no symmetry": TorusAction.trivial(2),
    "reflection": TorusAction.point_group(VectorAction.signs(1)),
    "D4 with half periods": square(),
    "quarters": TorusAction.translations([[math.pi / 2, 0.0], [0.0, Fraction(1, 3)]]),
    "glide": TorusAction.from_generators([([[1, 0], [0, -1]], [math.pi, 2 * math.pi / 3])]),
    "common": TorusAction.fixing([[2, -2]]),
    "screw and thirds": thirds(),
}


def base_on(action, dtype=torch.float64):
    torch.manual_seed(0)
    base = InvariantVonMises(action, components=2)
    randomize_(base.module.to(dtype), generator=torch.Generator().manual_seed(1))
    return base


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def grid(action, points):
    line = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    return torch.cartesian_prod(*[line] * action.numel).reshape(-1, action.numel)


@pytest.mark.parametrize("make", [InvariantUniform, base_on])
def test_the_density_is_normalized_and_invariant(action, make):
    base = make(action)
    if make is InvariantUniform:
        base.module.double()
    x = grid(action, 100 if action.numel < 3 else 36)
    weight = (2 * math.pi) ** action.numel / len(x)
    total = base.log_prob(x).detach().exp().sum() * weight
    assert float(total) == pytest.approx(1.0, abs=1e-6 if action.numel < 3 else 1e-3)
    assert_invariant(base, action, 9 * torch.randn(5, action.numel).double(), tol=1e-11)
    torch.testing.assert_close(base.log_prob(x[::7] + 2 * math.pi), base.log_prob(x[::7]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("make", [InvariantUniform, base_on])
def test_draws_have_the_density(action, make):
    """The averages of cosines and sines of low frequencies agree with those under the density."""
    base, count = make(action), 20000
    base.module.double()
    torch.manual_seed(1)
    x = base.sample((count,))
    assert x.dtype is torch.float64 and (x >= 0).all() and (x < 2 * math.pi).all()
    points = grid(action, 100 if action.numel < 3 else 24)
    weights = base.log_prob(points).softmax(0)
    for k in torch.cartesian_prod(*[torch.arange(-3, 4)] * action.numel).reshape(-1, action.numel).double()[::2]:
        for wave in (torch.cos, torch.sin):
            assert (wave(x @ k).mean() - (weights * wave(points @ k)).sum()).abs() < 5 / math.sqrt(count)


def test_without_symmetry_it_is_pyros_mixture_of_von_mises():
    base = base_on(TorusAction.trivial(2))
    module = base.module
    # the coordinates are the angles themselves, in some order
    assert torch.equal(module.combinations.value.abs().sum(0), torch.ones(2).double())
    factors = dist.VonMises(module.locations, module.log_concentrations.exp()).to_event(1)
    mixture = dist.MixtureSameFamily(dist.Categorical(logits=module.logits), factors)
    x = base.sample((7, 3))
    expected = mixture.log_prob(x @ module.combinations.value.T)
    torch.testing.assert_close(base.log_prob(x), expected, rtol=0, atol=1e-6)  # torch's I0 has seven digits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("concentration", [1e-6, 1e-2, 1.0, 1e2, 1e4, 1e6])
def test_the_normalization_at_all_concentrations(concentration, dtype):
    width = min(math.pi, 12 / math.sqrt(concentration))
    x = torch.linspace(-width, width, 200001, dtype=torch.float64)
    log_p = log_von_mises(x.to(dtype), torch.zeros((), dtype=dtype), torch.tensor(concentration, dtype=dtype))
    assert log_p.dtype is dtype
    assert torch.trapezoid(log_p.double().exp(), x) == pytest.approx(1.0, abs=1e-5 if dtype is torch.float32 else 1e-9)


def test_the_gradient_of_the_concentration():
    concentration = torch.tensor([0.3, 3.0, 300.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda c: log_von_mises(torch.tensor(0.7).double(), torch.zeros(3).double(), c), concentration
    )


def test_expanded_copies_share_the_module_and_follow_the_dtype(action):
    for base in (base_on(action), InvariantUniform(action)):
        wide = base.expand((2, 3))
        assert wide.module is base.module and wide.batch_shape == (2, 3) and base.batch_shape == ()
        for dtype in (torch.float32, torch.float64):
            base.module.to(dtype)
            x = wide.sample((4,))
            assert x.shape == (4, 2, 3, action.numel) and x.dtype is dtype
            assert wide.log_prob(x[0, 0, 0]).shape == (2, 3) and base.log_prob(x).shape == (4, 2, 3)
            assert base.sample((0,)).shape == (0, action.numel)
        assert base.support is Torus((action.numel,)).constraint and copy.deepcopy(base).log_prob(x).shape == (4, 2, 3)


def test_draws_are_reparametrized_where_it_says_so(action):
    assert InvariantUniform(action).has_rsample and not InvariantVonMises(action).has_rsample
    with pytest.raises(NotImplementedError):
        InvariantVonMises(action).rsample()
    entropy = InvariantUniform(action).entropy()
    assert float(entropy) == pytest.approx(action.numel * math.log(2 * math.pi))


def test_a_flow_on_a_mixture_is_trained_saved_and_loaded(action, tmp_path):
    torch.manual_seed(0)
    flow = EquivariantFlow(InvariantVonMises(action, components=2), [g_residual(action)]).double()
    x = Torus((action.numel,)).project(torch.randn(64, action.numel, dtype=torch.float64))
    before = {key: value.clone() for key, value in flow.named_parameters()}
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = -flow(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert not [key for key, value in flow.named_parameters() if torch.equal(value, before[key])]
    assert_invariant(flow, action, x[:5], tol=1e-10)
    save(flow, tmp_path / "flow.safetensors")
    again = load(tmp_path / "flow.safetensors")
    assert torch.equal(again(x), flow(x)) and again.action == action
    drawn = flow.dist.sample((50,))
    assert (drawn >= 0).all() and (drawn < 2 * math.pi).all()
    torch.testing.assert_close(flow.dist.log_prob(drawn), flow(drawn.clone()), rtol=0, atol=1e-8)


def test_a_base_computes_on_another_device(action):
    for base in (base_on(action), InvariantUniform(action)):
        base.module.double()
        x = base.sample((6,))
        expected = base.log_prob(x).detach()
        with second_device():
            base.module.to(SECOND)
            assert base.sample((6,)).device == SECOND
            found = base.log_prob(x.to(SECOND)).detach()
            assert found.device == SECOND
            found = found.cpu()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_bad_input():
    with pytest.raises(TypeError, match="TorusAction.*on R.n take InvariantNormal"):
        InvariantUniform(VectorAction.plane("D4"))
    with pytest.raises(TypeError, match="TorusAction"):
        InvariantVonMises(VectorAction.plane("D4"))
    with pytest.raises(ValueError, match="positive number of components, got 0"):
        InvariantVonMises(TorusAction.trivial(1), components=0)
    with pytest.raises(ValueError, match="expected value of shape"):
        InvariantUniform(TorusAction.trivial(2)).log_prob(torch.zeros(3))
