"""Every flow has the same results on another device as on the CPU, and no operation mixes the two (contract 9).

The other device is simulated by ``second_device``, without a GPU, and every algorithm runs with its own stopping rule.
"""

import pyro
import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    GAffine,
    GConvExponential,
    GSpectralConv,
    ImageAction,
    InvariantNormal,
    InvariantStudentT,
    InvariantUniformBall,
    OrbitMixture,
    Symmetrized,
    VectorAction,
    augment,
    g_coupling_image_flow,
    g_residual_image_flow,
)
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.flows import Canonicalized, DequantizedFlow, g_dequantizer
from pyro_gflows.flows.orbit_flow import OrbitFlow
from pyro_gflows.numerics import ConstantMemory, KrylovLogDet, RouletteLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import EquivariantTransform, GGradient, GMonotone, GResidual
from tests.constructors import TABLE, conditional_flow, events, make_flow, names
from tests.constructors.actions import network
from tests.contracts.second_device import SECOND, DevicesMixed, second_device

CPU = torch.device("cpu")
ONE = {"aten._local_scalar_dense.default": 1}
ACTION = VectorAction.regular("C4", copies=2)
PLAIN = VectorAction.trivial("C1", copies=8)
KEYS_AND_SCALARS = VectorAction.rows("S3").direct_sum(VectorAction.trivial("S3", copies=2))  # a density without jumps
BASES = {
    "isotropic": lambda: InvariantNormal(ACTION, mean=True),
    "isotypic": lambda: InvariantNormal(ACTION, covariance="isotypic", mean=True),
    "full": lambda: InvariantNormal(ACTION, covariance="full", mean=True),
    "student t": lambda: InvariantStudentT(ACTION, df=3.0, covariance="full", mean=True),
    "ball": lambda: InvariantUniformBall(ACTION, covariance="full", mean=True),
    "orbit mixture": lambda: OrbitMixture(ACTION),
    "orbit flow": lambda: OrbitFlow(ACTION, steps=2, width=4),
    "canonicalized": lambda: Canonicalized(KEYS_AND_SCALARS, steps=2, width=4),
    "symmetrized": lambda: Symmetrized(InvariantNormal(PLAIN, covariance="full", mean=True), ACTION),
}
IMAGES = {
    "coupling": lambda: g_coupling_image_flow(ImageAction("D4", 2, size=4), blocks=1, width=1),
    "coupling, recomputed": lambda: g_coupling_image_flow(
        ImageAction("C4", 2, size=4), blocks=1, width=1, scales=1, memory="recompute"
    ),
    "residual": lambda: g_residual_image_flow(ImageAction("C4", size=4), blocks=1, width=1, bound=0.5, scales=2),
    "residual, in constant memory": lambda: g_residual_image_flow(
        ImageAction("C4", 2, size=2), blocks=1, width=1, bound=0.5, memory="constant", log_det=RouletteLogDet()
    ),
}


def random_weights(module):
    return randomize_(module.double(), scale=0.2, generator=torch.Generator().manual_seed(1)).eval()


def on_base(name):
    torch.manual_seed(0)
    base = BASES[name]()
    return random_weights(EquivariantFlow(base, [GAffine(base.action, context_action=base.action, width=1)]))


def in_constant_memory():
    action = VectorAction.regular("C4")
    layer = GResidual(action, network(action), log_det=ConstantMemory(RouletteLogDet()))
    return random_weights(EquivariantFlow(InvariantNormal(action), [layer]))


OTHERS = {
    **{f"base: {name}": lambda name=name: on_base(name) for name in BASES},
    **{f"images: {name}": lambda name=name: random_weights(IMAGES[name]()) for name in IMAGES},
}
CONSTANT_MEMORY = {
    "of one layer": in_constant_memory,
    "of an image flow": OTHERS["images: residual, in constant memory"],
}


def of_row(name):
    return conditional_flow(name) if TABLE[name].takes_context else make_flow(name)


@pytest.fixture
def unvalidated():
    """Switch Pyro's validation off, which reads values and so waits for a GPU."""
    with pyro.validation_enabled(False):
        yield


