"""Coupling and autoregressive layers on angles: symmetry, exactness, smoothness, and what they can represent."""

import functools
import math
from fractions import Fraction

import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantUniform
from pyro_gflows.actions import CoordinateSplit, TorusAction, TorusSplit, VectorAction
from pyro_gflows.nn.circular_fields import CircularFields
from pyro_gflows.nn.circular_knots import mean_displacement
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import (
    Compose,
    ElementwiseAffine,
    ElementwiseCircularSpline,
    GAutoregressive,
    GCoupling,
    g_autoregressive,
    g_coupling,
)
from tests.constructors.circular import exchange, glide, half_periods
from tests.constructors.torus import square, thirds

CIRCLE = 2 * math.pi
HALF = [math.pi, math.pi]
ACTIONS = {
    "none": lambda: TorusAction.trivial(2),
    "half periods of both": lambda: TorusAction.translations([HALF]),
    "half periods of the first": lambda: TorusAction.translations([[math.pi, 0]]),
    "thirds and sixths": lambda: TorusAction.translations([[Fraction(1, 3), Fraction(1, 6)]]),
    "D2": lambda: TorusAction.point_group("D2"),
    "D2 with half periods": half_periods,
    "C2 with half periods": lambda: TorusAction.point_group("C2").with_translations([HALF]),
    "D2 with quarters": lambda: TorusAction.point_group("D2").with_translations([[math.pi / 2, math.pi / 2]]),
    "glide": glide,
    "rotation about a point": lambda: TorusAction.from_generators([([[-1, 0], [0, -1]], [math.pi / 2, math.pi / 3])]),
    "exchange": exchange,
    "exchanged pairs": lambda: TorusAction.from_generators(
        [([1, 0, 3, 2], [0, 0, 0, 0]), ([0, 1, 2, 3], [math.pi, math.pi, math.pi / 2, math.pi / 2])]
    ),
    "sum": lambda: TorusAction.fixing([[1, 1]]),
    "twice": lambda: TorusAction.fixing([[2, -1]]),
    "three": lambda: TorusAction.fixing([[1, 1, 0], [0, 1, -1]]),
}


