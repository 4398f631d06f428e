"""A tensor that was changed in place after it was drawn or encoded is scored with its new values."""

import contextlib
import copy

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import TransformedDistribution
from pyro.nn import PyroSample
from pyro.nn.module import to_pyro_module_

from pyro_gflows import (
    Compose,
    EquivariantFlow,
    ImageAction,
    InvariantNormal,
    SitesAction,
    Symmetrized,
    VectorAction,
    g_residual,
)
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.flows import OrbitFlow, g_dequantizer
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import EquivariantTransform, GActNorm
from tests.constructors import CONDITIONAL, conditional_flow, events, make, make_conditional, make_flow


def _through_numpy(y):
    view = y.detach().numpy()
    view *= 0.9


def _one_entry(y):
    with torch.no_grad():
        y[(0,) * y.ndim] *= 0.9


def _item_assignment(y):
    with torch.no_grad():
        y[:] = 0.9 * y


def _method(y):
    with torch.no_grad():
        y.mul_(0.9)


def _operator(y):
    with torch.no_grad():
        y *= 0.9


def _data(y):
    y.data *= 0.9


def _other_data(y):
    y.data = 0.9 * y.data


def _slice_of_it(y):
    part = y.detach()[:1]
    part *= 0.9


def _out(y):
    with torch.no_grad():
        torch.mul(y, 0.9, out=y)


def _memory_view(y):
    buffer = np.asarray(memoryview(y.detach().numpy()))
    buffer[...] = 0.9 * buffer


def _dlpack(y):
    torch.from_dlpack(y.detach()).mul_(0.9)


def _inference_mode(y):
    with torch.inference_mode():
        y.detach().mul_(0.9)


WRITES = {
    "method": _method,
    "operator": _operator,
    "item assignment": _item_assignment,
    "one entry": _one_entry,
    "a slice of it": _slice_of_it,
    "out=": _out,
    ".data": _data,
    "other .data": _other_data,
    "NumPy view": _through_numpy,
    "memoryview": _memory_view,
    "DLPack": _dlpack,
    "inference mode": _inference_mode,
}
# version counters do not count these
UNSEEN = [".data", "NumPy view"]

MODES = {
    "without gradients": (torch.no_grad, torch.no_grad),
    "with gradients": (torch.enable_grad, torch.enable_grad),
    "drawn without": (torch.no_grad, torch.enable_grad),
    "scored without": (torch.enable_grad, torch.no_grad),
    "inference mode": (torch.inference_mode, torch.inference_mode),
}
# one flow of each kind of layer, for tests that need not run with all
FEW = ["residual, ridges, plane D8", "actnorm, sign flips", "composed, regular C4", "inverted, plane D8"]


def afresh(score, x):
    """Return the score of an equal tensor by an object without a memory."""
    with torch.no_grad():
        return copy.deepcopy(score)(x.detach().clone())


