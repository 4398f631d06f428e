import functools
import math

import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    GNormalCdf,
    GSigmoid,
    ImageAction,
    InvariantNormal,
    VectorAction,
    g_coupling_image_flow,
    g_residual_image_flow,
)
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_invariant, assert_log_det

ACTION = ImageAction("D4", 1, size=2)
KINDS = pytest.mark.parametrize("kind", [GSigmoid, GNormalCdf])


def images(low, high, n=3, *, dtype=torch.float64):
    return low + (high - low) * torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=dtype)


@KINDS
def test_the_interval_lies_inside_with_the_margin(kind):
    layer = kind(ACTION, (-1.0, 3.0), alpha=0.1)
    assert layer.limits == pytest.approx((-1.5, 3.5))
    x = torch.tensor([-1e4, 0.0, 1e4, 0.3], dtype=torch.float64).reshape(1, 1, 2, 2)
    assert layer(x).flatten()[:3].tolist() == pytest.approx([-1.5, 1.0, 3.5])
    assert layer.inv(layer(x)).isfinite().all()  # what was drawn can be scored, wherever it rounds to


def test_the_logit_is_that_of_realnvp():
    p = images(0.0, 1.0)
    squeezed = 0.05 + 0.9 * p
    x, ladj = GSigmoid(ACTION, (0.0, 1.0), alpha=0.05).inv_call_and_ladj(p)
    torch.testing.assert_close(x, squeezed.log() - (1 - squeezed).log())
    expected = (math.log(0.9) - squeezed.log() - (1 - squeezed).log()).sum((-3, -2, -1))
    torch.testing.assert_close(ladj, expected)


@KINDS
@pytest.mark.parametrize("size", [3.0, 300.0])
def test_the_log_det_is_finite_and_right_where_the_slope_is_tiny(kind, size):
    x = torch.full((1, 1, 2, 2), size, dtype=torch.float32)
    ladj = kind(ACTION, (0.0, 1.0), alpha=0.0).call_and_ladj(x)[1]
    one = {GSigmoid: -size - 2 * math.log1p(math.exp(-size)), GNormalCdf: -(size**2 + math.log(2 * math.pi)) / 2}[kind]
    assert float(ladj) == pytest.approx(4 * one, rel=1e-6)


@KINDS
def test_in_float32_on_the_data_and_its_edges(kind):
    y = images(-1.0, 3.0, dtype=torch.float32)
    y[0] = -1.0
    y[1] = 3.0
    layer = kind(ACTION, (-1.0, 3.0))
    assert_bijective(layer.inv, y, tol=1e-5)
    assert_log_det(layer, images(-2.0, 2.0, 1))
    assert_equivariant(layer, ACTION, ACTION, y)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges_and_draws_that_round_to_them_can_be_scored(kind, dtype):
    layer = kind(ACTION, (0.0, 1.0), alpha=0.0)
    edges = torch.tensor([0.0, 1.0], dtype=dtype).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    far = torch.tensor([-1e4, 1e4], dtype=dtype).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    for y in (edges, layer.call_and_ladj(far)[0]):
        assert ((y >= 0) & (y <= 1)).all()
        x, ladj = layer.inv_call_and_ladj(y)
        assert x.isfinite().all() and ladj.isfinite().all()
        assert (x[0] < -5).all() and (x[1] > 5).all()


def test_a_normal_base_becomes_exactly_uniform():
    flow = EquivariantFlow(InvariantNormal(ACTION), [GNormalCdf(ACTION, (0.0, 0.5), alpha=0.0)])
    torch.testing.assert_close(flow(images(0.0, 0.5)), torch.full((3,), 4 * math.log(2.0), dtype=torch.float64))


def test_outside_is_outside_the_support():
    flow = EquivariantFlow(InvariantNormal(ACTION), [GActNorm(ACTION), GSigmoid(ACTION, (-1.0, 1.0))])
    with pytest.raises(ValueError, match="to be within the support"):
        flow(torch.full((1, 1, 2, 2), 1.2))
    assert flow.transforms[-1].inv(torch.full((1, 1, 2, 2), 1.2)).isnan().all()
    assert flow.transform.inv.domain.check(torch.full((1, 1, 2, 2), 1.0)).all()
    assert not flow.transform.inv.domain.check(torch.full((1, 1, 2, 2), 1.2)).any()


@pytest.mark.parametrize("make", [g_coupling_image_flow, g_residual_image_flow])
def test_image_flows_take_it_as_preprocessing(make):
    action, scaling = ImageAction("C4", 1, size=4), GrayLevels(17, center=0.3, gain=2.0)
    torch.manual_seed(0)
    logits = functools.partial(GSigmoid, interval=scaling.interval())
    flow = make(action, scales=1, blocks=1, width=1, preprocess=logits).double()
    levels = torch.randint(17, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    y = scaling.dequantize(levels, torch.Generator().manual_seed(1)).double()
    flow.initialize(y)
    assert flow.transforms[-2].log_scale.detach().abs() > 0.01  # the scale is measured behind the logit
    assert_invariant(flow.eval(), action, y)
    low, high = scaling.interval()
    draws = flow.dist.sample((200,))
    assert low - 0.1 * (high - low) < draws.min() and draws.max() < high + 0.1 * (high - low)
    again = EquivariantFlow.from_config(flow.config()).double().eval()
    again.load_state_dict(flow.state_dict())
    assert torch.equal(again(y), flow(y))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GSigmoid(VectorAction.signs(3)), "got a signed permutation: .*plain pixels"),
        (lambda: GSigmoid(VectorAction.plane("D8")), "got no permutation"),
        (lambda: GSigmoid(ACTION, (1.0, 1.0)), "low < high"),
        (lambda: GSigmoid(ACTION, (0.0, float("inf"))), "finite"),
        (lambda: GNormalCdf(ACTION, alpha=0.5), "alpha in"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
