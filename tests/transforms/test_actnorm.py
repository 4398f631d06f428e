"""GActNorm: standardizes on demand, and never by itself."""

import pytest
import torch

from pyro_gflows import GActNorm, ImageAction, VectorAction
from pyro_gflows.testing import assert_layer, randomize_

ACTIONS = {
    "plane D4": VectorAction.plane("D4", copies=2),
    "regular C4 and a number": VectorAction.regular("C4").direct_sum(VectorAction.trivial("C4")),
    "SO(3)": VectorAction.space("SO(3)").direct_sum(VectorAction.trivial("SO(3)", copies=2)),
    "image": ImageAction("D4", 2, size=3),
    "image, regular": ImageAction("C4", 2, size=3, fields="regular"),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def data(action, count=64):
    """Events whose fields differ in scale and whose mean is not 0."""
    scale = torch.logspace(-1, 1, action.event_shape[0], dtype=torch.float64)
    scale = scale.reshape(-1, *[1] * (action.event_dim - 1))
    return 2.0 + scale * torch.randn(count, *action.event_shape, dtype=torch.float64)


def assert_standard(layer, out):
    """Unit power of every field about its invariant mean, and an invariant mean of 0."""
    action = layer.action_in
    flat = out.reshape(len(out), sum(action.field_sizes), -1)
    means = action.invariants() @ flat.mean((0, 2))
    torch.testing.assert_close(means, torch.zeros_like(means), rtol=0, atol=1e-12)
    powers = torch.stack([part.square().mean() for part in flat.split(action.field_sizes, 1)])
    torch.testing.assert_close(powers, torch.ones_like(powers), rtol=0, atol=1e-12)


def test_is_an_equivariant_bijection_with_its_log_det(action):
    assert_layer(randomize_(GActNorm(action).double()), data(action, 5), tol=1e-10)


def test_initialize_standardizes_what_comes_out(action):
    layer = GActNorm(action).double()
    x = data(action)
    out = layer.initialize(x)
    assert torch.equal(out, layer.call_and_ladj(x)[0])
    assert_standard(layer, out)


def test_initialize_inverse_standardizes_what_goes_to_the_base(action):
    layer = GActNorm(action).double()
    y = data(action)
    out = layer.initialize_inverse(y)
    assert torch.equal(out, layer.inv_call_and_ladj(y)[0])
    assert_standard(layer, out)


def test_nothing_changes_in_forward(action):
    layer = GActNorm(action).double().train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(data(action))
    layer.inv(data(action))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert layer.call_and_ladj(data(action))[1].abs().max() == 0


def test_constant_data_give_finite_scales(action):
    layer = GActNorm(action)
    layer.initialize_inverse(torch.zeros(4, *action.event_shape))
    assert layer.log_scale.isfinite().all()


@pytest.mark.parametrize("method", ["call_and_ladj", "inv_call_and_ladj", "initialize", "initialize_inverse"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_of_events_and_of_weights(method, dtype):
    action = VectorAction.plane("D4")
    with pytest.raises((TypeError, ValueError), match="events.* of float32 or float64"):
        getattr(GActNorm(action), method)(torch.zeros(3, 2, dtype=dtype))
    with pytest.raises((TypeError, ValueError), match="weights.* of float32 or float64"):
        getattr(GActNorm(action).to(dtype), method)(torch.zeros(3, 2))


def test_a_frozen_layer_is_not_initialized():
    layer = GActNorm(VectorAction.plane("D4")).requires_grad_(False)
    x = 5 * torch.randn(100, 2)
    assert torch.equal(layer.initialize(x), x) and torch.equal(layer.initialize_inverse(x), x)