def assert_scored_as_it_is(flow, write, modes=("without gradients",)):
    for mode in modes:
        drawing, scoring = MODES[mode]
        density = flow.dist  # this object remembers its last draw
        with drawing():
            y = density.rsample((3,))
            old = density.log_prob(y).detach().clone()  # spends the memory of this draw
            y = density.rsample((3,))
        if mode == "inference mode":
            with torch.inference_mode():
                write(y)
        else:
            write(y)
        if not flow.action.space.constraint.check(y.detach().clone()).all():  # one entry moves a center of mass
            with scoring(), pytest.raises(ValueError, match="within the support"):
                density.log_prob(y)
            continue
        with scoring():
            new = density.log_prob(y)
        assert new.shape == old.shape
        torch.testing.assert_close(new.detach().clone(), afresh(flow, y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("write", UNSEEN)
def test_a_draw(name, write):
    assert_scored_as_it_is(make_flow(name), WRITES[write])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("few", FEW)
def test_a_draw_in_every_way(few, write, mode):
    assert_scored_as_it_is(make_flow(few), WRITES[write], [mode])


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_a_draw_of_every_family_in_every_way(name, write):
    assert_scored_as_it_is(make_flow(name), WRITES[write], MODES)


@pytest.mark.parametrize("write", UNSEEN)
def test_what_was_encoded(name, write):
    """A changed tensor is mapped as it is, in both directions, and so is the log-det of the pair."""
    transform = make(name)
    with torch.no_grad():
        data = transform(events(transform, 3))
        z = transform.inv(data)
        WRITES[write](z)
        changed = z.clone()
        other = copy.deepcopy(transform)  # without a memory
        expected = other(changed.clone())
        ladj = other.log_abs_det_jacobian(changed.clone(), data.clone())
        torch.testing.assert_close(transform.log_abs_det_jacobian(z, data), ladj, rtol=1e-9, atol=1e-9)
        z = transform.inv(data)
        WRITES[write](z)
        torch.testing.assert_close(transform(z), expected, rtol=1e-9, atol=1e-9)
        y = transform(changed)
        WRITES[write](y)
        torch.testing.assert_close(transform.inv(y), other.inv(y.clone()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("write", UNSEEN)
@pytest.mark.parametrize("few", FEW)
def test_what_it_was_made_from(few, write):
    """The input of the transform is changed, and its output is not."""
    transform = make(few)
    with torch.no_grad():
        x = events(transform, 3)
        original = x.clone()
        y = transform(x)
        WRITES[write](x)
        torch.testing.assert_close(transform.inv(y), original, rtol=1e-6, atol=1e-6)
        y = transform(x)
        WRITES[write](x)
        ladj = copy.deepcopy(transform).log_abs_det_jacobian(x.clone(), y.clone())
        torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), ladj, rtol=1e-9, atol=1e-9)


def test_with_a_gradient_through_the_change():
    """After rsample and mul_ by a scalar with a gradient, value and gradient are right for the product."""
    flow = make_flow("residual, ridges, plane D8")
    factor = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)

    def score(in_place):
        torch.manual_seed(1)
        density = flow.dist
        y = density.rsample((3,))
        y = y.mul_(factor) if in_place else y * factor
        total = density.log_prob(y).sum()
        return total.detach(), torch.autograd.grad(total, [factor, *flow.parameters()])

    (value, gradients), (expected, expected_gradients) = score(True), score(False)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-9)


def _detach(flow, y):
    return y.detach_()


def _multiply_by_one(flow, y):
    return y.mul_(torch.ones((), dtype=y.dtype, requires_grad=True))


def _unfreeze(flow, y):
    for parameter in flow.parameters():
        parameter.requires_grad_(True)
    return y


def _equal_parameters(flow, y):
    """Replace the parameters by equal ones, as a library that casts or wraps a module may do."""
    for module in flow.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(parameter.detach().clone()))
    return y


