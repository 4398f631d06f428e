"""Every flow has the same values, symmetry, gradients and draws inside torch.autocast as outside."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyro_gflows import (
    ElementwiseAffine,
    ElementwiseSpline,
    EquivariantFlow,
    EquivariantTransform,
    GActNorm,
    ImageAction,
    InvariantNormal,
    IrrepScale,
    MatrixScale,
    OffGridAction,
    SitesAction,
    VectorAction,
    g_coupling,
    g_coupling_image_flow,
    g_residual,
    g_residual_image_flow,
)
from pyro_gflows.actions import IrrepSplit
from pyro_gflows.distributions import InvariantStudentT, InvariantUniformBall, OrbitMixture, Symmetrized
from pyro_gflows.flows import Canonicalized, OrbitFlow, g_soft_coupling_image_flow
from pyro_gflows.guides import AutoGFlow, LogRatioReparam
from pyro_gflows.nn import LipschitzNetwork, conditioner
from pyro_gflows.numerics import BanachSolver, ExactLogDet, expm_apply, log_abs_det, matrix_exp, spectral_norm
from pyro_gflows.testing import randomize_
from pyro_gflows.training import FitSettings, fit, fit_energy
from tests.constructors import (
    CONDITIONAL,
    CONSTRUCTORS,
    TABLE,
    conditional_flow,
    events,
    make_flow,
    plain_base_for,
    slow_unless,
)

LOW = [torch.bfloat16, torch.float16]
# one of each kind that computes something of its own
SOME = {
    "residual, network, regular C4",
    "residual, estimated, image D2",
    "residual, in constant memory, regular C4",
    "monotone, network, image C4",
    "recomputed, plane D8",
    "linear, image D4, regular",
    "coupling, matrix exponential, O(2)",
    "coupling, splines, sign flips",
    "coupling, irrep scales, SO(3)",
    "inverse autoregressive, SO(3)",
    "radial, O(2)",
}


def autocast(dtype=torch.bfloat16):
    return torch.autocast("cpu", dtype)


def gradients(flow, loss):
    found = torch.autograd.grad(loss, list(flow.parameters()), allow_unused=True)
    return torch.cat([gradient.flatten() for gradient in found if gradient is not None])


def assert_unchanged(flow, x, context=None):
    """Assert that a flow has the same results inside autocast as outside."""

    def density():
        return flow.dist if context is None else flow.condition(context)

    score = density().log_prob(x)
    gradient = gradients(flow, score.mean())
    with autocast():
        again = density().log_prob(x)
        inside = gradients(flow, density().log_prob(x).mean())
    torch.testing.assert_close(again, score, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(flow, again.mean()), gradient, rtol=1e-4, atol=1e-4)
    # torch computes a backward pass that begins inside in low precision; it must be one all the same
    assert inside.isfinite().all()
    assert (inside - gradient).norm() < 0.05 * gradient.norm()

    for dtype in LOW:
        with autocast(dtype):
            # a transform is called on what autocast left of the events
            transform = flow.transform if context is None else flow.transform.condition(context.to(dtype))
            z = transform.inv(x.to(dtype))
            assert z.dtype == torch.float32
            # rounding moves the center of mass of particles, which the transform leaves out
            space = flow.action.space
            back = space.difference(transform(z.clone()), space.project(x.to(dtype).float()))
            assert (back.abs() <= 1e-3 + 1e-3 * x.abs()).all()
    torch.manual_seed(0)
    draws = density().rsample(torch.Size([5]))
    torch.manual_seed(0)
    with autocast():
        draws_inside = density().rsample(torch.Size([5]))
        drawn_and_scored = density().log_prob(draws_inside)
    torch.testing.assert_close(draws_inside, draws, rtol=1e-6, atol=1e-6)
    assert drawn_and_scored.isfinite().all()


def assert_invariant_inside(flow, x):
    elements = flow.action.sample(x.shape[:1], torch.Generator().manual_seed(0))
    with autocast():
        images = flow.action.act_each(elements, x)
        scores, image_scores = flow.dist.log_prob(x), flow.dist.log_prob(images)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, flow.action.act_each(elements, x), rtol=0, atol=0)
    # as exact as in float32: large scores, of slopes of e^3, have fewer digits behind the point
    torch.testing.assert_close(image_scores, scores, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", slow_unless(SOME, CONSTRUCTORS))
def test_every_constructor(name):
    flow = make_flow(name, dtype=torch.float32)
    x = events(flow, 6, dtype=torch.float32)
    assert_unchanged(flow, x)
    assert_invariant_inside(flow, x)


@pytest.mark.parametrize("name", slow_unless([], CONDITIONAL))
def test_every_conditional_constructor(name):
    flow = conditional_flow(name).float()
    context = torch.randn(6, *flow.context_action.event_shape, generator=torch.Generator().manual_seed(0))
    assert_unchanged(flow, events(flow, 6, dtype=torch.float32), context)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.slow
def test_made_initialized_and_printed_inside(name):
    made = []
    for inside in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            transform = TABLE[name].build()
            base = plain_base_for(transform.action_in)
            action = transform.context_action
            context = None if action is None else torch.ones(8, *action.event_shape)
            flow = EquivariantFlow(base, [transform])
            flow.initialize(events(flow, 8, dtype=torch.float32), context)
            assert "nan" not in repr(transform)
            made.append(flow.state_dict())
    for key, value in made[0].items():
        torch.testing.assert_close(made[1][key], value, rtol=0, atol=0)


ACTION = VectorAction.plane("D8", copies=2)
ROWS = VectorAction.rows("S3", features=2)
BASES = {
    "full normal": lambda: InvariantNormal(ACTION, covariance="full"),
    "isotypic normal": lambda: InvariantNormal(ROWS, covariance="isotypic", mean=True),
    "student t": lambda: InvariantStudentT(ACTION, covariance="full"),
    "ball": lambda: InvariantUniformBall(ACTION, covariance="full"),
    "orbit mixture": lambda: OrbitMixture(ROWS),
    "orbit flow": lambda: OrbitFlow(ROWS, steps=2, width=4),
    "canonicalized": lambda: Canonicalized(ROWS, steps=2, width=4),
    "symmetrized": lambda: Symmetrized(dist.Normal(torch.arange(6.0), 1.0).to_event(1), ROWS),
}


@pytest.mark.parametrize("name", BASES)
def test_bases(name):
    torch.manual_seed(0)
    base = BASES[name]()
    randomize_(base.module, scale=0.2, generator=torch.Generator().manual_seed(0))
    x = 0.3 * torch.randn(9, *base.event_shape, generator=torch.Generator().manual_seed(1))
    found = []
    for inside in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            found.append(
                [base.log_prob(x), base.sample((4,)), *([] if name in ("orbit flow", "canonicalized") else [base.mean])]
            )
            if hasattr(base, "covariance_matrix"):
                found[-1] += [base.covariance_matrix, base.variance, base.entropy()]
    for outside, inside in zip(*found, strict=True):
        torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    with autocast():
        torch.testing.assert_close(base.log_prob(x.bfloat16()), base.log_prob(x.bfloat16().float()), rtol=0, atol=0)


IMAGES = ImageAction("D4", size=8)
IMAGE_FLOWS = {
    "coupling": lambda: g_coupling_image_flow(IMAGES, scales=2, blocks=1),
    "residual": lambda: g_residual_image_flow(IMAGES, scales=2, blocks=1),
    "soft": lambda: g_soft_coupling_image_flow(OffGridAction("C8", size=8), scales=2, blocks=1),
}


@pytest.mark.parametrize("name", IMAGE_FLOWS)
@pytest.mark.long
def test_image_flows(name):
    torch.manual_seed(0)
    flow = randomize_(IMAGE_FLOWS[name](), scale=0.02, generator=torch.Generator().manual_seed(0)).eval()
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert_unchanged(flow, x)
    assert_invariant_inside(flow, x)


class Mixing(EquivariantTransform):
    """A layer of the user's own, with a network of torch's."""

    def __init__(self, action):
        super().__init__(action)
        self.network = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))

    def call_and_ladj(self, x):
        log_scale = self.network(x[..., :2])
        return torch.cat([x[..., :2], x[..., 2:] * log_scale.exp()], -1), log_scale.sum(-1)

    def inv_call_and_ladj(self, y):
        log_scale = self.network(y[..., :2])
        return torch.cat([y[..., :2], y[..., 2:] * (-log_scale).exp()], -1), -log_scale.sum(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_of_the_users_own(dtype):
    torch.manual_seed(0)
    action = VectorAction.trivial("C1", copies=4)
    flow = EquivariantFlow(InvariantNormal(action), [Mixing(action)]).to(dtype)
    x = torch.randn(5, 4)
    with autocast():
        # what autocast rounded is taken back to the dtype of the weights
        assert flow.dist.log_prob(x.bfloat16()).dtype == dtype
    if dtype == torch.float32:
        assert_unchanged(flow, x)


def test_networks_of_the_user_still_take_the_low_precision():
    """An encoder inside autocast gives bfloat16, which a conditional flow takes as its context."""
    encoder = nn.Linear(3, 8)
    latent = VectorAction.plane("D4")
    flow = EquivariantFlow(
        InvariantNormal(latent), [g_residual(latent, context_action=VectorAction.regular("D4"), fast="sample")]
    )
    with autocast():
        context = encoder(torch.randn(5, 3))
        z = flow.condition(context).rsample()
        score = flow.condition(context).log_prob(z)
    assert context.dtype == torch.bfloat16
    assert z.dtype == score.dtype == torch.float32
    score.mean().backward()
    assert encoder.weight.grad.isfinite().all()


class Rounded(nn.Module):
    """A conditioner that opts into autocast by itself."""

    def __init__(self, action_in, action_out):
        super().__init__()
        self.network = conditioner(action_in, action_out, width=2, start=1.0)

    def forward(self, x):
        with autocast():
            return self.network(x)


@pytest.mark.parametrize("transformer", [ElementwiseAffine, ElementwiseSpline, IrrepScale, MatrixScale])
def test_conditioners_may_take_the_low_precision(transformer):
    """A coupling stays a bijection if its conditioner rounds, and as equivariant as rounding is under permutations."""
    torch.manual_seed(0)
    action = VectorAction.regular("C4", copies=2)
    layer = g_coupling(action, transformer=transformer, network=Rounded)
    x = torch.randn(7, 8)
    y, ladj = layer.call_and_ladj(x)
    assert y.dtype == ladj.dtype == torch.float32
    torch.testing.assert_close(layer.inv_call_and_ladj(y)[0], x, rtol=1e-4, atol=1e-4)
    images = action.act_all(x)
    torch.testing.assert_close(layer.call_and_ladj(images)[1], ladj.expand(4, -1), rtol=0, atol=0.1)


@pytest.mark.parametrize("dtype", LOW)
def test_matrix_functions_of_low_precision(dtype):
    """Torch's own exponential of a matrix of half precision is off by many orders of magnitude on the CPU."""
    matrix = torch.randn(64, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = torch.linalg.matrix_exp(matrix.double())
    found = matrix_exp(matrix)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    image, log_det = expm_apply(matrix, x)
    assert image.dtype == log_det.dtype == dtype
    torch.testing.assert_close(image.double(), (exact @ x.double()[..., None])[..., 0], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(
        spectral_norm(matrix).double(), torch.linalg.matrix_norm(matrix.double(), 2), rtol=1e-2, atol=0
    )
    torch.testing.assert_close(log_abs_det(matrix).double(), log_abs_det(matrix.double()), rtol=1e-2, atol=1e-2)
    with autocast(dtype):
        assert matrix_exp(matrix).dtype == torch.float32
        torch.testing.assert_close(matrix_exp(matrix).double(), exact, rtol=1e-5, atol=1e-5)


def test_solvers_estimators_and_splits():
    weight = 0.2 * torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    y = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    split = IrrepSplit(VectorAction.regular("C4", copies=2))
    event = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))

    def branch(x):
        return (x @ weight).sin()

    found = []
    for inside in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            root, report = BanachSolver()(branch, y, 1, lipschitz=0.9)
            assert report.converged
            parts = split.split(event)
            found.append(
                [root, *ExactLogDet()(branch, y, 1, lipschitz=0.9, training=False), *parts, split.merge(parts)]
            )
    for outside, inside in zip(*found, strict=True):
        torch.testing.assert_close(inside, outside, rtol=0, atol=0)


