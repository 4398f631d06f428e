"""Log-dets that are estimated under large groups: exactly invariant, at the cost of one image of each probe."""

import functools
import math

import pytest
import torch

from pyro_gflows import EquivariantFlow, GMonotone, GResidual, ImageAction, InvariantNormal, VectorAction, g_residual
from pyro_gflows.evaluation import log_det_error
from pyro_gflows.nn import LipschitzNetwork, lipschitz_branch
from pyro_gflows.numerics import ConstantMemory, ExactLogDet, KrylovLogDet, OrbitAverage, RouletteLogDet, SeriesLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import Recompute
from tests.transforms.invariant_estimates import assert_exactly_invariant, log_det

BOUND, TERMS = 0.7, 12

ACTIONS = {
    "shifts, 9 x 9": ImageAction.translations(1, size=9),
    "shifts, 10 x 10, 2 channels": ImageAction.translations(2, size=10),
    "shifts and turns, 6 x 6": ImageAction.translations(1, size=6, point_group="D4"),
    "D40 on the plane": VectorAction.plane("D40", copies=2),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def branch_of(action):
    torch.manual_seed(1)
    images = action.event_dim > 1
    made = LipschitzNetwork(action, width=3, bound=BOUND) if images else lipschitz_branch(action, bound=BOUND)
    return randomize_(made.double(), scale=0.5)


def layer_of(action, *, probes=2, kind=GResidual):
    estimator = RouletteLogDet(evaluation=SeriesLogDet(TERMS, probes=probes))
    return kind(action, branch_of(action), log_det=estimator).double().eval()


def events(action, count=5):
    return torch.randn(count, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def moved(action, x, seed=0):
    return action.act_each(action.sample((len(x),), torch.Generator().manual_seed(seed)), x)


@pytest.mark.parametrize("kind", [GResidual, GMonotone])
def test_the_estimate_is_exactly_invariant(action, kind):
    """The probes follow the event (contract 48)."""
    layer, x = layer_of(action, kind=kind), events(action)
    estimator = SeriesLogDet(TERMS, probes=2)
    assert_exactly_invariant(layer, x, lambda seed: moved(action, x, seed), estimator, lipschitz=BOUND, broken=1e-3)


def test_events_that_some_elements_leave_as_they_are():
    """Several elements take them to their canonical form; the branch's Jacobian does not tell these apart."""
    action = ACTIONS["shifts, 9 x 9"]
    layer = layer_of(action)
    x = events(action, 3)[..., :1].expand(3, *action.event_shape)  # the same in all columns
    torch.testing.assert_close(log_det(layer, moved(action, x)), log_det(layer, x), rtol=0, atol=1e-10)


@pytest.mark.long
def test_the_value_is_the_exact_one_within_the_stated_error(action):
    layer, x = layer_of(action, probes=64), events(action, 3)
    exact = ExactLogDet()(layer.branch, x, action.event_dim, lipschitz=BOUND, training=False)[1]
    parts = []
    for part in layer.log_det.evaluation.parts(16):
        parts.append(log_det(GResidual(action, layer.branch, log_det=part), x))
    error = torch.stack(parts).std(0) / math.sqrt(len(parts))
    truncation = SeriesLogDet(TERMS).truncation_error(lipschitz=BOUND, dim=action.numel)
    found = log_det(layer, x)
    assert ((found - exact).abs() <= 4.5 * error + truncation).all()
    torch.testing.assert_close(torch.stack(parts).mean(0), found, rtol=0, atol=1e-12)


def test_each_row_has_the_probes_that_belong_to_it(action):
    layer, x = layer_of(action), events(action, 6)
    together = log_det(layer, x)
    torch.testing.assert_close(torch.stack([log_det(layer, row) for row in x]), together, rtol=0, atol=1e-12)
    shaped = x.reshape(2, 3, *action.event_shape)
    torch.testing.assert_close(log_det(layer, shaped), together.reshape(2, 3), rtol=0, atol=1e-12)
    assert log_det(layer, x[:0]).shape == (0,)


def test_the_gradient_is_that_of_the_value(action):
    """The probes are constant near almost every event: finite differences see the same as autograd."""
    layer, x, step = layer_of(action), events(action, 2), 1e-6
    parameters = list(layer.parameters())
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(each.shape, dtype=torch.float64, generator=generator) for each in (x, *parameters)]
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)

    def score(point):
        return (weights * layer.inv_call_and_ladj(point)[1]).sum()

    point = x.clone().requires_grad_()
    gradients = torch.autograd.grad(score(point), [point, *parameters], allow_unused=True)
    found = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    assert found.abs() > 1e-3
    ends = []
    for sign in (step, -2 * step):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions[1:], strict=True):
                parameter.add_(sign * direction)
            ends.append(score(x + (step if sign > 0 else -step) * directions[0]))
    torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("wrap", ["constant memory", "recompute"])