@pytest.mark.parametrize("change", [_detach, _multiply_by_one, _unfreeze, _equal_parameters])
@pytest.mark.parametrize("few", FEW)
def test_changes_of_the_gradient_alone(few, change):
    """The values stay the same, but their gradients change."""

    def gradients(remembered):
        torch.manual_seed(1)
        flow = make_flow(few)
        if change is _unfreeze:
            for parameter in list(flow.parameters())[1:]:
                parameter.requires_grad_(False)
        density = flow.dist
        y = change(flow, density.rsample((3,)))
        y = y if remembered else y.view_as(y)  # another tensor, which nothing remembers
        return torch.autograd.grad(density.log_prob(y).sum(), list(flow.parameters()), allow_unused=True)

    for one, other in zip(gradients(True), gradients(False), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("change", [lambda y: y.unsqueeze_(0), lambda y: y.squeeze_(0), lambda y: y.t_()])
def test_changes_of_the_shape_alone(change):
    flow = make_flow("residual, ridges, plane D8")
    with torch.no_grad():
        density = flow.dist
        y = density.sample((1,) if change(torch.zeros(1, 2)).shape != (2, 1) else (2,))
        change(y)
        torch.testing.assert_close(density.log_prob(y), flow.dist.log_prob(y.clone()), rtol=1e-9, atol=1e-9)


def context_of(flow, *batch, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, *flow.context_action.event_shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("what", ["draw", "context", "weights"])
@pytest.mark.parametrize("conditional", CONDITIONAL)
def test_under_a_context(conditional, what):
    """The draw, the context or the weights of a conditioned flow change between draw and score."""
    for mode in ("without gradients", "with gradients"):
        drawing, scoring = MODES[mode]
        flow = conditional_flow(conditional)
        context = context_of(flow, 3)
        density = flow.condition(context)
        with drawing():
            y = density.rsample()
        if what == "weights":
            for parameter in flow.parameters():
                parameter.data += 0.05
        else:
            _through_numpy(y if what == "draw" else context)
        with scoring():
            new = density.log_prob(y).detach()
        with torch.no_grad():
            expected = copy.deepcopy(flow).condition(context.clone()).log_prob(y.detach().clone())
        torch.testing.assert_close(new, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("write", WRITES)
def test_a_context_in_every_way(write):
    """A changed context is used, also by views that are inverted, composed, or scored in a larger batch."""
    transform = make_conditional("coupling, plane D4")
    flow = EquivariantFlow(InvariantNormal(transform.action_in), [transform]).double().eval()
    for wrap in (lambda view: view, lambda view: view.inv, lambda view: Compose([view]), lambda view: view.inv.inv):
        context = context_of(flow, 3)
        view = wrap(transform.condition(context))
        density = TransformedDistribution(flow.base, [view]).expand((2, 3))
        with torch.no_grad():
            y = density.sample()
            WRITES[write](context)
            new = density.log_prob(y)
            other = TransformedDistribution(flow.base, [wrap(copy.deepcopy(transform).condition(context.clone()))])
            torch.testing.assert_close(new, other.log_prob(y.clone()), rtol=1e-9, atol=1e-9)


def test_a_context_with_another_gradient():
    """A context that is detached between draw and score gets no gradient, and the weights get theirs."""
    flow = conditional_flow("coupling, plane D4")
    encoder = torch.ones((), dtype=torch.float64, requires_grad=True)

    def gradients(remembered):
        torch.manual_seed(1)
        context = encoder * context_of(flow, 3)
        density = flow.condition(context)
        y = density.rsample()
        context.detach_()
        y = y if remembered else y.view_as(y)
        return torch.autograd.grad(density.log_prob(y).sum(), [encoder, *flow.parameters()])

    torch.testing.assert_close(gradients(True), gradients(False), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda flow: flow.dist.expand((3,)),
        lambda flow: TransformedDistribution(flow.base, [flow.transform.inv.inv]),
        lambda flow: TransformedDistribution(flow.base, flow.transforms),
        lambda flow: TransformedDistribution(flow.dist, [make("actnorm, sign flips")]),
        lambda flow: Symmetrized(flow.dist, flow.action),
        lambda flow: OrbitFlow(VectorAction.rows("S3"), steps=2, width=4),
    ],
    ids=["expanded", "inverse of the inverse", "layers in a list", "a layer on a flow", "symmetrized", "orbit flow"],
)
@pytest.mark.parametrize("write", UNSEEN)
def test_distributions_of_several_layers(wrap, write):
    flow = make_flow("actnorm, sign flips")
    density = wrap(EquivariantFlow(flow.base, [*flow.transforms, make("actnorm, sign flips")]).double().eval())
    with torch.no_grad():
        y = density.sample((4,)) if not density.batch_shape else density.sample()
        WRITES[write](y)
        torch.testing.assert_close(density.log_prob(y), density.log_prob(y.clone()), rtol=1e-9, atol=1e-9)


def test_a_layer_that_changes_its_mode():
    """Training and evaluation may be two maps, so that a flow notices when one of its layers changes its mode."""
    flow = make_flow("residual, estimated, regular C4").train()
    with torch.no_grad():
        density = flow.dist
        y = density.sample((3,))
        flow.transforms[0].eval()
        torch.testing.assert_close(density.log_prob(y), flow.dist.log_prob(y.clone()), rtol=1e-9, atol=1e-9)


class _Halving(EquivariantTransform):
    """The map y = x / 2, which counts its inversions."""

    inversions = 0

    def call_and_ladj(self, x):
        return x / 2, torch.full(x.shape[:-1], -x.shape[-1] * np.log(2.0), dtype=x.dtype)

    def inv_call_and_ladj(self, y):
        self.inversions += 1
        return 2 * y, -self.call_and_ladj(y)[1]


@pytest.mark.parametrize("mode", ["without gradients", "with gradients", "scored without", "inference mode"])
@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_an_unchanged_draw_is_not_inverted(mode, value):
    """The memory saves the inversion of an unchanged draw, also of a draw that holds NaN."""
    action = VectorAction.plane("D4")
    layer = _Halving(action)
    flow = EquivariantFlow(InvariantNormal(action), [layer, GActNorm(action)]).double()
    with torch.no_grad():
        flow.transforms[1].log_scale.fill_(value)
    drawing, scoring = MODES[mode]
    with pyro.validation_enabled(False):
        density = flow.dist
        with drawing():
            y = density.rsample((3,))
        with scoring():
            density.log_prob(y)
            assert layer.inversions == 0
            density.log_prob(y)
            assert layer.inversions == 1


@pytest.mark.long
def test_a_guide_whose_sites_are_changed():
    """The value of a site is a tensor of its own: a change in place gives it the density 0, and the latent stays."""

    def model():
        with pyro.plate("components", 3):
            pyro.sample("means", dist.Normal(torch.zeros((), dtype=torch.float64), 5.0))
        pyro.sample("scale", dist.LogNormal(torch.zeros((), dtype=torch.float64), 1.0))

    guide = AutoGFlow(model, SitesAction("S3", {"means": VectorAction.rows("S3")})).double()
    for site in ("means", "scale"):
        trace = poutine.trace(guide).get_trace()
        latent = next(node["value"] for name, node in trace.nodes.items() if name.endswith("_latent"))
        before = latent.detach().clone()
        _through_numpy(trace.nodes[site]["value"])
        assert torch.equal(latent, before)
        assert trace.log_prob_sum().item() == -float("inf")
    trace = poutine.trace(guide).get_trace()
    name, node = next((name, node) for name, node in trace.nodes.items() if name.endswith("_latent"))
    _through_numpy(node["value"])
    trace.compute_log_prob()
    expected = guide.flow(node["value"].detach().clone())
    torch.testing.assert_close(node["log_prob"], expected, rtol=1e-6, atol=1e-6), name


def test_weights_that_pyro_draws_anew():
    """A layer with a random weight is another map at every draw of the weight."""
    flow = EquivariantFlow(InvariantNormal(VectorAction.plane("D4")), [GActNorm(VectorAction.plane("D4"))]).double()
    to_pyro_module_(flow)
    wide = dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0).to_event(1)
    flow.transforms[0].log_scale = PyroSample(wide)
    with torch.no_grad():
        density = flow.dist
        y = density.sample((3,))
        torch.manual_seed(2)
        score = density.log_prob(y)
        torch.manual_seed(2)
        torch.testing.assert_close(score, flow.dist.log_prob(y.clone()), rtol=1e-9, atol=1e-9)


@pytest.mark.long
def test_the_noise_of_dequantized_images():
    action = ImageAction("D4", size=4)
    dequantizer = randomize_(g_dequantizer(action, GrayLevels(17), width=2).double(), scale=0.1)
    levels = torch.randint(17, (3, *dequantizer.action.event_shape), generator=torch.Generator().manual_seed(0))
    for write in WRITES.values():
        density = dequantizer.condition(levels)
        with torch.no_grad():
            y = density.sample()
            corners = dequantizer.scaling.to_real(levels.double())
            y -= corners  # only the noise is changed, so that it stays in its cell
            write(y)
            y += corners
            torch.testing.assert_close(density.log_prob(y), density.log_prob(y.clone()), rtol=1e-9, atol=1e-9)


def test_a_change_in_the_middle_of_a_trace():
    """An effect handler changes a drawn site before it is scored, as a handler of the user's own may do."""

    class Shrink(poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg):
            with contextlib.suppress(AttributeError):
                _data(msg["value"])

    flow = make_flow("residual, ridges, plane D8")
    with Shrink():
        trace = poutine.trace(lambda: pyro.sample("z", flow.dist)).get_trace()
    trace.compute_log_prob()
    node = trace.nodes["z"]
    torch.testing.assert_close(node["log_prob"].detach(), afresh(flow, node["value"]), rtol=1e-9, atol=1e-9)


def test_a_residual_flow_built_by_hand():
    """A user of the package may begin with these lines."""
    action = VectorAction.plane("D8")
    flow = EquivariantFlow(InvariantNormal(action), [g_residual(action) for _ in range(2)]).double()
    with torch.no_grad():
        density = flow.dist
        s = density.sample((2,))
        s[:] = torch.tensor([[1.0, 2.0], [-0.5, 0.3]])
        torch.testing.assert_close(density.log_prob(s), flow.dist.log_prob(s.clone()), rtol=1e-9, atol=1e-9)
        assert (flow.dist.log_prob(s)[0] - flow.dist.log_prob(s)[1]).abs() > 0.1