def points(action, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 5 * torch.randn(*batch, action.numel, dtype=torch.float64, generator=generator)


def random(make, action, *, scale=1.0, **size):
    torch.manual_seed(0)
    layer = make(action, **{"width": 3, "depth": 1, **size}).double()
    return randomize_(layer, scale=scale, generator=torch.Generator().manual_seed(1)).eval()


def apart(action, x, y):
    return action.space.difference(x, y).abs().max()


def trained(layer):
    """After steps on events that are not symmetric, and near a mode."""
    flow = EquivariantFlow(InvariantUniform(layer.action_in), [layer]).double()
    x = 1.0 + 0.3 * points(layer.action_in, 64, seed=4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = -flow(x).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < losses[0]
    return layer


@pytest.mark.parametrize("training", [False, True], ids=["random weights", "trained"])
@pytest.mark.parametrize("make", [g_coupling, g_autoregressive])
@pytest.mark.parametrize("name", ACTIONS)
def test_layers_are_equivariant_exact_bijections(name, make, training):
    action = ACTIONS[name]()
    layer = random(make, action)
    if training:
        trained(layer)
    x = points(action, 3)
    assert_layer(layer, x, tol=1e-9)
    y = layer(x)
    assert ((y >= 0) & (y < CIRCLE)).all() and apart(action, y, x) > 0.05
    circles = CIRCLE * torch.tensor([-1.0, *[2.0] * (action.numel - 1)], dtype=torch.float64)
    assert apart(action, layer(x + circles), y) < 1e-9


@pytest.mark.parametrize("make", [g_coupling, g_autoregressive])
@pytest.mark.parametrize("name", ACTIONS)
def test_new_layers_are_the_identity(name, make):
    action = ACTIONS[name]()
    layer = make(action, width=2, depth=1).double()
    y, log_det = layer.call_and_ladj(points(action, 5))
    assert apart(action, y, points(action, 5)) < 1e-9 and log_det.abs().max() < 1e-9


def test_a_reflection_and_a_translation_act_on_the_conditional_splines():
    """s at the image of the context is -s(-x) under a reflection, and s(x - a) + a under a translation."""
    action = half_periods()
    layer = random(GCoupling, action, scale=2.0)
    read, angles = torch.tensor(0.7, dtype=torch.float64), torch.linspace(-3, 3, 50, dtype=torch.float64)
    assert layer.split.indices == ((0,), (1,)) and layer.transformed == 1

    def spline(context, angle):
        return layer(torch.stack([context.expand_as(angle), angle], -1).double())[..., 1]

    image = spline(read, angles)
    assert (image - angles).remainder(CIRCLE).std() > 1e-3  # no mere shift
    differences = [
        spline(-read, angles) - image,  # the reflection of the context alone is in the group
        spline(read, -angles) + image,
        spline(read + math.pi, angles + math.pi) - image - math.pi,
    ]
    for difference in differences:
        assert apart(action, difference, torch.zeros_like(difference)) < 1e-9
    other = spline(read + math.pi, angles) - image
    assert apart(action, other, torch.zeros_like(other)) > 1e-2


@pytest.mark.parametrize("name", ["D2 with half periods", "glide", "half periods of both"])
def test_layers_have_no_more_symmetry_than_the_group(name):
    """A translation of the first angle alone by half a circle is in none of these groups."""
    action = ACTIONS[name]()
    layer = random(g_coupling, action, scale=2.0)
    x, shift = points(action, 20), torch.tensor([math.pi, 0.0], dtype=torch.float64)
    assert apart(action, layer(x + shift), layer(x) + shift) > 1e-2


def test_value_and_log_det_are_continuous_across_every_seam():
    for action in (half_periods(), TorusAction.translations([[Fraction(1, 3), Fraction(1, 6)]])):
        layer = random(g_coupling, action, scale=2.0)
        seams = torch.cartesian_prod(torch.arange(-12, 13), torch.arange(-12, 13)).double() * CIRCLE / 12
        step = torch.tensor([1e-9, -1e-9], dtype=torch.float64)
        (left, ladj_left), (right, ladj_right) = layer.call_and_ladj(seams - step), layer.call_and_ladj(seams + step)
        assert apart(action, left, right) < 1e-6 and (ladj_left - ladj_right).abs().max() < 1e-6
        assert ladj_left.std() > 0.1


@pytest.mark.parametrize("action", [square(), thirds(), TorusAction.point_group(VectorAction.signs(1))], ids=str)
def test_all_angles_alike(action):
    """One part with all angles reads nothing: one spline for each orbit, with the group's symmetries."""
    layer = random(GCoupling, action, split=TorusSplit(action, [range(action.numel)]), transformed=0)
    x = points(action, 3)
    assert_layer(layer, x)
    jacobian = torch.autograd.functional.jacobian(layer, x[0])
    assert torch.equal(jacobian, torch.diag(jacobian.diagonal())) and (jacobian.diagonal() - 1).abs().max() > 1e-2


def test_a_context_is_read_beside_angles():
    action = TorusAction.point_group("D1")
    layer = random(g_coupling, action, context_action=VectorAction.regular(action.group))
    x, context = points(action, 4), points(action, 4, seed=1)
    assert_layer(layer, x, context=context)
    assert apart(action, layer.condition(context)(x), layer.condition(-context)(x)) > 1e-3


@pytest.mark.parametrize("action", [half_periods(), exchange(), thirds(), glide(), TorusAction.trivial(2)], ids=str)
@pytest.mark.parametrize("bins", [2, 5, 8])
def test_the_group_acts_on_the_parameters_of_splines(action, bins):
    """T(g x; g params) = g T(x; params), translations included, and the log-det is invariant."""
    spline = ElementwiseCircularSpline(action, bins=bins).double()
    fields, x = spline.fields, points(action, 6)
    assert fields.bins >= bins and fields.bins % fields.sectors == 0
    params = 2 * torch.randn(6, spline.params_action.numel, generator=torch.Generator().manual_seed(2)).double()
    y, log_det = spline(x, params)
    assert apart(action, spline.inverse(y, params)[0], x) < 1e-9
    for g in action.elements():
        image, invariant = spline(action.act(g, x), spline.params_action.act(g, params))
        assert apart(action, image, action.act(g, y)) < 1e-9
        torch.testing.assert_close(invariant, log_det, rtol=0, atol=1e-9)
    zero, none = spline(x, torch.zeros_like(params))
    torch.testing.assert_close(zero, x, rtol=0, atol=1e-12)
    assert none.abs().max() < 1e-12


def test_the_mean_displacement_does_not_depend_on_the_first_sector():
    heights = torch.rand(3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    shifted = heights.roll(4, -1)
    # the knot that the last third began is now the first one, and was displaced by this much
    there = CIRCLE * (heights[:, :8].sum(-1) - 2 / 3)
    torch.testing.assert_close(mean_displacement(shifted, 3) + there, mean_displacement(heights, 3))
    assert mean_displacement(heights, 1).abs().max() < 1e-12


def test_masked_angles_stay_as_they_are():
    """Under translations that fix x1 + x2 and nothing of x3, no density depends on x3."""
    action = TorusAction.fixing([[1, 1, 0]])
    split = TorusSplit(action, [[0, 2], [1]])
    layer = random(GCoupling, action, split=split, transformed=0)
    x = points(action, 5)
    y = layer(x)
    assert apart(action, y[:, 1:], x[:, 1:]) < 1e-12 < 1e-2 < apart(action, y[:, :1], x[:, :1])
    assert_layer(layer, x)
    with pytest.raises(ValueError, match="expected a part that the other parts can transform, got part 0"):
        GCoupling(action, split=TorusSplit(action, [[2], [0, 1]]), transformed=0)
    step = g_coupling(TorusAction.fixing([[0, 0, 1], [1, 1, 0]]), split=None)
    assert len(step.parts) == 2


def test_a_density_of_the_sum_needs_one_spline():
    """Under translations that fix x1 + x2 the density of every flow is a function of that sum, of any shape."""
    action = TorusAction.fixing([[1, 1]])
    torch.manual_seed(0)
    flow = EquivariantFlow(InvariantUniform(action), [GCoupling(action, width=2, depth=0)]).double()
    grid = CIRCLE * torch.arange(60, dtype=torch.float64) / 60
    x = torch.cartesian_prod(grid, grid)
    target = (x.sum(-1) - 1.94).cos() - 3.911668
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.1)
    for _ in range(120):
        optimizer.zero_grad()
        divergence = (target.exp() * (target - flow(x))).mean() * CIRCLE**2
        divergence.backward()
        optimizer.step()
    assert divergence < 2e-3
    by_sum = flow(x).detach().reshape(60, 60)
    rolled = torch.stack([row.roll(index) for index, row in enumerate(by_sum)])
    assert (rolled - rolled[0]).abs().max() < 1e-9 < 1 < rolled[0].max() - rolled[0].min()


def test_loaded_weights_bring_the_coordinates_that_they_were_trained_in():
    action = TorusAction.translations([[Fraction(1, 3), Fraction(1, 6)]])
    layer, fresh = (random(GCoupling, action) for _ in range(2))
    entries = {key: value.clone() for key, value in layer.state_dict().items()}
    assert {"frame.rows.value", "frame.origin.value", "frame.repeats.value"} < set(entries)
    entries["frame.rows.value"][0, 0] += 6  # x2 - 2 x1 and x2 + 4 x1 are both not shifted
    fresh.load_state_dict(entries)
    x = points(action, 4)
    assert_layer(fresh, x)
    assert apart(action, fresh(x), layer(x)) > 1e-3


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: GCoupling(glide(), transformer=ElementwiseAffine),
            (ValueError, TypeError, AttributeError),
            "circular|angles|LinearAction|signed",
        ),
        (
            lambda: GCoupling(TorusAction.trivial(2), transformer=ElementwiseAffine),
            ValueError,
            "expected a transformer of angles such as ElementwiseCircularSpline, got ElementwiseAffine",
        ),
        (
            lambda: GAutoregressive(TorusAction.trivial(2), transformer=ElementwiseAffine),
            ValueError,
            "expected a transformer of angles",
        ),
        (
            lambda: GAutoregressive(diagonal(), split=TorusSplit(diagonal(), [[1], [0, 2]])),
            ValueError,
            "a block that the blocks before it can transform, got TorusSplit",
        ),
        (
            lambda: GAutoregressive(square(), split=TorusSplit(square(), [range(2)])),
            ValueError,
            "at least 2 parts, got .*; GCoupling transforms a single part",
        ),
        (lambda: g_coupling(square()), ValueError, "one orbit, .* use g_residual .* or GGradient"),
        (
            lambda: GCoupling(glide(), split=CoordinateSplit(VectorAction.plane("C4", copies=2))),
            ValueError,
            "expected a split of TorusAction",
        ),
        (lambda: ElementwiseCircularSpline(glide(), bins=1), ValueError, "expected from 2 to 998 bins, got 1"),
        (
            lambda: ElementwiseCircularSpline(VectorAction.plane("C5")),
            ValueError,
            "commutes with .signed. permutations",
        ),
        (
            lambda: CircularFields(TorusAction.fixing([[1, 1]]), 4),
            ValueError,
            "expected an action with finitely many translations",
        ),
        (lambda: g_coupling("D4"), TypeError, "expected a LinearAction"),
    ],
)
def test_what_does_not_go_with_angles_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_flow_alternates_the_angles_and_draws_what_it_scores():
    action = half_periods()
    transformer = functools.partial(ElementwiseCircularSpline, bins=4)
    steps = Compose([random(g_coupling, action, transformer=transformer, scale=0.5)] * 2)
    flow = EquivariantFlow(InvariantUniform(action), [steps]).double()
    grid = CIRCLE * torch.arange(500, dtype=torch.float64) / 500
    with torch.no_grad():
        mass = flow(torch.cartesian_prod(grid, grid)).exp() * (CIRCLE / 500) ** 2
        assert mass.sum() == pytest.approx(1, abs=1e-3)
        draws = flow.dist.sample((4000,))
        scores = flow(draws)
    assert ((draws >= 0) & (draws < CIRCLE)).all()
    assert -scores.mean() == pytest.approx(float(-(mass * (mass / (CIRCLE / 500) ** 2).log()).sum()), abs=0.03)


def diagonal():
    """The translations that fix a combination of three angles, in which all of them occur."""
    return TorusAction.fixing([[1, 1, 2]])


@pytest.mark.parametrize("combination", [[2, 0, 2], [1, 3, 1, -1], [1, 1, 2], [0, 2, -3, 3]])
@pytest.mark.parametrize("make", [g_coupling, GAutoregressive])
def test_the_default_split_allows_a_map_under_all_translations_that_fix_a_combination(make, combination):
    action = TorusAction.fixing([combination])
    layer = randomize_(make(action, width=2).double(), generator=torch.Generator().manual_seed(0))
    x = 6 * torch.rand(4, action.numel, dtype=torch.float64)
    assert_layer(layer, x)
    assert action.space.difference(layer(x), x).abs().max() > 0.01


def test_an_orbit_of_four_angles_from_one_generator():
    action = TorusAction.from_generators([([1, 2, 3, 0], [0.0] * 4)])
    split = TorusSplit(action, [range(4)])
    layer = randomize_(
        GCoupling(action, split=split, transformed=0, width=1).double(), generator=torch.Generator().manual_seed(0)
    )
    assert_layer(layer, 6 * torch.rand(3, 4, dtype=torch.float64))
