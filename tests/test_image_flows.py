"""Multi-scale image flows: exact invariance, log-dets, both directions, plain twins."""

import pytest
import torch

from pyro_gflows import EquivariantFlow, ImageAction, VectorAction, g_coupling_image_flow, g_residual_image_flow
from pyro_gflows.testing import assert_bijective, assert_invariant, assert_log_det, randomize_
from pyro_gflows.transforms import GSplit
from tests.constructors import events, training_steps

ACTIONS = {
    "D4": ImageAction("D4", 1, size=4),
    "C4, colours": ImageAction("C4", 2, size=4),
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
        (lambda: g_residual_image_flow(ImageAction("C4", size=6), scales=3), ValueError, "divides 3 and 3"),
        (lambda: g_coupling_image_flow(ImageAction("D4", size=4), scales=2), ValueError, "fewer scales, or g_residual"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
