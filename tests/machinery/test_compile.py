"""torch.compile records whole flows: no warm-up call, no break, and the values and gradients of plain calls."""

import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    ImageAction,
    InvariantNormal,
    VectorAction,
    g_coupling_image_flow,
    g_residual_image_flow,
    g_soft_coupling_image_flow,
)
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import ExactLogDet, RouletteLogDet, SeriesLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import ElementwiseSpline, GActNorm, g_autoregressive, g_coupling, g_residual

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, about what it records

FIELDS = VectorAction.regular("C4", copies=4)
PLANE = VectorAction.plane("D4")
IMAGES = ImageAction("D4", copies=1, size=8)


def flow_of(action, *layers):
    return EquivariantFlow(InvariantNormal(action), layers)


def network_residual(**keywords):
    return g_residual(FIELDS, branch=lambda action: LipschitzNetwork(action, width=2), **keywords)


QUICK = {
    "coupling": lambda: flow_of(FIELDS, g_coupling(FIELDS, width=2), GActNorm(FIELDS), g_coupling(FIELDS, width=2)),
    "coupling, no symmetry": lambda: flow_of(
        VectorAction.trivial("C1", copies=4), g_coupling(VectorAction.trivial("C1", copies=4), width=4)
    ),
    "autoregressive": lambda: flow_of(FIELDS, g_autoregressive(FIELDS, width=2)),
    "spline": lambda: flow_of(FIELDS, g_coupling(FIELDS, width=2, transformer=ElementwiseSpline)),
    "residual, ridges": lambda: flow_of(PLANE, g_residual(PLANE), g_residual(PLANE)),
    "residual, network": lambda: flow_of(FIELDS, network_residual(log_det=ExactLogDet())),
    "residual, images": lambda: flow_of(IMAGES, g_residual(IMAGES, log_det=ExactLogDet())),
    "coupling, images": lambda: flow_of(IMAGES, g_coupling(IMAGES, width=1)),
}
SLOW = {
    "image coupling flow": lambda: g_coupling_image_flow(IMAGES, width=2, blocks=1),
    "soft image coupling flow": lambda: g_soft_coupling_image_flow(IMAGES),
    "image residual flow": lambda: g_residual_image_flow(IMAGES),
}
FLOWS = {
    **{name: pytest.param(make, id=name) for name, make in QUICK.items()},
    **{name: pytest.param(make, id=name, marks=pytest.mark.slow) for name, make in SLOW.items()},
}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)


def events(flow, count=4):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *flow.base.event_shape, generator=generator)


@pytest.mark.parametrize("make", FLOWS.values())
def test_scores_without_a_warm_up_call(make):
    flow = randomize_(make(), scale=0.1).eval()
    x = events(flow)
    compiled = torch.compile(lambda x: flow.dist.log_prob(x), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), flow.dist.log_prob(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[] if name in ("coupling", "residual, ridges") else pytest.mark.slow)
        for name, make in (QUICK | SLOW).items()
    ],
)
def test_training_steps(make):
    """Three steps of Adam on a compiled loss end at the weights of three plain steps."""
    ends = []
    for compile_it in (False, True):
        torch.manual_seed(0)
        flow = randomize_(make(), scale=0.1).double().train()
        x = events(flow).double()

        def loss(x, flow=flow):
            return -flow.dist.log_prob(x).mean()

        step = torch.compile(loss, fullgraph=True, backend="aot_eager") if compile_it else loss
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
        for seed in range(3):
            torch.manual_seed(seed)  # of estimates
            optimizer.zero_grad()
            step(x).backward()
            optimizer.step()
        ends.append([parameter.detach().clone() for parameter in flow.parameters()])
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roulette", "series", "default"])
@pytest.mark.parametrize("training", [True, False])
def test_estimated_log_dets(name, training):
    """Estimators need products with the Jacobian, at which recording may break; values and gradients stay theirs."""
    log_det = {"roulette": RouletteLogDet(), "series": SeriesLogDet(6), "default": None}[name]
    action = VectorAction.regular("C4", copies=20)
    layer = g_residual(action, branch=lambda action: LipschitzNetwork(action, width=1), log_det=log_det)
    flow = randomize_(flow_of(action, layer)).double().train(training)
    x, found = events(flow).double(), []
    for score in (flow.dist.log_prob, torch.compile(lambda x: flow.dist.log_prob(x), backend="aot_eager")):
        torch.manual_seed(2)
        value = score(x)
        gradients = torch.autograd.grad(value.sum(), list(flow.parameters()), allow_unused=True)
        found.append([value.detach(), *(gradient for gradient in gradients if gradient is not None)])
    assert len(found[0]) > 1
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)