def test_less_memory_gives_the_same(action, wrap):
    plain = layer_of(action)
    sparing = Recompute(plain)
    if wrap == "constant memory":
        sparing = GResidual(action, plain.branch, log_det=ConstantMemory(plain.log_det)).eval()
    x = events(action, 3)
    found = []
    for layer in (plain, sparing):
        point = x.clone().requires_grad_()
        y, ladj = layer.inv_call_and_ladj(point)
        loss = (torch.arange(3.0, dtype=torch.float64) * ladj).sum() + y.square().sum()
        found.append([ladj.detach(), *torch.autograd.grad(loss, [point, *plain.parameters()])])
    for own, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-12)


def test_inside_vmap_and_forward_mode(action):
    layer, x = layer_of(action), events(action, 3)
    expected = log_det(layer, x)
    mapped = torch.func.vmap(lambda row: layer.inv_call_and_ladj(row)[1])(x)
    torch.testing.assert_close(mapped, expected, rtol=0, atol=1e-11)
    tangent = events(action, 4)[1:]
    value, derivative = torch.func.jvp(lambda x: layer.inv_call_and_ladj(x)[1], (x,), (tangent,))
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer.inv_call_and_ladj(point)[1].sum(), point)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(derivative, (gradient * tangent).flatten(1).sum(1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("action", [ImageAction.translations(1, size=8), ImageAction("D4", 1, size=3)], ids=str)
@pytest.mark.long
def test_up_to_64_elements_all_images_are_averaged_over(action):
    layer, x = layer_of(action), events(action)
    expected = torch.zeros(len(x), dtype=torch.float64)
    estimator = layer.log_det.evaluation
    signs = torch.randint(0, 2, (2, *action.event_shape), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    jacobians = ExactJacobian(layer.branch)(x)
    for images in action.act_all(signs):
        for probe in images.flatten(1):
            power = probe.expand(len(x), -1)
            for k in range(1, estimator.terms + 1):
                power = torch.einsum("bji,bj->bi", jacobians, power)
                expected = expected - (-1) ** k / k * (power @ probe) / (2 * len(action.elements()))
    torch.testing.assert_close(log_det(layer, x), expected, rtol=0, atol=1e-11)
    orbit = estimator(layer.branch, x, 3, lipschitz=BOUND, training=False, orbit=action.act_all)[1].detach()
    assert torch.equal(log_det(layer, x), orbit)
    averaged = estimator(layer.branch, x, 3, lipschitz=BOUND, training=False, orbit=OrbitAverage(action.act_all))[1]
    assert torch.equal(averaged.detach(), orbit)
    assert "jump" not in repr(layer)


class ExactJacobian:
    """The Jacobians of a branch by autograd, row by row."""

    def __init__(self, branch):
        self.branch = branch

    def __call__(self, x):
        found = [torch.autograd.functional.jacobian(lambda v: self.branch(v[None])[0], row) for row in x]
        return torch.stack(found).reshape(len(x), x[0].numel(), x[0].numel())


def test_the_description_says_that_the_estimate_may_jump(action):
    assert "the estimate may jump where the canonical element of x changes" in repr(layer_of(action))
    assert "jump" not in repr(GResidual(action, branch_of(action)))  # an exact log-det has no probes
    exact = GResidual(action, branch_of(action), log_det=SeriesLogDet(TERMS, probes=None))
    assert "jump" not in repr(exact)


@pytest.mark.long
def test_the_error_is_measured(action):
    """Against the spread of the estimates that other probes give."""
    layer, x = layer_of(action, probes=8), events(action, 6)
    flow = EquivariantFlow(InvariantNormal(action), [layer]).double().eval()
    error = log_det_error(flow, x)
    others = [GResidual(action, layer.branch, log_det=layer.log_det.evaluation.reseeded(k)) for k in range(1, 30)]
    means = torch.stack([log_det(other, x).mean() for other in others])
    assert error.estimated == 1
    assert means.std() / 2.5 < error.standard_error < 2.5 * means.std()


@pytest.mark.parametrize("point_group", ["C1", "D4"])
@pytest.mark.parametrize(("depth", "copies"), [(1, 1), (2, 4)])
@pytest.mark.long
def test_the_cost_does_not_grow_with_the_group(point_group, depth, copies):
    """The number of events that the branch is given in all, for a batch under 1,024 shifts, or 8,192 elements.

    A branch of one hidden layer multiplies all 4 probes by the Jacobian at one copy of the event.
    """
    action = ImageAction.translations(1, size=32, point_group=point_group)
    branch = functools.partial(LipschitzNetwork, depth=depth, bound=0.3, width=2)
    layer, counts = g_residual(action, branch=branch).double().eval(), []
    assert isinstance(layer.log_det.evaluator(), KrylovLogDet)
    layer.branch.layers[0].register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].numel() // action.numel))
    x = events(action, 8)
    with torch.no_grad():
        found = log_det(layer, x)
    assert sum(counts) == copies * 8
    torch.testing.assert_close(log_det(layer, moved(action, x)), found, rtol=0, atol=1e-10)
