"""Activations that make two numbers of each, and activations in units of their own."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import ConcatenatedLipSwish, Curves, LipSwish, Rescaled, SortedPairs, Splines
from pyro_gflows.testing import randomize_

ACTIONS = {
    "regular": VectorAction.regular("D3", copies=2),
    "image": ImageAction("C4", 2, size=2, fields="regular"),
}
KINDS = {
    "clipswish": ConcatenatedLipSwish,
    "curves": Curves,
    "rescaled splines": lambda action: Rescaled(Splines(action)),
    "rescaled clipswish": lambda action: Rescaled(ConcatenatedLipSwish(action), each_field=False),
    "rescaled curves": lambda action: Rescaled(Curves(action)),
}


@pytest.fixture(params=[(kind, name) for kind in KINDS for name in ACTIONS], ids=" ".join)
def case(request):
    kind, name = request.param
    return randomize_(KINDS[kind](ACTIONS[name]).double(), scale=1.0), ACTIONS[name]


def points(action):
    x = torch.randn(20, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scales = torch.logspace(-2, 1.2, 20, dtype=torch.float64).reshape(-1, *[1] * action.event_dim)
    return torch.cat([scales * x, torch.zeros_like(x[:1]), torch.full_like(x[:1], 2.4)])


def test_is_equivariant(case):
    activation, action = case
    x = points(action)
    elements = action.sample((len(x),), torch.Generator().manual_seed(1))
    y = activation(x)
    out = action.copies(activation.fan_out)
    assert y.shape == x.shape[:1] + out.event_shape
    image = activation(action.act_each(elements, x))
    torch.testing.assert_close(image, out.act_each(elements, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.3, 20.0])
def test_is_1_lipschitz_and_knows_its_slopes(case, scale):
    activation, action = case
    randomize_(activation, scale=scale)
    for x in points(action):
        jacobian = torch.autograd.functional.jacobian(activation, x).reshape(-1, action.numel)
        assert torch.linalg.matrix_norm(jacobian, 2) <= activation.lipschitz + 1e-9
        value, slope = activation.value_and_slope(x)
        assert torch.equal(value, activation(x))
        expected = torch.cat([torch.diag(part.flatten()) for part in slope.chunk(activation.fan_out)])
        torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-9)


def test_a_pair_of_swishes_is_all_but_1_lipschitz_and_never_flat():
    activation = ConcatenatedLipSwish(VectorAction.trivial("C1")).double()
    slope = activation.value_and_slope(torch.linspace(-12, 12, 20001, dtype=torch.float64)[:, None])[1]
    speed = slope.norm(dim=1)
    assert 0.999 < speed.max() < 1
    assert speed.min() > 0.63


def test_curves_run_at_nearly_full_speed():
    torch.manual_seed(0)
    slope = Curves(VectorAction.trivial("C1")).double().value_and_slope(torch.linspace(-4, 4, 101)[:, None].double())[1]
    assert slope.norm(dim=1).min() > 0.97


def test_units_of_1_change_nothing_and_fields_have_their_own():
    action = ACTIONS["regular"]
    plain = randomize_(LipSwish(action).double())
    rescaled, x = Rescaled(plain).double(), points(action)
    assert torch.equal(rescaled(x), plain(x))
    assert rescaled.raw_log_scale.shape == (2,)
    with torch.no_grad():
        rescaled.raw_log_scale[1] = 0.5
    assert torch.equal(rescaled(x)[:, :6], plain(x)[:, :6])
    assert not torch.isclose(rescaled(x)[0, 6:], plain(x)[0, 6:]).any()
    with pytest.raises(ValueError, match="each coordinate by itself, got SortedPairs"):
        Rescaled(SortedPairs(action))
