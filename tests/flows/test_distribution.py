"""FlowDistribution: densities on the image of layers that map into an interval, whatever comes after these."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.autograd.functional import jacobian

from pyro_gflows import (
    Compose,
    CoordinateSplit,
    EquivariantFlow,
    GActNorm,
    GAffine,
    GSigmoid,
    InvariantNormal,
    InvariantStudentT,
    InvariantUniformBall,
    OrbitMixture,
    Symmetrized,
    VectorAction,
)
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GNormalCdf, GSplit, Recompute

PAIR = VectorAction.regular("C2")
FOUR = VectorAction.regular("C2", copies=2)
CONTEXT = VectorAction.trivial("C2", copies=3)


def split():
    parts = CoordinateSplit(FOUR)
    return GSplit(FOUR, GNormalCdf(parts.parts[0], (0.0, 2.0)), split=parts, width=2, depth=1)


LIMITED = {
    "two sigmoids": lambda: [GSigmoid(PAIR, alpha=0.0), GSigmoid(PAIR, alpha=0.0)],
    "scaled": lambda: [GSigmoid(PAIR, (2.0, 3.0)), GActNorm(PAIR)],
    "nested": lambda: [Compose([GActNorm(PAIR), GSigmoid(PAIR, (2.0, 3.0))]), GActNorm(PAIR), GSigmoid(PAIR)],
    "recomputed": lambda: [Recompute(GSigmoid(PAIR)), GActNorm(PAIR)],
    "last": lambda: [GActNorm(PAIR), GSigmoid(PAIR)],
    "recomputed last": lambda: [GActNorm(PAIR), Recompute(GSigmoid(PAIR))],
    "in a split": lambda: [split(), GActNorm(FOUR)],
    "under contexts": lambda: [GSigmoid(PAIR), GAffine(PAIR, context_action=CONTEXT, width=2)],
}


def limited(name, *, validate=True):
    """The density, with random weights; under one context where there are any."""
    torch.manual_seed(0)
    layers = LIMITED[name]()
    flow = EquivariantFlow(InvariantNormal(layers[0].action_in, validate_args=validate), layers).double()
    randomize_(flow, generator=torch.Generator().manual_seed(1))
    density = flow.dist if flow.context_action is None else flow.condition(torch.ones(3, dtype=torch.float64))
    density._validate_args = validate
    return density


@pytest.mark.parametrize("name", LIMITED)
def test_outside_its_image_a_flow_raises_or_scores_minus_infinity(name):
    density = limited(name)
    drawn = density.sample((50,))
    fresh = density.log_prob(drawn.clone())
    assert fresh.isfinite().all()  # its own draws are inside
    outside = drawn[:3] + 100.0
    with pytest.raises(ValueError, match="within the support|outside its image"):
        density.log_prob(outside.clone())
    lenient = limited(name, validate=False)
    mixed = torch.cat([outside, drawn]).requires_grad_()
    scores = lenient.log_prob(mixed)
    assert (scores[:3] == -math.inf).all()
    torch.testing.assert_close(scores[3:], fresh)
    layers = lenient.transforms[0]
    scores[3:].sum().backward()
    gradients = [mixed.grad, *(p.grad for p in layers.parameters() if p.grad is not None)]
    assert len(gradients) > 1 or not list(layers.parameters())
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", LIMITED)
def test_inside_it_is_the_change_of_variables_by_autograd(name):
    density = limited(name)
    z = torch.randn(4, *density.event_shape, dtype=torch.float64)
    layer = density.transforms[0]
    slopes = torch.stack([torch.linalg.slogdet(jacobian(layer, row))[1] for row in z])
    expected = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) - slopes
    torch.testing.assert_close(density.log_prob(layer(z).detach().clone()), expected)


@pytest.mark.parametrize("name", ["two sigmoids", "scaled", "nested", "recomputed", "under contexts"])
def test_the_density_integrates_to_one_over_all_of_the_plane(name):
    density = limited(name, validate=False)
    ends = density.sample((2000,))
    low, high = ends.amin(0), ends.amax(0)
    middle, half = (low + high) / 2, 0.75 * (high - low)  # half as much again: much of the grid is outside
    line = torch.linspace(-1.0, 1.0, 601, dtype=torch.float64)
    grid = middle + half * torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    with torch.no_grad():
        mass = density.log_prob(grid).exp().sum() * half.prod() * (line[1] - line[0]) ** 2
    assert abs(float(mass) - 1) < 2e-3


def test_a_component_of_a_mixture_that_cannot_have_made_a_value_counts_nothing():
    lenient = limited("scaled", validate=False)
    both = dist.MixtureOfDiagNormals(torch.zeros(1, 2).double(), torch.ones(1, 2).double(), torch.zeros(1).double())
    far = torch.tensor([[50.0, 50.0]], dtype=torch.float64)
    scores = torch.stack([lenient.log_prob(far), both.log_prob(far)]) + math.log(0.5)
    torch.testing.assert_close(scores.logsumexp(0), both.log_prob(far) + math.log(0.5))


def test_the_memory_of_a_draw_still_answers_and_scoring_draws_no_random_numbers():
    density = limited("scaled", validate=False)
    state = torch.get_rng_state()
    density.log_prob(torch.full((3, 2), 50.0, dtype=torch.float64))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_draws_on_the_ends_of_a_far_interval_are_inside(alpha):
    """In float32 the inverses of the layers after it move them by more than an ulp of the interval's length."""
    flow = EquivariantFlow(InvariantNormal(PAIR), [GNormalCdf(PAIR, (100.0, 101.0), alpha=alpha), GActNorm(PAIR)])
    randomize_(flow, generator=torch.Generator().manual_seed(1))
    z = torch.tensor([[9.0, -9.0], [6.0, 0.0], [-40.0, 40.0]])
    assert flow.dist.log_prob(flow.transform(z).detach().clone()).isfinite().all()


