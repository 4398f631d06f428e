"""Multi-scale image flows: exact invariance, log-dets, both directions, plain twins."""

import functools

import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    ImageAction,
    OffGridAction,
    VectorAction,
    g_coupling_image_flow,
    g_residual_image_flow,
)
from pyro_gflows.flows import g_soft_coupling_image_flow
from pyro_gflows.nn import (
    Curves,
    EquivariantCNN,
    LipschitzDenseNetwork,
    LipschitzNetwork,
    SoftNetwork,
    Splines,
    conditioner,
)
from pyro_gflows.testing import assert_bijective, assert_invariant, assert_log_det, randomize_
from pyro_gflows.training import FitSettings, fit
from pyro_gflows.transforms import GSplit
from tests.constructors import events, training_steps

ACTIONS = {
    "D4": ImageAction("D4", 1, size=4),
    "C4, colors": ImageAction("C4", 2, size=4),
    "no symmetry": ImageAction("C1", 1, size=4),
    "shifts": ImageAction.translations(1, size=4, step=2),
}


@pytest.fixture(params=[(family, name) for family in ("coupling", "residual") for name in ACTIONS], ids=" ".join)
def flow(request):
    family, name = request.param
    torch.manual_seed(0)
    if family == "coupling":
        # one channel on 2 x 2 pixels is one orbit under D4: nothing is left to couple
        made = g_coupling_image_flow(ACTIONS[name], scales=1 if name == "D4" else 2, blocks=2, width=1, depth=1)
    else:
        made = g_residual_image_flow(ACTIONS[name], scales=2, blocks=1, width=1, bound=0.6)
    return randomize_(made.double(), scale=0.05, generator=torch.Generator().manual_seed(1)).eval()


def test_it_is_exactly_invariant_before_and_after_training(flow):
    x = events(flow, 3)
    assert_invariant(flow, flow.action, x, tol=1e-10)
    before = flow(x).detach()
    training_steps(flow, 5)
    assert (flow(x) - before).abs().min() > 1e-3
    assert_invariant(flow, flow.action, x, tol=1e-10)


@pytest.mark.long
def test_it_inverts_and_its_log_det_is_that_of_autograd(flow):
    x = events(flow, 2)
    assert_bijective(flow.transform, x)
    assert_log_det(flow.transform, x[:1])


def test_it_is_described_and_rebuilt(flow):
    x = events(flow, 2)
    again = EquivariantFlow.from_config(flow.config()).double().eval()
    again.load_state_dict(flow.state_dict())
    assert torch.equal(again(x), flow(x))


def test_three_scales_of_a_larger_grid():
    flow = g_coupling_image_flow(ImageAction("D4", 1, size=16), scales=3, blocks=1, width=1, depth=1).double().eval()
    randomize_(flow, scale=0.05, generator=torch.Generator().manual_seed(1))
    assert sum(isinstance(module, GSplit) for module in flow.modules()) == 2
    x = events(flow, 2)
    assert_invariant(flow, flow.action, x, tol=1e-10)
    assert flow.dist.sample((2,)).shape == x.shape


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: g_coupling_image_flow(VectorAction.plane("C4")), TypeError, "expected an ImageAction"),
        (lambda: g_coupling_image_flow(ImageAction("C4", size=4), scales=0), ValueError, "scales >= 1"),
        (
            lambda: g_residual_image_flow(ImageAction("C4", size=6), scales=3),
            ValueError,
            "6 x 6 allows at most 2 scales",
        ),
        (
            lambda: g_coupling_image_flow(ImageAction("D4", size=4), scales=2),
            ValueError,
            "fewer scales, other splits, or g_residual",
        ),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "action", "memory"),
    [
        (g_coupling_image_flow, ImageAction("C4", 2, size=4), "recompute"),
        (g_residual_image_flow, ImageAction("C4", 2, size=4), "recompute"),
        (g_residual_image_flow, ImageAction("C4", 2, size=4), "constant"),
        # above 64 numbers: the roulette, in training
        (g_residual_image_flow, ImageAction("D2", 2, size=6), "recompute"),
        (g_residual_image_flow, ImageAction("D2", 2, size=6), "constant"),
    ],
)
@pytest.mark.long
def test_less_memory_gives_the_same_numbers_and_gradients(make, action, memory):
    found = []
    for choice in ("plain", memory):
        torch.manual_seed(0)
        flow = make(action, blocks=2, width=1, depth=1, memory=choice).double().train()
        randomize_(flow, scale=0.05, generator=torch.Generator().manual_seed(1))
        torch.manual_seed(2)
        log_probs = flow(events(flow, 5))
        weights = torch.arange(5.0, dtype=torch.float64)
        gradients = torch.autograd.grad((weights * log_probs).sum(), list(flow.parameters()))
        found.append([log_probs.detach(), *gradients])
    for plain, own in zip(*found, strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-11, atol=1e-11)


