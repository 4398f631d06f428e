"""Monotone layers: what the two directions compute, and how far their slopes reach."""

import pytest
import torch
from torch import nn

from pyro_gflows import GMonotone, GResidual, ImageAction, VectorAction
from pyro_gflows.nn import ConditionalBranch, LipschitzNetwork, lipschitz_branch
from pyro_gflows.numerics import RouletteLogDet, SeriesLogDet
from pyro_gflows.testing import assert_layer, dense_log_det, randomize_

ACTIONS = {
    "plane D8": VectorAction.plane("D8"),
    "two vectors SO(3)": VectorAction.space("SO(3)", copies=2),
    "image C4": ImageAction("C4", 1, size=3),
}


@pytest.fixture(params=ACTIONS)
def layer(request):
    torch.manual_seed(1)
    action = ACTIONS[request.param]
    return randomize_(GMonotone(action, lipschitz_branch(action, bound=0.8)).double(), scale=0.5).eval()


def events(layer, count=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *layer.action_in.event_shape, dtype=torch.float64, generator=generator)


def test_is_an_equivariant_bijection_with_its_log_det(layer):
    assert_layer(layer, events(layer), tol=1e-9)


def test_both_sides_are_residual_maps_of_one_point(layer):
    x = events(layer)
    y = layer.call_and_ladj(x)[0]
    u = x + y
    torch.testing.assert_close(x - y, layer.branch(u), rtol=0, atol=1e-11)


@pytest.mark.parametrize("direction", ["call_and_ladj", "inv_call_and_ladj"])
def test_gradients_are_those_of_finite_differences(layer, direction):
    x, step = events(layer), 1e-6
    parameters = list(layer.parameters())
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(part.shape, dtype=torch.float64, generator=generator) for part in (x, x[:, 0, ...])]

    def score(point):
        value, ladj = getattr(layer, direction)(point)
        return (value * weights[0]).sum() + ladj.sum()

    moves = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in (x, *parameters)]
    point = x.clone().requires_grad_()
    gradients = torch.autograd.grad(score(point), [point, *parameters], allow_unused=True)
    pairs = zip(gradients, moves, strict=True)
    expected = sum((gradient * move).sum() for gradient, move in pairs if gradient is not None)
    ends = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for parameter, move in zip(parameters, moves[1:], strict=True):
                parameter.add_(sign * step * move)
            ends.append(score(x + sign * step * moves[0]))
            for parameter, move in zip(parameters, moves[1:], strict=True):
                parameter.sub_(sign * step * move)
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_estimated_log_dets_are_those_of_the_odd_terms():
    """log det (I - J) - log det (I + J) = -2 tr (J + J^3 / 3 + ...): the even terms cancel, probe by probe."""
    action = VectorAction.regular("C4")
    branch = randomize_(LipschitzNetwork(action, width=2, bound=0.5).double(), scale=1.0)
    estimator = RouletteLogDet(evaluation=SeriesLogDet(40, probes=64))
    layer = GMonotone(action, branch, log_det=estimator).double().eval()
    x = events(layer)
    y, ladj = layer.call_and_ladj(x)
    exact = dense_log_det(lambda e: layer.call_and_ladj(e)[0], x)
    assert (ladj - exact).abs().max() < 0.2
    torch.testing.assert_close(layer.inv_call_and_ladj(y)[1], -ladj, rtol=0, atol=1e-9)


@pytest.mark.long
def test_estimated_log_dets_are_invariant_where_the_group_is_finite():
    """The probes are averaged over the group; a continuous one has no such average, and an estimate all the same."""
    estimator = RouletteLogDet(evaluation=SeriesLogDet(12, probes=1))
    for action in (VectorAction.regular("C4"), VectorAction.space("SO(3)", copies=2)):
        torch.manual_seed(1)
        branch = randomize_(lipschitz_branch(action, bound=0.8).double(), scale=0.5)
        layer = GMonotone(action, branch, log_det=estimator).double().eval()
        x = events(layer)
        ladj = layer.call_and_ladj(x)[1]
        assert ladj.isfinite().all()
        if action.is_finite:
            for image in action.act_all(x):
                torch.testing.assert_close(layer.call_and_ladj(image)[1], ladj, rtol=0, atol=1e-9)


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x):
        return self.factor * x

    def lipschitz_bound(self):
        return self.factor.abs()


def test_slopes_reach_beyond_2():
    """A branch of slope -0.9 stretches by 19; a residual layer at most by 1.9."""
    action = VectorAction.space("O(3)")
    layer = GMonotone(action, Scale(-0.9))
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(layer.call_and_ladj(x)[0], 19 * x)
    assert_layer(layer, x, tol=1e-9)
    assert GResidual(action, Scale(0.9), fast="sample").call_and_ladj(x)[0].allclose(1.9 * x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda a: GMonotone(a, nn.Linear(2, 2)), TypeError, r"lipschitz_bound\(\) method, got Linear"),
        (lambda a: GMonotone(a, Scale(1.0)), ValueError, "Lipschitz bound below 1, got 1"),
        (lambda a: GMonotone(a, LipschitzNetwork(VectorAction.plane("C3"))), ValueError, "expected a branch for .*C4"),
        (lambda a: GMonotone(a, ConditionalBranch(a, a, bound=0.5)), ValueError, "without a context"),
    ],
)
def test_bad_branches_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(VectorAction.plane("C4"))


def test_repr_says_what_is_certified():
    text = repr(GMonotone(VectorAction.space("O(3)"), Scale(0.5)))
    assert "Lipschitz bound 0.5 as built, log-det exact" in text