def test_bounds_stay_certified():
    network = LipschitzNetwork(ImageAction.translations(1, size=3), width=2, depth=1, bound=0.6)
    with autocast():
        assert network.lipschitz_bound() <= 0.6
        assert torch.equal(network.lipschitz_bound(), network.float().lipschitz_bound())


@pytest.mark.long
def test_fits_are_those_without_autocast():
    action = VectorAction.plane("D4", copies=2)
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for inside in (False, True):
        torch.manual_seed(0)
        flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action), g_coupling(action, width=2)])
        other = copy.deepcopy(flow)
        settings = FitSettings(steps=3, batch_size=16)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            fit(flow, data, settings=settings, progress=False)
            fit_energy(other, lambda z: -(z @ z.mT).diagonal(), settings=settings, progress=False)
        found.append([*flow.parameters(), *other.parameters()])
    for outside, inside in zip(*found, strict=True):
        assert torch.equal(outside, inside)


def mixture(x):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, 1.0)), obs=x)


@pytest.mark.long
@pytest.mark.parametrize("base", [None, OrbitFlow])
def test_guides(base):
    model = poutine.reparam(mixture, config={"weights": LogRatioReparam()})
    rows = VectorAction.rows("S3")
    data = torch.randn(20, generator=torch.Generator().manual_seed(0))
    keywords = {} if base is None else {"base": base}
    found = []
    for inside in (False, True):
        torch.manual_seed(0)
        pyro.clear_param_store()
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            guide = AutoGFlow(model, SitesAction("S3", {"means": rows, "weights": rows}), args=(data,), **keywords)
            elbo = pyro.infer.Trace_ELBO().differentiable_loss(model, guide.train(False), data)
            draw = guide(data)
        found.append([elbo.detach(), draw["weights"].detach(), draw["means"].detach()])
    for outside, inside in zip(*found, strict=True):
        torch.testing.assert_close(inside, outside, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", LOW)
def test_half_weights_and_events_are_refused_in_words(dtype):
    action = VectorAction.plane("D4", copies=2)
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action), g_coupling(action, width=2)])
    x = torch.randn(5, 4)
    half = copy.deepcopy(flow).to(dtype)
    refused = [
        lambda: half.dist.log_prob(x.to(dtype)),
        lambda: half.dist.log_prob(x),
        lambda: half.dist.sample((3,)),
        lambda: half.transform(x),
        lambda: half.transform.inv(x),
        lambda: half.base.log_prob(x.to(dtype)),
        lambda: half.initialize(x.to(dtype)),
        lambda: fit(half, x, progress=False),
        lambda: flow.dist.log_prob(x.to(dtype)),
        lambda: BanachSolver()(lambda z: 0.5 * z, x.to(dtype), 1, lipschitz=0.5),
    ]
    for call in refused:
        with pytest.raises(TypeError, match=r"expected .* of float32 or float64, got torch\.\w*float16, .*\.float\(\)"):
            call()
    with autocast(), pytest.raises(TypeError, match="expected weights of float32 or float64"):
        half.dist.log_prob(x)
    torch.testing.assert_close(half.float().dist.log_prob(x), flow.dist.log_prob(x), rtol=1e-1, atol=1e-1)
