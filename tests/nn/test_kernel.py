"""Kernels that are computed once inside ``kernels_once``, and never remembered afterwards."""

import pytest
import torch

from pyro_gflows import EquivariantFlow, ImageAction, InvariantNormal, VectorAction, g_residual
from pyro_gflows.nn import (
    EquivariantConv,
    EquivariantLinear,
    KernelLayer,
    LipschitzConv,
    LipschitzLinear,
    LipschitzSum,
    Ridges,
    SlopeSplines,
    kernels_once,
    kernels_together,
)
from pyro_gflows.testing import randomize_

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


def ridge_flow(action):
    layers = [g_residual(action, branch=lambda a: LipschitzSum([Ridges(a, 3, knots=5)])) for _ in range(3)]
    return randomize_(EquivariantFlow(InvariantNormal(action), layers).double(), scale=0.7)


def kernel_layers(flow):
    return [module for module in flow.modules() if isinstance(module, KernelLayer)]


@pytest.mark.parametrize("action", [VectorAction.plane("D4"), VectorAction.plane("C3"), VectorAction.rows("S3")])
def test_kernels_made_together_are_those_made_one_by_one_with_their_gradients(action):
    flow = ridge_flow(action)
    layers = kernel_layers(flow)
    assert len(layers) == 9  # of each block: the weights of the sum, the frames and the pieces of the splines
    probes = [torch.randn_like(layer.kernel()) for layer in layers]

    def gradients():
        flow.zero_grad()
        kernels = [layer.kernel() for layer in layers]
        sum((kernel * probe).sum() for kernel, probe in zip(kernels, probes, strict=True)).backward()
        return kernels, [parameter.grad.clone() for parameter in flow.parameters()]

    one_by_one = gradients()
    with kernels_together(layers):
        together = gradients()
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-13)


def test_a_flow_makes_the_kernels_of_layers_that_are_alike_at_once_and_keeps_none(monkeypatch):
    flow, made = ridge_flow(VectorAction.plane("D4")), []
    for kind in (Ridges, SlopeSplines, LipschitzSum):
        together = kind._make_kernels
        monkeypatch.setattr(kind, "_make_kernels", lambda layers, f=together: made.append(len(layers)) or f(layers))
    x = torch.randn(8, 2, dtype=torch.float64)
    first = flow(x)
    assert made == [3, 3, 3]
    assert all(layer._kept is None and not layer._keeps for layer in kernel_layers(flow))
    flow.dist.rsample((4,)).sum().backward()  # the inverse, by a solver
    assert all(layer._kept is None and not layer._keeps for layer in kernel_layers(flow))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.1)
    assert (flow(x) - first).abs().max() > 1e-3


def test_an_error_in_a_layer_leaves_no_kernel(monkeypatch):
    flow = ridge_flow(VectorAction.plane("D4"))
    monkeypatch.setattr(Ridges, "call_and_jacobian", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        flow(torch.randn(8, 2, dtype=torch.float64))
    assert all(layer._kept is None and not layer._keeps for layer in kernel_layers(flow))


def test_only_layers_that_are_alike_are_made_at_once(monkeypatch):
    action, made = VectorAction.plane("D4"), []
    for kind in (Ridges, SlopeSplines):
        together = kind._make_kernels
        monkeypatch.setattr(kind, "_make_kernels", lambda layers, f=together: made.append(layers) or f(layers))
    ridges = [Ridges(action, 2), Ridges(action, 3), Ridges(action, 2).double(), Ridges(action, 2)]
    splines = [SlopeSplines(2, limit=3.0), SlopeSplines(2), SlopeSplines(2, odd=True), SlopeSplines(2)]
    other = LipschitzLinear(action, action)
    with kernels_together([*ridges, *splines, other]):
        assert other._kept is None
    first, second, third, fourth = splines
    expected = [[ridges[0], ridges[3]], [ridges[1]], [ridges[2]], [first], [second, fourth], [third]]
    assert made == expected


def test_in_inference_mode_no_kernel_is_kept():
    layers = [SlopeSplines(2), SlopeSplines(2)]
    with torch.inference_mode(), kernels_together(layers):
        assert not any(layer._keeps for layer in layers)
