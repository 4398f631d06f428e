"""Soft flows: a group in the networks, its exact part in everything else; splits and splines of image couplings."""

import copy
import functools

import pytest
import torch

from pyro_gflows import (
    ChannelSplit,
    ElementwiseSpline,
    EquivariantFlow,
    GCoupling,
    ImageAction,
    IrrepSplit,
    MaskSplit,
    OffGridAction,
    VectorAction,
    checkerboard_split,
    g_coupling,
    g_coupling_image_flow,
)
from pyro_gflows.evaluation import invariance_error
from pyro_gflows.flows import g_soft_coupling_image_flow
from pyro_gflows.groups.escnn_adapter import escnn_group
from pyro_gflows.nn import SoftNetwork
from pyro_gflows.testing import assert_bijective, assert_invariant, randomize_
from tests.constructors import events, training_steps

CASES = {  # what the networks carry, what is exact, scales
    "C8, colors": (OffGridAction("C8", 2, size=4), ImageAction("C4", 2, size=4), 2),
    "D8": (OffGridAction("D8", 1, size=4), ImageAction("D4", 1, size=4), 1),
    "SO(2)": (OffGridAction("SO(2)", 1, size=4), ImageAction("C4", 1, size=4), 1),
    "C4 on the grid": (ImageAction("C4", 1, size=4), ImageAction("C1", 1, size=4), 2),
}


def needs_escnn():
    try:
        escnn_group()
    except ImportError as error:
        pytest.skip(str(error))


@functools.cache
def made(name):
    action, _, scales = CASES[name]
    torch.manual_seed(0)
    flow = g_soft_coupling_image_flow(action, scales=scales, blocks=1, width=1, depth=1).double().eval()
    return randomize_(flow, scale=0.01, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=CASES)
def case(request):
    needs_escnn()
    action, claimed, _ = CASES[request.param]
    return copy.deepcopy(made(request.param)), action, claimed


def assert_log_det_of_autograd(transform, event):
    """The log-det is that of the dense Jacobian, all rows of which come from one backward pass over a batch."""
    copies = event.repeat(event.numel(), 1, 1, 1).requires_grad_()
    (jacobian,) = torch.autograd.grad(transform(copies).flatten(1).diagonal().sum(), copies)
    y, ladj = transform.call_and_ladj(event[None])
    torch.testing.assert_close(ladj[0], torch.linalg.slogdet(jacobian.flatten(1)).logabsdet, rtol=0, atol=1e-8)
    torch.testing.assert_close(transform.inv_call_and_ladj(y)[1], -ladj, rtol=0, atol=1e-8)


def test_it_claims_and_has_the_exact_part(case):
    flow, action, claimed = case
    assert flow.action == claimed
    x = events(flow, 3)
    assert_invariant(flow, claimed, x, tol=1e-10)
    before = flow(x).detach()
    training_steps(flow, 3, lr=1e-3)
    assert (flow(x) - before).abs().min() > 1e-3
    assert_invariant(flow, claimed, x, tol=1e-10)
    assert invariance_error(flow, x, action) > 1e-4


def test_it_inverts_and_its_log_det_is_that_of_autograd(case):
    flow, _, _ = case
    x = events(flow, 2)
    assert_bijective(flow.transform, x)
    assert_log_det_of_autograd(flow.transform, x[0])


def test_it_is_described_and_rebuilt(case):
    flow, _, _ = case
    x = events(flow, 2)
    again = EquivariantFlow.from_config(flow.config()).double().eval()
    again.load_state_dict(flow.state_dict())
    assert torch.equal(again(x), flow(x))


def test_every_conditioner_carries_the_group(case):
    flow, action, _ = case
    networks = [module.network for module in flow.modules() if hasattr(module, "network")]
    assert networks
    assert all(isinstance(network, SoftNetwork) and network.group == action.group for network in networks)


def test_the_paper_s_variant_has_the_usual_splits():
    flow = g_soft_coupling_image_flow(ImageAction("C4", 1, size=8), blocks=2, width=1, depth=1)
    masks = [module.split.mask for module in flow.modules() if isinstance(getattr(module, "split", None), MaskSplit)]
    assert all((mask[1:] != mask[:-1]).all() and (mask[:, 1:] != mask[:, :-1]).all() for mask in masks)
    assert any(isinstance(getattr(module, "split", None), ChannelSplit) for module in flow.modules())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: g_coupling_image_flow(OffGridAction("C8", size=8)),
            ValueError,
            "g_soft_coupling_image_flow.*exact_subgroup",
        ),
        (lambda: g_soft_coupling_image_flow(VectorAction.plane("C4")), TypeError, "expected an ImageAction"),
        (
            lambda: g_soft_coupling_image_flow(ImageAction.translations(size=8, step=2)),
            ValueError,
            "expected a group of the plane",
        ),
        (
            lambda: g_coupling_image_flow(ImageAction("C4", size=8), splits=[ChannelSplit]),
            ValueError,
            "cannot be split.*other splits",
        ),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_kinds_of_splits_take_turns():
    action = ImageAction("C4", 2, size=4)
    kinds = (IrrepSplit, ChannelSplit, checkerboard_split)
    flow = g_coupling_image_flow(action, scales=1, blocks=4, width=1, depth=1, splits=kinds)
    layers = [module.split for module in flow.modules() if isinstance(module, GCoupling)]
    assert [type(split).__name__ for split in layers[::2]] == ["IrrepSplit", "ChannelSplit", "MaskSplit", "IrrepSplit"]


@pytest.mark.parametrize("kind", [checkerboard_split, ChannelSplit, IrrepSplit])
@pytest.mark.parametrize("group", ["C1", "C4", "D4"])
def test_splines_couple_images(group, kind):
    action = ImageAction(group, 2, size=4)
    step = g_coupling(action, split=kind(action), transformer=ElementwiseSpline, width=1, depth=1)
    randomize_(step.double(), scale=0.03, generator=torch.Generator().manual_seed(0)).eval()
    x = events(step, 3)
    assert_bijective(step, x)
    assert_log_det_of_autograd(step, x[0])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.long
def test_multi_scale_flows_of_splines(soft):
    if soft:
        needs_escnn()
    action = OffGridAction("C8", 2, size=4) if soft else ImageAction("C4", 2, size=4)
    make = g_soft_coupling_image_flow if soft else g_coupling_image_flow
    flow = make(action, blocks=1, width=1, depth=1, transformer=ElementwiseSpline)
    randomize_(flow.double(), scale=0.01, generator=torch.Generator().manual_seed(0)).eval()
    x = events(flow, 2)
    assert_invariant(flow, flow.action, x, tol=1e-10)
    assert_bijective(flow.transform, x)
    assert_log_det_of_autograd(flow.transform, x[0])