def test_a_layer_that_is_undefined_on_what_arrives_is_refused():
    back = GSigmoid(PAIR).inv
    normal = InvariantNormal(PAIR)
    for base, layers in [
        (normal, [back]),
        (InvariantStudentT(PAIR), [Recompute(back)]),
        (OrbitMixture(PAIR), [Compose([GActNorm(PAIR), back])]),
        (normal, [GSigmoid(PAIR), GActNorm(PAIR), back]),
        (normal, [GSigmoid(PAIR), GSigmoid(PAIR, (0.2, 0.3)).inv]),
    ]:
        with pytest.raises(ValueError, match="is defined between"):
            EquivariantFlow(base, layers)
    for base, layers in [
        (normal, [GSigmoid(PAIR, alpha=0.0), back]),
        (normal, [Compose([GActNorm(PAIR), GSigmoid(PAIR)]), back, GActNorm(PAIR)]),
        (InvariantUniformBall(PAIR), [GNormalCdf(PAIR, (-3.0, 3.0)).inv]),
        (Symmetrized(dist.Uniform(torch.zeros(2), 1.0).to_event(1), PAIR), [back]),
    ]:
        assert EquivariantFlow(base, layers).dist.sample((100,)).isfinite().all()


@pytest.mark.parametrize("base", [InvariantNormal, InvariantStudentT, InvariantUniformBall, OrbitMixture])
def test_bases_score_no_events(base):
    for density in (base(PAIR), Symmetrized(base(PAIR), PAIR)):
        assert density.log_prob(torch.zeros(0, 2)).shape == (0,)
        assert density.expand((3,)).log_prob(torch.zeros(0, 3, 2)).shape == (0, 3)
        with pytest.raises(ValueError, match="shape"):
            density.log_prob(torch.zeros(0, 3))


def test_a_base_of_plain_tensors_that_was_left_behind_is_named():
    base = Symmetrized(dist.Normal(torch.zeros(2), 1.0).to_event(1), PAIR)
    flow = EquivariantFlow(base, [GActNorm(PAIR)]).double()
    for draw in (flow.dist.sample, flow.dist.rsample):
        with pytest.raises(TypeError, match=r"draws of torch\.float32 on cpu: flow\.to"):
            draw((3,))
