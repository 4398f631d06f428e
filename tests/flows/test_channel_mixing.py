"""``channel_mixing=`` of the image flows: which layers it makes, and that flows with them are exact."""

import functools

import pytest
import torch

from pyro_gflows import (
    GConvExponential,
    GLinear,
    GLinearPLU,
    GSpectralConv,
    ImageAction,
    OffGridAction,
    g_coupling_image_flow,
    g_residual_image_flow,
    load,
    save,
)
from pyro_gflows.flows import g_soft_coupling_image_flow
from pyro_gflows.numerics import ExactLogDet
from pyro_gflows.testing import assert_bijective, assert_invariant, assert_log_det, randomize_

LINEAR = (GLinear, GConvExponential, GSpectralConv, GLinearPLU)
MIXINGS = {"1x1": GLinear, "convolution": GConvExponential, "spectral": GSpectralConv, GLinearPLU: GLinearPLU}
FLOWS = {
    "coupling, C4": lambda **how: g_coupling_image_flow(ImageAction("C4", 2, size=4), blocks=1, width=1, **how),
    "coupling, D4, two channels": lambda **how: g_coupling_image_flow(
        ImageAction("D4", 2, size=4), scales=1, blocks=2, width=1, memory="recompute", **how
    ),
    "soft coupling": lambda **how: g_soft_coupling_image_flow(OffGridAction("C8", 2, size=4), blocks=1, width=1, **how),
    "residual, C4": lambda **how: g_residual_image_flow(
        ImageAction("C4", 1, size=4), blocks=1, width=1, bound=0.4, scales=2, log_det=ExactLogDet(), **how
    ),
    "residual, translations": lambda **how: g_residual_image_flow(
        ImageAction.translations(2, size=3, point_group="D4"),
        blocks=2,
        width=1,
        bound=0.4,
        log_det=ExactLogDet(),
        **how,
    ),
    "residual, in constant memory": lambda **how: g_residual_image_flow(
        ImageAction("C4", 2, size=2), blocks=1, width=1, bound=0.4, memory="constant", log_det=ExactLogDet(), **how
    ),
}


@pytest.fixture(params=FLOWS)
def make(request):
    return FLOWS[request.param]


def mixing_layers(flow):
    return [type(layer) for layer in flow.modules() if isinstance(layer, LINEAR)]


@pytest.mark.parametrize("mixing", MIXINGS, ids=str)
def test_every_step_has_the_layer(make, mixing):
    torch.manual_seed(0)
    flow = make(channel_mixing=mixing)
    channels = [layer.action_in.channels for layer in flow.modules() if type(layer).__name__ == "GActNorm"][:-1]
    kinds = mixing_layers(flow)
    assert set(kinds) <= {MIXINGS[mixing]}
    assert len(kinds) == sum(mixing != "1x1" or count > 1 for count in channels)


@pytest.mark.long
@pytest.mark.parametrize("mixing", ["convolution", "spectral"])
def test_the_flow_is_an_exactly_invariant_density(make, mixing):
    torch.manual_seed(0)
    flow = (
        randomize_(make(channel_mixing=mixing), scale=0.1, generator=torch.Generator().manual_seed(0)).double().eval()
    )
    x = torch.randn(2, *flow.action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert_invariant(flow, flow.action, x, tol=1e-10)
    assert_bijective(flow.transform, x, tol=1e-8)
    assert_log_det(flow.transform, x[:1], tol=1e-8)


def test_the_default_is_the_1x1_map(make):
    torch.manual_seed(0)
    usual = make()
    torch.manual_seed(0)
    named = make(channel_mixing="1x1")
    assert usual.config() == named.config()
    for key, value in usual.state_dict().items():
        assert torch.equal(value, named.state_dict()[key])


@pytest.mark.parametrize("mixing", ["convolution", "spectral", functools.partial(GSpectralConv, support=None)])
def test_flows_are_saved(mixing, tmp_path):
    flow = randomize_(FLOWS["coupling, C4"](channel_mixing=mixing), scale=0.1)
    save(flow, tmp_path)
    x = torch.randn(3, 2, 4, 4)
    torch.testing.assert_close(load(tmp_path)(x), flow(x))


def test_other_values_are_refused(make):
    with pytest.raises(ValueError, match=r"channel_mixing among \['1x1', 'convolution', 'spectral'\].* got '3x3'"):
        make(channel_mixing="3x3")
    with pytest.raises(TypeError, match="channel_mixing to be a function.* got GLinear"):
        make(channel_mixing=GLinear(ImageAction("C4", size=4)))