def test_less_memory_can_be_trained_described_and_drawn_from():
    flow = g_residual_image_flow(ImageAction("C4", 2, size=4), blocks=1, width=1, bound=0.6, memory="constant")
    flow = flow.double()
    flow.initialize(events(flow, 32))
    before = flow(events(flow, 3)).detach()
    training_steps(flow, 3)
    assert (flow(events(flow, 3)) - before).abs().min() > 1e-4
    again = EquivariantFlow.from_config(flow.config()).double().eval()
    again.load_state_dict(flow.state_dict())
    assert torch.equal(again(events(flow, 3)), flow(events(flow, 3)))
    assert flow.dist.sample((2,)).shape == (2, 2, 4, 4)


@pytest.mark.long
def test_a_fit_in_constant_memory_ends_at_the_same_weights():
    action = ImageAction("D2", 2, size=6)
    settings = FitSettings(steps=4, batch_size=6, ema_decay=0.5)
    ends = []
    for memory in ("plain", "constant"):
        torch.manual_seed(0)
        flow = g_residual_image_flow(action, blocks=2, width=1, bound=0.6, memory=memory).double()
        fit(flow, events(flow, 12), settings=settings, progress=False)
        ends.append(torch.cat([parameter.detach().flatten() for parameter in flow.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-9)


def test_unknown_ways_with_memory_are_named():
    with pytest.raises(ValueError, match="memory among .'plain', 'recompute', 'constant'., got 'none'"):
        g_residual_image_flow(ImageAction("C4", size=4), memory="none")
    with pytest.raises(ValueError, match="a coupling has no series"):
        g_coupling_image_flow(ImageAction("C4", size=4), memory="constant")


def test_residual_steps_take_another_branch():
    branch = functools.partial(LipschitzNetwork, width=1, activation="curves", units="field")
    flow = g_residual_image_flow(ImageAction("C4", 1, size=4), blocks=1, branch=branch)
    assert isinstance(flow.transforms[1].branch.activations[0].activation, Curves)
    flow = g_residual_image_flow(
        ImageAction("C4", 1, size=4),
        scales=2,
        blocks=1,
        branch=lambda action: LipschitzDenseNetwork(action, width=1, bound=0.7),
    )
    branches = [module for module in flow.modules() if isinstance(module, LipschitzDenseNetwork)]
    assert len(branches) == 3
    assert {branch.action for branch in branches} > {flow.action}
    flow = randomize_(flow.double()).eval()
    assert_invariant(flow, flow.action, events(flow, 3), tol=1e-10)


@pytest.mark.long
def test_coupling_steps_take_another_network():
    action = ImageAction("C4", 2, size=4)
    size = {"scales": 2, "blocks": 1, "width": 1, "depth": 1}
    network = functools.partial(conditioner, width=1, depth=1, bias="pixels", activation="splines")
    by_keywords = g_coupling_image_flow(action, **size, network=network)
    made = g_coupling_image_flow(action, **size, network=lambda a, b: EquivariantCNN(a, b, width=1, depth=0))
    for flow, depth in ((by_keywords, 1), (made, 0)):
        networks = [module for module in flow.modules() if isinstance(module, EquivariantCNN)]
        assert len(networks) > 3 and all(len(network.activations) == depth for network in networks)
        randomize_(flow.double(), scale=0.05).eval()
        assert_invariant(flow, flow.action, events(flow, 3), tol=1e-10)
    networks = [module for module in by_keywords.modules() if isinstance(module, EquivariantCNN)]
    assert {type(network.activations[0]) for network in networks} == {Splines}
    again = EquivariantFlow.from_config(by_keywords.config())
    again.load_state_dict(by_keywords.state_dict())
    network = functools.partial(SoftNetwork, group="C8", width=1, depth=1, kernel_size=3, start=0.0)
    soft = g_soft_coupling_image_flow(OffGridAction("C8", 2, size=4), **size, network=network)
    assert {module.kernel_size for module in soft.modules() if isinstance(module, SoftNetwork)} == {3}
