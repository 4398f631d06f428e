"""Radial splines: the identity at the start, monotone and smooth, inverted in closed form everywhere."""

import pytest
import torch

from pyro_gflows import GRadial, ImageAction, VectorAction, g_radial
from pyro_gflows.testing import assert_layer, randomize_

ACTIONS = {
    "O(2)": VectorAction.plane("O(2)"),
    "SO(3), two vectors and a number": VectorAction.space("SO(3)", copies=2).direct_sum(VectorAction.trivial("SO(3)")),
    "regular D3": VectorAction.regular("D3"),
}


@pytest.fixture(params=ACTIONS)
def layer(request):
    torch.manual_seed(1)
    return randomize_(g_radial(ACTIONS[request.param], bins=4, limit=2.0).double(), scale=1.0)


def test_is_an_equivariant_bijection_with_its_log_det(layer):
    x = torch.randn(12, layer.action_in.numel, dtype=torch.float64)
    assert_layer(layer, x * torch.logspace(-3, 1.3, 12, dtype=torch.float64)[:, None], tol=1e-9)


def radii(layer):
    """Just below, at and above every knot, at 0, and beyond the limit."""
    positions, values, _ = layer._knots(None)
    inner = torch.cat([positions[0], values[0]]).detach()
    near = torch.tensor([-1e-9, 0.0, 1e-9], dtype=torch.float64)
    return torch.cat([(inner[:, None] + near).flatten().clamp_min(0), torch.tensor([5.0, 1e3, 1e6]).double()])


def test_inverts_at_knots_at_0_and_beyond_the_limit():
    layer = randomize_(GRadial(ACTIONS["O(2)"], bins=5, limit=2.0).double(), scale=1.5)
    direction = torch.tensor([0.6, -0.8], dtype=torch.float64)
    x = radii(layer)[:, None] * direction
    for there, back in [
        (layer.call_and_ladj, layer.inv_call_and_ladj),
        (layer.inv_call_and_ladj, layer.call_and_ladj),
    ]:
        y, ladj = there(x)
        found, inverse_ladj = back(y)
        assert ladj.isfinite().all()
        torch.testing.assert_close(found, x, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(inverse_ladj, -ladj, rtol=0, atol=1e-6)


def test_value_and_slope_are_continuous_at_knots_and_increase():
    layer = randomize_(GRadial(ACTIONS["O(2)"], bins=5, limit=2.0).double(), scale=1.5)
    direction = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for end in layer._knots(None)[0][0, 1:].detach():
        pair = (end + torch.tensor([-1e-11, 1e-11], dtype=torch.float64))[:, None] * direction
        y, ladj = layer.inv_call_and_ladj(pair)
        assert (y[1] - y[0]).abs().max() < 1e-6
        assert (ladj[1] - ladj[0]).abs() < 1e-5
    line = torch.linspace(0, 4, 500, dtype=torch.float64)[:, None] * direction
    assert (layer.inv_call_and_ladj(line)[0][:, 0].diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_origin_stays_with_finite_gradients(layer, dtype):
    layer = layer.to(dtype)
    x = torch.zeros(2, layer.action_in.numel, dtype=dtype, requires_grad=True)
    for direction in (layer.call_and_ladj, layer.inv_call_and_ladj):
        y, ladj = direction(x)
        assert y.abs().max() == 0
        assert ladj.isfinite().all()
        (y.sum() + ladj.sum()).backward()
        assert x.grad.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
        near = direction(torch.full_like(x, 1e-7).detach())[1]
        torch.testing.assert_close(near, ladj.detach(), rtol=0, atol=2e-3)


def test_starts_as_the_identity():
    x = torch.randn(9, 2, dtype=torch.float64) * 3
    y, ladj = GRadial(ACTIONS["O(2)"]).double().call_and_ladj(x)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(ladj, torch.zeros(9, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GRadial(ImageAction("C4", size=2)), "works on vectors, got ImageAction"),
        (lambda: GRadial(ACTIONS["O(2)"], bins=0), "1 <= bins < 1000 and a positive limit, got 0 and 4.0"),
        (lambda: GRadial(ACTIONS["O(2)"], limit=float("inf")), "a positive limit, got 32 and inf"),
    ],
)
def test_bad_sizes_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_conditioner_of_a_context_has_one_hidden_layer():
    """It is no argument, so the weights of every stored flow have this shape."""
    layer = GRadial(VectorAction.plane("D4"), bins=4, context_action=VectorAction.plane("D4"))
    assert len(layer.network.layers) == 2
