"""ConstantMemory: the numbers and gradients of the estimator it wraps, under weights by row, with little stored."""

import weakref

import pytest
import torch

from pyro_gflows import ImageAction, g_residual
from pyro_gflows.nn import LipschitzNetwork, kernels_once
from pyro_gflows.numerics import ConstantMemory, ExactLogDet, RouletteLogDet, SeriesLogDet
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GResidual
from tests.numerics.branches import AnalyticBranch, Branch

ESTIMATORS = {
    "exact": ExactLogDet(),
    "series": SeriesLogDet(6, probes=2),
    "series, exact traces": SeriesLogDet(6, probes=None),
    "roulette": RouletteLogDet(),
    "roulette, a length for each row": RouletteLogDet(shared_length=False),
}
WEIGHTS = {
    "0 1 2 3 4": torch.arange(5.0, dtype=torch.float64),
    "mask": torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64),
}


def points(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network(action):
    return randomize_(LipschitzNetwork(action, width=2, bound=0.7).double(), scale=0.3)


def results(estimator, f, x, event_dim, weights, *, training=True):
    """Value, log-det and the gradients of a sum that sees both, row by row, from one seed."""
    torch.manual_seed(0)
    x = x.clone().requires_grad_()
    value, log_det = estimator(f, x, event_dim, lipschitz=0.8, training=training)
    rows = log_det + (value * value.detach().cos()).flatten(x.dim() - event_dim).sum(-1)
    return [value.detach(), log_det.detach(), *torch.autograd.grad((weights * rows).sum(), [x, *f.parameters()])]


def assert_same(own, plain):
    assert len(own) == len(plain)
    for a, b in zip(own, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_values_and_gradients_under_weights_are_those_of_the_estimator(name, weights, training):
    estimator, f, x = ESTIMATORS[name], Branch((4,)), points(5, 4)
    own, plain = (
        results(each, f, x, 1, WEIGHTS[weights], training=training) for each in (ConstantMemory(estimator), estimator)
    )
    assert_same(own, plain)
    assert all(gradient.abs().max() > 1e-3 for gradient in own)
    assert own[2][WEIGHTS[weights] == 0].abs().max() == 0


def test_a_weighted_gradient_is_the_weighted_sum_of_the_gradients_of_rows():
    """Contract 17: libraries multiply all rows by the weight of the first."""
    f, x, weights = Branch((4,)), points(5, 4), WEIGHTS["0 1 2 3 4"]
    torch.manual_seed(0)
    _, log_det = ConstantMemory(RouletteLogDet())(f, x, 1, lipschitz=0.8, training=True)
    together = torch.autograd.grad((weights * log_det).sum(), list(f.parameters())[:2], retain_graph=True)
    rows = [torch.autograd.grad(row, list(f.parameters())[:2], retain_graph=True) for row in log_det]
    for place, gradient in enumerate(together):
        expected = sum(float(w) * row[place] for w, row in zip(weights, rows, strict=True))
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("batch", [(), (2, 3), (0,)])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_batch_shape(name, batch):
    f, x = Branch((2, 1, 2)), points(*batch, 2, 1, 2)
    own, plain = (results(each, f, x, 3, 1.0) for each in (ConstantMemory(ESTIMATORS[name]), ESTIMATORS[name]))
    assert_same(own, plain)


def test_a_jacobian_in_closed_form_is_used():
    f = AnalyticBranch((4,))
    own, plain = (results(each, f, points(3, 4), 1, 1.0) for each in (ConstantMemory(ExactLogDet()), ExactLogDet()))
    assert_same(own, plain)
    assert f.calls == 3  # forward and backward, and the plain one


@pytest.mark.parametrize("name", ["exact", "series", "roulette"])
def test_kernels_are_computed_once_where_asked(name):
    action = ImageAction("C4", 1, size=4)
    f, x = network(action), points(5, 1, 4, 4)
    plain = results(ESTIMATORS[name], f, x, 3, WEIGHTS["0 1 2 3 4"])
    assert_same(results(ConstantMemory(ESTIMATORS[name]), f, x, 3, WEIGHTS["0 1 2 3 4"]), plain)
    with kernels_once(f):
        assert_same(results(ConstantMemory(ESTIMATORS[name]), f, x, 3, WEIGHTS["0 1 2 3 4"]), plain)


@pytest.mark.parametrize("estimator", [ExactLogDet(), RouletteLogDet()])
def test_a_context_has_its_gradient(estimator):
    action = ImageAction("D2", 1, size=2)
    layer = g_residual(action, context_action=action, bound=0.6, log_det=estimator).double()
    randomize_(layer, scale=0.3, generator=torch.Generator().manual_seed(1))
    sparing = GResidual(action, layer.branch, log_det=ConstantMemory(estimator))
    found = []
    for each in (layer, sparing):
        torch.manual_seed(0)
        x, context = (points(5, 1, 2, 2, seed=seed).requires_grad_() for seed in (0, 1))
        y, ladj = each.call_and_ladj(x, context)
        loss = (WEIGHTS["0 1 2 3 4"] * (ladj + y.square().flatten(1).sum(-1))).sum()
        found.append([loss.detach(), *torch.autograd.grad(loss, [x, context, *each.parameters()])])
    assert_same(*found)
    assert found[0][2].abs().max() > 1e-3


def test_without_gradients_it_is_the_estimator():
    f, x = Branch((4,)), points(5, 4)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            value, log_det = ConstantMemory(ExactLogDet())(f, x, 1, lipschitz=0.8, training=False)
            assert torch.equal(log_det, ExactLogDet()(f, x, 1, lipschitz=0.8, training=False)[1])
        assert not value.requires_grad
        assert not log_det.requires_grad


class Box:
    def __init__(self, tensor):
        self.tensor = tensor.detach()  # the tensor itself would hold the graph that holds it


def test_little_is_stored_and_the_terms_are_not_computed_again():
    class Counted(Branch):
        passes = 0

        def forward(self, x):
            self.passes += 1
            return super().forward(x)

    f, x = Counted((40,)), points(50, 40)
    boxes = weakref.WeakSet()  # what the graph holds; graphs made on the way take theirs along

    def pack(tensor):
        box = Box(tensor)
        boxes.add(box)
        return box

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        _, log_det = ConstantMemory(RouletteLogDet(exact_terms=9))(f, x, 1, lipschitz=0.8, training=True)
    assert sum(box.tensor.nbytes for box in boxes) == x.numel() * (8 + 8 + 1)  # x, w, and the signs of eps
    log_det.sum().backward()
    assert f.passes == 2


def test_second_derivatives_are_refused():
    f, x = Branch((4,)), points(3, 4).requires_grad_()
    _, log_det = ConstantMemory(ExactLogDet())(f, x, 1, lipschitz=0.8, training=True)
    with pytest.raises(RuntimeError, match="expected a first derivative"):
        torch.autograd.grad(log_det.sum(), x, create_graph=True)
    with pytest.raises(TypeError, match="expected a LogDet"):
        ConstantMemory("roulette")


def test_it_describes_itself():
    estimator = ConstantMemory(RouletteLogDet(evaluation=SeriesLogDet(8)))
    assert repr(build(describe(estimator))) == repr(estimator)
    assert estimator.describe(lipschitz=0.5, dim=3).endswith("in constant memory")


def test_weights_that_changed_in_between_are_noticed():
    f, x = Branch((4,)), points(3, 4)
    _, log_det = ConstantMemory(ExactLogDet())(f, x, 1, lipschitz=0.8, training=True)
    with torch.no_grad():
        f.w.mul_(0.5)
    with pytest.raises(RuntimeError, match="no longer those of the forward pass"):
        log_det.sum().backward()
