"""Forward mode, torch.func and vmap through layers: the numbers of reverse mode, of differences and of loops."""

import itertools
import math
import re

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jvp, linearize, vmap

from pyro_gflows import EquivariantFlow, VectorAction, g_residual
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.nn.jacobian import _places
from pyro_gflows.numerics import (
    BanachSolver,
    ConstantMemory,
    ExactLogDet,
    KrylovLogDet,
    RouletteLogDet,
    SeriesLogDet,
    implicit_root,
)
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GResidual
from tests.constructors import CONSTRUCTORS, events, make, make_conditional, make_flow, names, slow_unless
from tests.numerics.branches import Branch

QUICK = [
    "residual, ridges, plane D8",
    "residual, for sampling, plane C3",
    "residual, network, two vectors SO(3)",
    "residual, network, image C4",
    "residual, dense network, image C4",
    "monotone, network, image C4",
    "residual, estimated, regular C4",
    "residual, in constant memory, regular C4",
    "recomputed, plane D8",
    "coupling, splines, sign flips",
    "radial, O(2)",
    "composed, regular C4",
]
QUICKER = [QUICK[place] for place in (1, 2, 5, 7, 8)]
NAMES, FEWER = (slow_unless(quick, CONSTRUCTORS) for quick in (QUICK, QUICKER))
DIRECTIONS = ["call_and_ladj", "inv_call_and_ladj"]


class Seeded(nn.Module):
    """One direction of a layer as a module, from the same random numbers at every call."""

    def __init__(self, layer, direction):
        super().__init__()
        self.layer, self.direction = layer, direction

    def forward(self, x):
        torch.manual_seed(0)
        return getattr(self.layer, self.direction)(x)


def setting(name, direction, *, training=False):
    """A function of weights and points, the weights, and three points of the direction's domain."""
    layer = make(name)
    x = events(layer, 3)
    if direction == "inv_call_and_ladj":
        x = layer.call_and_ladj(x)[0].detach()
    module = Seeded(layer.train(training), direction)
    weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    return lambda weights, x: functional_call(module, weights, (x,)), weights, x


def like(tensor, seed):
    return torch.randn(tensor.shape, dtype=tensor.dtype, generator=torch.Generator().manual_seed(seed))


