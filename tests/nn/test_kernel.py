"""Kernels that are computed once inside ``kernels_once``, and never remembered afterwards."""

import pytest
import torch

from pyro_gflows import ImageAction, VectorAction
from pyro_gflows.nn import EquivariantConv, EquivariantLinear, LipschitzConv, LipschitzLinear, kernels_once

REGULAR, IMAGE = VectorAction.regular("C4"), ImageAction("C4", 1, size=3)
LAYERS = {
    "linear": lambda: EquivariantLinear(REGULAR, REGULAR),
    "linear, bounded": lambda: LipschitzLinear(REGULAR, REGULAR),
    "convolution": lambda: EquivariantConv(IMAGE, IMAGE),
    "convolution, bounded": lambda: LipschitzConv(IMAGE, IMAGE),
}


@pytest.fixture(params=LAYERS)
def layer(request, monkeypatch):
    layer = LAYERS[request.param]()
    make, layer.count = layer._make_kernel, 0

    def counted():
        layer.count += 1
        return make()

    monkeypatch.setattr(layer, "_make_kernel", counted)
    return layer


def test_is_computed_once_inside_and_anew_outside(layer):
    x = torch.randn(2, *layer.action_in.event_shape)
    plain = layer(x)
    with kernels_once(torch.nn.Sequential(layer)):
        assert torch.equal(layer(x), plain)
        assert torch.equal(layer(x), plain)
        with kernels_once(layer):
            layer(x)
        layer(x)
    assert layer.count == 2
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.equal(layer(x), plain)
    assert layer.count == 3


def test_gradients_reach_the_weights(layer):
    x = torch.randn(2, *layer.action_in.event_shape)
    with kernels_once(layer):
        (layer(x) + layer(2 * x)).square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in layer.parameters())


def test_a_kernel_made_without_gradients_is_not_used_with_them(layer):
    x = torch.randn(2, *layer.action_in.event_shape)
    with kernels_once(layer):
        with torch.no_grad():
            layer(x)
        assert layer.kernel().requires_grad


def test_nothing_is_kept_after_an_error_or_in_inference_mode(layer):
    x = torch.randn(2, *layer.action_in.event_shape)
    with pytest.raises(RuntimeError, match="stop"), kernels_once(layer):
        layer(x)
        raise RuntimeError("stop")
    with torch.inference_mode(), kernels_once(layer):
        layer(x)
        layer(x)
    assert layer.count == 3
    assert layer(x).requires_grad