def inputs(flow, device):
    """Return the density of a flow on a device, events, and the tensors by which gradients are taken."""
    flow.to(device)
    x = events(flow, 2).to(device).requires_grad_()
    if flow.context_action is None:
        return flow.dist, x, [x, *flow.parameters()]
    context = torch.randn(
        2, *flow.context_action.event_shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    context = context.to(device).requires_grad_()
    return flow.condition(context), x, [x, context, *flow.parameters()]


def with_gradients(value, sources):
    if not value.requires_grad:
        return [value]
    return [value, *torch.autograd.grad(value.sum(), sources, allow_unused=True, materialize_grads=True)]


def scored(flow, device):
    torch.manual_seed(5)
    density, x, sources = inputs(flow, device)
    return with_gradients(density.log_prob(x), sources)


def drawn(flow, device):
    torch.manual_seed(5)
    density, _, sources = inputs(flow, device)
    return with_gradients(density.rsample((2,)), sources)


def moments(flow, device):
    base = flow.to(device).base
    return [base.mean, base.variance, *([] if isinstance(base, Symmetrized) else [base.entropy()])]


def assert_the_same_elsewhere(compute, flow):
    """Assert that the results do not depend on the device; return how often each operation read a value there."""
    expected = [value.detach() for value in compute(flow, CPU)]
    with second_device() as device:
        found = compute(flow, SECOND)
        reads = dict(device.reads)
        assert {value.device for value in [*found, *flow.state_dict().values()]} == {SECOND}
        found = [value.detach().cpu() for value in found]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    return reads


def values_to_read(compute, flow):
    """Return how many values a score or a draw must read, each of which waits for a GPU; None for any number."""
    if any(isinstance(layer, GResidual | GMonotone | GGradient) for layer in flow.modules()):
        layer = flow.transforms[0]
        direct = {"score": scored, "sample": drawn}.get(getattr(layer, "fast", None))
        if not isinstance(layer, GResidual | GGradient) or len(flow.transforms) > 1 or compute is not direct:
            return None  # a solver reads whether it has converged
        if isinstance(layer, GGradient):
            return {}
        estimator = layer.log_det.evaluator()
        if isinstance(estimator, KrylovLogDet) and estimator.tolerance > 0:
            return None  # after every product one value tells whether all rows have stopped
        return {} if getattr(layer.branch, "bound", None) is not None else ONE  # the bound depends on the weights
    if any(isinstance(layer, GConvExponential | GSpectralConv) for layer in flow.modules()):
        return ONE  # the number of terms, or of squarings, depends on the weights
    if isinstance(flow.base, Symmetrized) and compute is scored:
        return None  # the number of images under the group depends on values
    # whether all events are values of the transform
    return {} if compute is drawn or flow.transform.reaches_all else ONE


def check_elsewhere(compute, flow):
    """Assert also that the program does not wait for the GPU without need."""
    reads = assert_the_same_elsewhere(compute, flow)
    assert values_to_read(compute, flow) in (None, reads)


@pytest.mark.parametrize("compute", [scored, drawn])
@pytest.mark.parametrize("name", TABLE)
def test_scores_draws_and_their_gradients_are_the_same_elsewhere(name, compute, unvalidated):
    check_elsewhere(compute, of_row(name))


@pytest.mark.parametrize("compute", [scored, drawn])
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.long
def test_other_bases_and_image_flows_are_the_same_elsewhere(name, compute, unvalidated):
    check_elsewhere(compute, OTHERS[name]())


@pytest.mark.parametrize("name", names(TABLE, estimated=True))
@pytest.mark.long
def test_random_scores_are_the_same_elsewhere_in_training(name, unvalidated):
    assert_the_same_elsewhere(scored, of_row(name).train())


@pytest.mark.parametrize("name", CONSTANT_MEMORY)
def test_random_scores_in_constant_memory_are_the_same_elsewhere(name, unvalidated):
    flow = CONSTANT_MEMORY[name]().train()
    assert any(isinstance(getattr(layer, "log_det", None), ConstantMemory) for layer in flow.modules())
    assert_the_same_elsewhere(scored, flow)


@pytest.mark.parametrize("name", BASES)
def test_bases_validate_and_have_the_same_moments_elsewhere(name):
    flow = on_base(name)
    assert_the_same_elsewhere(scored, flow.to(CPU))
    if name not in ("orbit flow", "canonicalized"):  # their moments are not known
        assert_the_same_elsewhere(moments, on_base(name))


@pytest.mark.long
def test_the_bound_of_gray_levels_is_the_same_elsewhere(unvalidated):
    action, scaling = ImageAction("C4", size=4), GrayLevels(17)
    flow = g_coupling_image_flow(action, scales=1, blocks=1, width=1)
    model = random_weights(DequantizedFlow(flow, g_dequantizer(action, scaling, blocks=1, width=1)))
    levels = torch.randint(17, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0))

    def bound(model, device):
        torch.manual_seed(5)
        model.to(device)
        return with_gradients(model(scaling.to_real(levels.double().to(device))), list(model.parameters()))

    assert_the_same_elsewhere(bound, model)