def reverse(function, weights, x, directions):
    """Cotangents, and what they say of the tangents along the directions, by reverse mode."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    point = x.clone().requires_grad_()
    outputs = function(leaves, point)
    cotangents = [like(output, 5) for output in outputs]
    scalar = sum((c * output).sum() for c, output in zip(cotangents, outputs, strict=True))
    gradients = torch.autograd.grad(scalar, [*leaves.values(), point], allow_unused=True, materialize_grads=True)
    return cotangents, sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))


def assert_tangents(cotangents, tangents, expected):
    found = sum((c * tangent).sum() for c, tangent in zip(cotangents, tangents, strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_tangents_along_weights_and_points_are_those_of_reverse_mode(name, direction, training):
    function, weights, x = setting(name, direction, training=training)
    along = {key: like(weight, 1) for key, weight in weights.items()}
    cotangents, expected = reverse(function, weights, x, [*along.values(), like(x, 2)])
    assert_tangents(cotangents, jvp(function, (weights, x), (along, like(x, 2)))[1], expected)
    with torch.no_grad():  # which does not concern forward mode
        assert_tangents(cotangents, jvp(function, (weights, x), (along, like(x, 2)))[1], expected)
    with forward_ad.dual_level():
        dual = {key: forward_ad.make_dual(weight, along[key]) for key, weight in weights.items()}
        outputs = function(dual, forward_ad.make_dual(x, like(x, 2)))
        found = [forward_ad.unpack_dual(output) for output in outputs]
    tangents = [torch.zeros_like(each.primal) if each.tangent is None else each.tangent for each in found]
    assert_tangents(cotangents, tangents, expected)


@pytest.mark.long
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", FEWER)
def test_the_jacobian_of_forward_mode_is_that_of_central_differences(name, direction):
    function, weights, x = setting(name, direction)
    x, step = x[:1], 1e-6
    y, ladj = function(weights, x)
    of_y, of_ladj = jacfwd(lambda x: function(weights, x))(x)
    for place in range(x.numel()):
        shift = step * torch.eye(x.numel(), dtype=x.dtype)[place].reshape(x.shape)
        above, below = function(weights, x + shift), function(weights, x - shift)
        expected = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]
        torch.testing.assert_close(of_y.reshape(*y.shape, -1)[..., place], expected[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(of_ladj.reshape(*ladj.shape, -1)[..., place], expected[1], rtol=1e-6, atol=1e-6)


def scalar(outputs):
    return (outputs[0] ** 3).sum() + (outputs[1] ** 2).sum()


@pytest.mark.long
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "name",
    slow_unless(QUICKER, [*names(CONSTRUCTORS, piecewise_linear=False, image=False), "residual, network, shifts"]),
)
def test_hessians_by_forward_over_reverse_mode(name, direction):
    function, weights, x = setting(name, direction)
    x, step = x[:1], 2e-6  # short, as third derivatives are large

    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(scalar(function(weights, x)), x)[0].flatten()

    shifts = step * torch.eye(x.numel(), dtype=x.dtype)
    expected = [(gradient(x + s.reshape(x.shape)) - gradient(x - s.reshape(x.shape))) / (2 * step) for s in shifts]
    found = hessian(lambda x: scalar(function(weights, x)))(x).reshape(x.numel(), x.numel())
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "name", [*slow_unless(QUICKER, names(CONSTRUCTORS, piecewise_linear=False)), "residual, network, image C4"]
)
def test_second_derivatives_in_every_order_of_modes(name, direction):
    """Along one line through weights and points; a layer whose first use is inside torch.func is as good as any.

    Weights of linear maps stay: where their largest singular value is repeated the second derivative does not exist.
    """
    _places.cache_clear()
    function, weights, x = setting(name, direction)
    x, along_x = x[:1], like(x[:1], 2)
    along = {key: torch.zeros_like(w) if "weights" in key else like(w, 1) for key, w in weights.items()}
    moved = {key for key, direction in along.items() if direction.any()}

    def line(t):
        at = {key: w + t * along[key] if key in moved else w for key, w in weights.items()}
        outputs = function(at, x + t * along_x)
        return sum((0.1 * output).sin().sum() for output in outputs)

    def slope(function, mode):
        return (lambda t: jvp(function, (t,), (torch.ones_like(t),))[1]) if mode == "forward" else grad(function)

    start, step = torch.zeros((), dtype=x.dtype), 1e-5
    modes = itertools.product(["forward", "reverse"], repeat=2)
    found = [slope(slope(line, inner), outer)(start) for outer, inner in modes]

    def plain(t):
        point = torch.full((), t, dtype=x.dtype).requires_grad_()
        return torch.autograd.grad(line(point), point)[0]

    expected = (plain(step) - plain(-step)) / (2 * step)
    for each in found:
        torch.testing.assert_close(each, found[0], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", FEWER)
def test_gradients_by_row_are_those_of_a_loop(name, direction):
    function, weights, x = setting(name, direction)
    by_row = vmap(grad(lambda *given: scalar(function(*given)), argnums=(0, 1)), in_dims=(None, 0))(weights, x)
    for row in range(len(x)):
        leaves = {key: weight.clone().requires_grad_() for key, weight in weights.items()}
        point = x[row].clone().requires_grad_()
        wanted = [*leaves.values(), point]
        loss = scalar(function(leaves, point))
        expected = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
        found = [*by_row[0].values(), by_row[1]]
        for mine, other in zip(found, expected, strict=True):
            torch.testing.assert_close(mine[row], other, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:torch.searchsorted")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", FEWER)
def test_an_ensemble_of_weights_is_a_loop(name, direction):
    function, weights, x = setting(name, direction)
    several = {key: torch.stack([w, w + 0.02 * like(w, 1), w - 0.01 * like(w, 2)]) for key, w in weights.items()}
    found = vmap(function)(several, x)
    for row in range(3):
        expected = function({key: each[row] for key, each in several.items()}, x[row])
        torch.testing.assert_close([each[row] for each in found], list(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.long
def test_values_under_vmap_hold_rows_that_take_different_numbers_of_steps():
    layer = make("residual, network, regular C4")
    y = events(layer, 5) * torch.tensor([1e-9, 1e-3, 1.0, 30.0, 1e3], dtype=torch.float64)[:, None]
    x, ladj = vmap(layer.call_and_ladj)(y)
    for row in range(5):
        expected = layer.call_and_ladj(y[row])
        torch.testing.assert_close((x[row], ladj[row]), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", QUICKER)
def test_scores_of_flows(name):
    flow = make_flow(name)
    x = events(flow, 4)
    point = x.clone().requires_grad_()
    expected = flow(point)
    gradient = torch.autograd.grad(expected.sum(), point)[0]
    torch.testing.assert_close(vmap(flow.dist.log_prob)(x), expected.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(vmap(grad(flow))(x), gradient, rtol=1e-9, atol=1e-9)
    tangent = jvp(flow.dist.log_prob, (x,), (x.cos(),))[1]
    torch.testing.assert_close(tangent, (gradient * x.cos()).flatten(1).sum(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["residual, ridges, plane D8", "monotone, network, image C4", "recomputed, plane D8"])
@pytest.mark.long
def test_draws_have_their_tangents_along_the_weights(name):
    class Draws(nn.Module):
        def __init__(self, flow):
            super().__init__()
            self.flow = flow

        def forward(self):
            torch.manual_seed(0)
            return self.flow.dist.rsample((3,))

    module = Draws(make_flow(name))
    weights = {key: parameter.detach() for key, parameter in module.named_parameters()}
    along = {key: like(weight, 1) for key, weight in weights.items()}
    tangent = jvp(lambda weights: functional_call(module, weights, ()), (weights,), (along,))[1]
    above, below = (
        functional_call(module, {key: w + step * along[key] for key, w in weights.items()}, ())
        for step in (1e-6, -1e-6)
    )
    torch.testing.assert_close(tangent, (above - below) / 2e-6, rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_contexts_have_tangents_too():
    layer = make_conditional("residual, ridges, plane D4")
    x, context = (torch.randn(3, *a.event_shape).double() for a in (layer.action_in, layer.context_action))
    for call in (layer.call_and_ladj, layer.inv_call_and_ladj):
        found = jvp(call, (x, context), (x.cos(), context.cos()))[1]
        above, below = (call(x + h * x.cos(), context + h * context.cos()) for h in (1e-6, -1e-6))
        for tangent, a, b in zip(found, above, below, strict=True):
            torch.testing.assert_close(tangent, (a - b) / 2e-6, rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_all_images_of_a_flow():
    """OrbitFlow scores the images that count alone where plain reverse mode asks for gradients."""
    base = OrbitFlow(VectorAction.rows("S3"), steps=2, width=4)
    flow = EquivariantFlow(base, [g_residual(base.action)]).double()
    randomize_(flow, scale=0.2, generator=torch.Generator().manual_seed(0))
    x = 5 * torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for density in (base, flow.dist):
        point = x.clone().requires_grad_()
        scores = density.log_prob(point)
        (gradient,) = torch.autograd.grad(scores.sum(), point)
        torch.testing.assert_close(vmap(density.log_prob)(x), scores.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(vmap(grad(density.log_prob))(x), gradient, rtol=1e-9, atol=1e-9)
        tangent = jvp(density.log_prob, (x,), (x.cos(),))[1]
        torch.testing.assert_close(tangent, (gradient * x.cos()).sum(1), rtol=1e-9, atol=1e-9)
    assert vmap(lambda _: flow.dist.rsample(), randomness="different")(torch.zeros(4)).shape == (4, 3)


@pytest.mark.parametrize("size", [4, 300])
@pytest.mark.parametrize("given", ["bound", "no bound"])
def test_roots_of_any_size(size, given):
    """Up to 256 entries, and without a bound, by a dense inverse; beyond by iteration."""
    f = Branch((size,), lipschitz=0.4)
    y = like(torch.zeros(2, size, dtype=torch.float64), 0)

    def inverse(y):
        root, _ = BanachSolver()(f, y, 1, lipschitz=0.4)
        return implicit_root(f, y, root, 1, lipschitz=0.4 if given == "bound" else None)

    root, tangent = jvp(inverse, (y,), (like(y, 1),))
    jacobian = torch.stack([torch.autograd.functional.jacobian(f, row) for row in root.detach()])
    expected = torch.linalg.solve(torch.eye(size, dtype=y.dtype) + jacobian, like(y, 1)[..., None]).squeeze(-1)
    torch.testing.assert_close(tangent, expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(root, inverse(y))


@pytest.mark.long
@pytest.mark.parametrize("nested", ["jvp of jvp", "jvp of grad", "grad of jvp", "grad of grad"])
def test_second_derivatives_of_the_roulette_are_unbiased_in_torch_func(nested):
    """Reverse mode alone refuses them; here w is held in the first derivative only."""
    x = like(torch.zeros(1, 3, dtype=torch.float64), 0).repeat(400, 1)
    frame = torch.linalg.qr(like(x[:3], 4)).Q
    estimator = RouletteLogDet(exact_terms=1, shared_length=False)

    def f(x):  # slopes that change fast, so that the change of w matters
        return 0.1 * (5 * x @ frame).sin()

    along = like(x[0], 1).repeat(400, 1)
    outer, inner = nested.split(" of ")

    def slope(function, kind):
        """The derivative of each row along the direction."""
        if kind == "jvp":
            return lambda x: jvp(function, (x,), (along[: len(x)],))[1]
        return lambda x: (grad(lambda x: function(x).sum())(x) * along[: len(x)]).sum(-1)

    def estimate(x):
        return estimator(f, x, 1, lipschitz=0.5, training=True)[1]

    torch.manual_seed(0)
    found = torch.cat([slope(slope(estimate, inner), outer)(x) for _ in range(10)]).detach()
    hessian_of = torch.autograd.functional.hessian(
        lambda x: ExactLogDet()(f, x, 1, lipschitz=0.5, training=False)[1], x[0]
    )
    exact = along[0] @ hessian_of @ along[0]
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean() - exact)) < 4 * error < 0.5 * abs(float(exact))


@pytest.mark.parametrize(
    "estimator",
    [
        SeriesLogDet(6, probes=2),
        RouletteLogDet(),
        RouletteLogDet(shared_length=False),
        ConstantMemory(RouletteLogDet()),
        KrylovLogDet(),
        KrylovLogDet(unbiased=True),
        ConstantMemory(KrylovLogDet()),
    ],
    ids=repr,
)
def test_random_and_fixed_probes_under_vmap(estimator):
    """Fixed probes are no random numbers to vmap; random ones obey its ``randomness``."""
    f, x = Branch((4,)), like(torch.zeros(3, 4, dtype=torch.float64), 0)
    training = not isinstance(estimator, SeriesLogDet)

    def estimate(x):
        return estimator(f, x, 1, lipschitz=0.8, training=training)[1]

    torch.manual_seed(0)
    found = vmap(grad(estimate), randomness="same")(x)
    for row in range(3):
        torch.manual_seed(0)
        point = x[row].clone().requires_grad_()
        torch.testing.assert_close(found[row], torch.autograd.grad(estimate(point), point)[0], rtol=1e-10, atol=1e-12)
    if training:
        with pytest.raises(RuntimeError, match="random"):
            vmap(estimate)(x)
        same = vmap(estimate, randomness="different")(x[:1].expand(50, 4))
        assert len(same.unique()) > 1


LINEARIZED = slow_unless([*QUICKER, "coupling, channels, shifts with D4"], CONSTRUCTORS)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # torch's own, of linearize
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", LINEARIZED)
def test_linearize_is_right_or_refused(name, direction):
    """By us where steps depend on the data, by torch where it works in place or reads a number; never wrong."""
    layer = make(name)
    x = events(layer, 3)
    if direction == "inv_call_and_ladj":
        x = layer.call_and_ladj(x)[0].detach()
    call = getattr(layer, direction)
    try:
        _, push = linearize(call, x)
        found = push(x.cos())
    except RuntimeError as refusal:
        assert re.search("would keep the number of one call|in-place operation|value out of a tracing", str(refusal))
    else:
        for mine, other in zip(found, jvp(call, (x,), (x.cos(),))[1], strict=True):
            torch.testing.assert_close(mine, other)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")
def test_linearize_is_right_where_nothing_is_solved_for():
    layer = make("residual, ridges, plane D8")
    x = events(layer, 3)
    _, push = linearize(layer.inv_call_and_ladj, x)
    for mine, other in zip(push(x.cos()), jvp(layer.inv_call_and_ladj, (x,), (x.cos(),))[1], strict=True):
        torch.testing.assert_close(mine, other)
    with pytest.raises(RuntimeError, match=r"torch\.func\.linearize would keep the number of one call"):
        linearize(layer.call_and_ladj, x)
    for estimator in (RouletteLogDet(), KrylovLogDet(), KrylovLogDet(tolerance=0)):
        loud = GResidual(layer.action_in, layer.branch, log_det=estimator).train()
        with pytest.raises(RuntimeError, match=r"torch\.func\.linearize would keep the number of one call"):
            linearize(loud.inv_call_and_ladj, x)
