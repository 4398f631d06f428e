"""Recompute and ConstantMemory give every tensor that is read its gradient, whoever owns it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroSample
from torch import nn
from torch.nn.utils import parametrize

from pyro_gflows import VectorAction
from pyro_gflows.numerics import ConstantMemory, ExactLogDet, RouletteLogDet, SeriesLogDet, replayed
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GMonotone, GResidual, Recompute, g_residual
from tests.numerics.branches import Branch

ACTION = VectorAction.trivial("C1", copies=4)
ESTIMATORS = {
    "exact": ExactLogDet,
    "series": lambda: SeriesLogDet(5, probes=2),
    "roulette": lambda: RouletteLogDet(exact_terms=2),
}


def points(seed=0):
    return torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(layer):
    return layer


def sparing(layer):
    layer.log_det = ConstantMemory(layer.log_det)
    return layer


WRAPS = {"recompute": Recompute, "constant memory": sparing, "both": lambda layer: Recompute(sparing(layer))}


def loss_of(layer, x, context=None):
    torch.manual_seed(3)
    y, ladj = layer.inv_call_and_ladj(x, context)
    back, ladj_back = layer.call_and_ladj(x, context)
    rows = torch.arange(1.0, 1 + len(ladj), dtype=ladj.dtype)
    return (y**3).sum() + (back * y.detach()).sum() + (rows * ladj).sum() + (ladj_back**2).sum()


def assert_same_gradients(build, wrap):
    """``build(wrap)`` gives a scalar and the tensors to differentiate by."""
    found = []
    for each in (plain, WRAPS[wrap]):
        loss, wanted = build(each)
        found.append([loss.detach(), *torch.autograd.grad(loss, wanted)])
    for stored, own in zip(*found, strict=True):
        torch.testing.assert_close(own, stored, rtol=1e-11, atol=1e-12)
        assert own.abs().max() > 1e-3


class Given(nn.Module):
    """x -> tanh(x W) / 2 divided by the norm of W, which is whatever tensor was put there."""

    def __init__(self):
        super().__init__()
        self.w = None

    def lipschitz_bound(self):
        return torch.tensor(0.5)

    def forward(self, x):
        return 0.5 * (x @ (self.w / torch.linalg.matrix_norm(self.w))).tanh()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("wrap", WRAPS)
def test_weights_that_another_network_makes_anew_for_every_use(wrap, estimator):
    def build(wrapped):
        torch.manual_seed(0)
        hyper, f = nn.Linear(3, 16).double(), Given()
        layer = wrapped(GResidual(ACTION, f, log_det=ESTIMATORS[estimator]()).train())
        loss = 0.0
        for seed in (0, 1):  # the second use overwrites the weights before the first has its gradient
            f.w = hyper(points(seed)[0, :3]).reshape(4, 4)
            loss = loss + (seed + 1) * loss_of(layer, points(seed))
        return loss, list(hyper.parameters())

    assert_same_gradients(build, wrap)


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_tensor_that_a_closure_holds(wrap):
    class Closed(Given):
        def __init__(self, w):
            super().__init__()
            self.read = lambda: w

        def forward(self, x):
            return 0.4 * (x * self.read()).tanh()

    def build(wrapped):
        w = torch.linspace(0.2, 0.9, 4, dtype=torch.float64, requires_grad=True)
        layer = wrapped(GResidual(ACTION, Closed(w.sin())))
        return loss_of(layer, points()), [w]

    assert_same_gradients(build, wrap)


def test_a_closure_is_a_branch_of_an_estimator_in_constant_memory():
    f, x, scale = Branch((4,)), points(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = []
    for estimator in (RouletteLogDet(), ConstantMemory(RouletteLogDet())):
        torch.manual_seed(0)
        value, log_det = estimator(lambda x: scale * f(x), x, 1, lipschitz=0.8, training=True)
        loss = (value**2).sum() + (log_det * torch.arange(5)).sum()
        found.append(torch.autograd.grad(loss, [scale, *f.parameters()]))
    for stored, own in zip(*found, strict=True):
        torch.testing.assert_close(own, stored, rtol=1e-12, atol=1e-13)
        assert own.abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["residual", "monotone"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_weights_lent_by_functional_call_whose_gradient_is_taken_outside_of_it(wrap, kind):
    class Loss(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return loss_of(self.layer, x)

    def build(wrapped):
        torch.manual_seed(0)
        layer = g_residual(ACTION) if kind == "residual" else GMonotone(ACTION, Branch4())
        layer = wrapped(randomize_(layer.double(), generator=torch.Generator().manual_seed(1)))
        module, scales = Loss(layer), [torch.tensor(s, dtype=torch.float64, requires_grad=True) for s in (1.1, 0.9)]
        lent = [{name: scale * p.detach() for name, p in module.named_parameters()} for scale in scales]
        own = [p.requires_grad_(False) for p in module.parameters()]
        losses = [torch.func.functional_call(module, each, (points(),)) for each in lent]
        assert own == list(module.parameters())
        return losses[0] + 3 * losses[1], scales

    assert_same_gradients(build, wrap)


class Branch4(Branch):
    def __init__(self):
        super().__init__((4,), lipschitz=0.5)

    def lipschitz_bound(self):
        return torch.tensor(0.99)


@pytest.mark.parametrize("wrap", WRAPS)
def test_parametrized_weights(wrap):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

        def forward(self, w):
            return self.scale * w

    def build(wrapped):
        torch.manual_seed(0)
        layer = g_residual(VectorAction.regular("C4")).double()
        parametrize.register_parametrization(layer.branch, "p", Scaled())
        wanted = list(layer.branch.parametrizations.p.parameters())
        return loss_of(wrapped(layer), points()), wanted

    assert_same_gradients(build, wrap)


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_context_that_is_computed_from_something_else(wrap):
    action = VectorAction.regular("C4")

    def build(wrapped):
        torch.manual_seed(0)
        layer = randomize_(
            g_residual(action, context_action=action).double(), generator=torch.Generator().manual_seed(1)
        )
        encoder = nn.Linear(4, 4).double()
        return loss_of(wrapped(layer), points(), encoder(points(1))), [*encoder.parameters()]

    assert_same_gradients(build, wrap)


@pytest.mark.parametrize("wrap", WRAPS)
def test_weights_that_pyro_samples(wrap):
    class Sampled(PyroModule):
        def __init__(self):
            super().__init__()
            zeros = torch.zeros(4, 4, dtype=torch.float64)
            self.w = PyroSample(dist.Normal(zeros, 1.0).to_event(2))

        def lipschitz_bound(self):
            return torch.tensor(0.5)

        def forward(self, x):
            return 0.5 * (x @ (self.w / torch.linalg.matrix_norm(self.w))).tanh()

    class Model(PyroModule):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self):
            y, ladj = self.layer.inv_call_and_ladj(points())  # one call of the branch, so one sample statement
            pyro.factor("loss", (y**3).sum() + (torch.arange(5) * ladj).sum())

    def build(wrapped):
        model = Model(wrapped(GResidual(ACTION, Sampled())))
        loc = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(4, 4).requires_grad_()
        sites = pyro.poutine.trace(model).get_trace().stochastic_nodes
        (name,) = [site for site in sites if site != "loss"]
        trace = pyro.poutine.trace(pyro.poutine.condition(model, data={name: loc.sin()})).get_trace()
        return trace.nodes["loss"]["fn"].log_factor, [loc]

    assert_same_gradients(build, wrap)


def test_another_tensor_in_the_place_of_one_that_was_read_is_noticed():
    places = [torch.ones(2, requires_grad=True)]
    x = torch.ones(2, requires_grad=True)

    def call(x):
        return ((places[0] * x).sin(),)

    (y,) = replayed(lambda x: (call(x), ()), call, [x])
    places[0] = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="no longer those of the forward pass"):
        y.sum().backward()


def test_a_tensor_that_was_read_and_then_changed_is_noticed():
    w, x = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)

    def call(x):
        return ((w * x).sin(),)

    (y,) = replayed(lambda x: (call(x), ()), call, [x])
    with torch.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="no longer those of the forward pass"):
        y.sum().backward()


def test_a_buffer_that_is_returned_as_it_is_stays_a_buffer():
    constant = torch.ones(2)
    x = torch.ones(2, requires_grad=True)
    outputs = replayed(lambda x: ((x, constant), ()), lambda x: (x, constant), [x])
    assert not constant.requires_grad
    assert torch.equal(torch.autograd.grad(outputs[0].sum(), x)[0], torch.ones(2))


def test_a_call_may_make_leaves_of_its_own_beside_the_weights_that_it_reads():
    w, x = torch.tensor([0.5, 2.0], requires_grad=True), torch.tensor([0.3, -0.7], requires_grad=True)

    def call(x):
        own = torch.ones(2).requires_grad_()  # as a Jacobian of a branch is made with
        return ((w * x * own).sin(),)

    (y,) = replayed(lambda x: (call(x), ()), call, [x])
    gradients = torch.autograd.grad(y.sum(), [w, x])
    torch.testing.assert_close(gradients, ((w * x).cos() * x, (w * x).cos() * w))


def test_a_call_that_depends_on_nothing_has_no_gradient():
    w, x = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)

    def call(x):
        return ((w * x).detach() + 1,)

    (y,) = replayed(lambda x: (call(x), ()), call, [x])
    gradients = torch.autograd.grad((y * x).sum(), [w, x], allow_unused=True)
    assert gradients[0] is None and torch.equal(gradients[1], 2 * torch.ones(2))