@pytest.mark.parametrize("training", [True, False], ids=["bound", "estimate"])
@pytest.mark.parametrize("group", ["D4", "D40"])
def test_the_density_of_padded_events_is_the_same_elsewhere(group, training, unvalidated):
    plane = VectorAction.plane(group)
    padded = plane.direct_sum(plane)
    flow = EquivariantFlow(InvariantNormal(padded), [GActNorm(padded)])
    model = random_weights(augment(flow, padding=plane, draws=8)).train(training)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(model, device):
        torch.manual_seed(5)
        model.to(device)
        return with_gradients(model(x.to(device)), list(model.parameters()))

    assert_the_same_elsewhere(score, model)


def test_what_was_computed_on_one_device_does_not_stay_on_the_other():
    """A flow goes to the other device and back; tables that are kept for a device stay on this device."""
    flow = make_flow("residual, estimated, image D2")
    before = scored(flow, CPU)
    assert_the_same_elsewhere(scored, flow)
    with second_device():
        flow.to(CPU)
    torch.testing.assert_close(scored(flow, CPU), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["coupling, regular C4", "autoregressive, plane C5", "linear, image D4, regular"])
def test_the_score_of_a_draw_waits_once(name, unvalidated):
    flow = make_flow(name)
    with second_device() as device:
        density = flow.to(SECOND).dist
        draw = density.rsample((3,))
        device.reads.clear()
        density.log_prob(draw)
        assert device.reads.total() == 1


@pytest.mark.parametrize("name", names(TABLE, estimated=False))
def test_tables_are_sent_to_a_device_once(name, unvalidated):
    """Tables of indices and constants are buffers, or kept for the device; the probes of estimates are drawn anew."""
    with second_device() as device, torch.no_grad():
        density, x, _ = inputs(of_row(name), SECOND)
        density.log_prob(x)
        assert device.sent > 0
        device.sent = 0
        density.log_prob(x)
        assert device.sent == 0


# -- a fault is found -------------------------------------------------------------------------------------------------
class LeftBehind(EquivariantTransform):
    """The map x -> 2 x, by a matrix that is no buffer."""

    def __init__(self, action):
        super().__init__(action)
        self.matrix = 2.0 * torch.eye(2, dtype=torch.float64)
        self.raw = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def call_and_ladj(self, x, context=None):
        return x @ self.matrix, (self.raw + 2 * torch.tensor(2.0).log()).expand(x.shape[:-1])

    def inv_call_and_ladj(self, y, context=None):
        return y @ (self.matrix / 4), -self.call_and_ladj(y)[1]


def test_a_matrix_that_a_layer_left_behind_is_found(unvalidated):
    """Plain tensors on ``meta`` would not show the error."""
    action = VectorAction.plane("D4")
    flow = EquivariantFlow(InvariantNormal(action), [LeftBehind(action)]).double()
    flow.to(SECOND)
    assert scored(flow, SECOND)[0].device == drawn(flow, SECOND)[0].device == SECOND
    for compute in (scored, drawn):
        flow = EquivariantFlow(InvariantNormal(action), [LeftBehind(action)]).double()
        with pytest.raises(DevicesMixed, match=r"\(2, 2\) on"):
            assert_the_same_elsewhere(compute, flow)
