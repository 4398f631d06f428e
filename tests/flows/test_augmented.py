"""Densities from flows on a padded space: bounds and estimates against quadrature, symmetry, training, Pyro."""

import math

import pyro
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO

from pyro_gflows import (
    AugmentedFlow,
    EquivariantFlow,
    GActNorm,
    ImageAction,
    InvariantNormal,
    VectorAction,
    augment,
    fit,
    g_coupling,
    g_residual,
    load,
    save,
)
from pyro_gflows.evaluation import log_probs, nll
from pyro_gflows.flows import VariationalFlow, g_dequantizer, g_padding
from pyro_gflows.testing import assert_invariant, randomize_
from pyro_gflows.training import Adam, FitSettings, Validation

PLANE = VectorAction.plane("D4")


def points(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def augmented(action=PLANE, padding=PLANE, *, draws=64, scale=0.1, seed=0):
    """A padded flow with random weights: couplings where they exist, else residual layers."""
    torch.manual_seed(0)
    padded = action.direct_sum(padding)
    layer, size = (g_coupling, {"width": 4}) if isinstance(padded, VectorAction) else (g_residual, {})
    flow = EquivariantFlow(InvariantNormal(padded), [GActNorm(padded), layer(padded, **size), layer(padded, **size)])
    made = augment(flow, padding=g_padding(action, padding, width=4, start=0.0), draws=draws, seed=seed).double()
    randomize_(made, scale=scale, generator=torch.Generator().manual_seed(1))
    return made.eval()


def by_quadrature(density, x, *, limit=9.0, count=91):
    """log p(x), the logarithm of the integral over a padding of two components, by the trapezoidal rule."""
    line = torch.linspace(-limit, limit, count, dtype=torch.float64)
    a = torch.cartesian_prod(line, line)
    with torch.no_grad():
        parts = [density.flow(density._joined(part[:, None], a)).logsumexp(-1) for part in x.split(20)]
    return torch.cat(parts) + 2 * math.log(2 * limit / (count - 1))


def test_the_estimate_is_the_integral_over_the_padding():
    density, x = augmented(draws=4096), points(6, 2)
    expected = by_quadrature(density, x)
    with torch.no_grad():
        assert (density(x) - expected).abs().max() < 0.05
        few = augmented(draws=8)(x)
    assert (few - expected).abs().max() > 0.05
    torch.manual_seed(0)
    assert (density.importance_bound(x, draws=4096) - expected).abs().max() < 0.05


def test_the_bound_is_a_lower_bound_and_tighter_with_more_draws():
    density, x = augmented(), points(3, 2)
    expected = by_quadrature(density, x)
    torch.manual_seed(0)
    means = []
    with torch.no_grad():
        for draws in (1, 10):
            weights = density.log_weights(x, 2000 * draws).reshape(2000, draws, 3)
            means.append((weights.logsumexp(1) - math.log(draws)).mean(0))
    assert (means[0] < means[1]).all()
    assert (means[1] < expected + 0.01).all()


def test_the_bound_is_exact_where_q_is_the_conditional_density():
    """The components of a normal density are independent, so q(a | x) = N(0, I) has no gap at all."""
    padded = PLANE.direct_sum(PLANE)
    flow = EquivariantFlow(InvariantNormal(padded), [GActNorm(padded)])
    density = augment(flow, padding=g_padding(PLANE, PLANE, layers=0, start=0.0)).double()
    x = points(5, 2)
    expected = -x.square().sum(-1) / 2 - math.log(2 * math.pi)
    for mode in (True, False):
        torch.testing.assert_close(density.train(mode)(x), expected, rtol=0, atol=1e-12)


def test_the_padding_depends_on_x_before_training():
    """With a padding that is independent of x, an identity is a saddle: no gradient tells the couplings of x."""
    torch.manual_seed(0)
    padded = PLANE.direct_sum(PLANE)
    x = math.sqrt(2) * torch.nn.functional.normalize(points(200, 2), dim=-1)  # a ring of the variance of the base
    found = []
    for start in (0.0, 1.0):
        flow = EquivariantFlow(InvariantNormal(padded), [g_coupling(padded, width=4)]).double()
        density = augment(flow, padding=g_padding(PLANE, PLANE, layers=0, start=start).double())
        density.log_weights(x, 200).mean().backward()
        found.append(max(float(p.grad.abs().max()) for p in flow.parameters() if p.grad is not None))
    assert found[0] < 0.1 * found[1]


def test_the_default_padding_takes_dtype_and_fields_from_the_flow():
    padded = PLANE.direct_sum(VectorAction.trivial("D4"))
    flow = EquivariantFlow(InvariantNormal(padded), [GActNorm(padded)]).double()
    density = augment(flow, padding=VectorAction.trivial("D4"))
    assert density.action == PLANE
    assert density.encoder.action == VectorAction.trivial("D4")
    assert density(points(5, 2)).dtype == torch.float64


CASES = {
    "D4, averaged": (PLANE, PLANE, "8 and their 8 images"),
    "D40, follows x": (VectorAction.plane("D40"), VectorAction.plane("D40"), "64 draws that follow x"),
    "rows of S3 with scalars": (VectorAction.rows("S3", features=2), VectorAction.trivial("S3", copies=2), "6 images"),
    "images of C4": (ImageAction("C4", 1, size=2), ImageAction("C4", 2, size=2), "16 and their 4 images"),
    "no symmetry": (VectorAction.trivial("C1", copies=2), VectorAction.trivial("C1"), "64 draws"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_exactly_invariant(name):
    action, padding, words = CASES[name]
    density = augmented(action, padding)
    x = points(4, *action.event_shape)
    with torch.no_grad():
        assert_invariant(density, action, x, tol=1e-10)
        assert torch.equal(density(x), density(x))
        torch.testing.assert_close(density(x[1:2]), density(x)[1:2], rtol=0, atol=1e-11)  # a function of the event
    assert words in repr(density).splitlines()[0]


@pytest.mark.parametrize("name", CASES)
def test_the_bound_of_an_image_is_that_of_the_event_under_the_image_of_the_noise(name):
    action, padding, _ = CASES[name]
    density = augmented(action, padding)
    x, noise = points(4, *action.event_shape), points(3, 4, *padding.event_shape, seed=1)
    with torch.no_grad():
        here = density._weights_of_noise(x, noise)
        for element in [*action.generators(), *action.sample(3, torch.Generator().manual_seed(0))]:
            there = density._weights_of_noise(action.act(element, x), padding.act(element, noise))
            torch.testing.assert_close(there, here, rtol=1e-10, atol=1e-10)
    assert (here[0] - here[1]).abs().max() > 1e-3


def test_under_a_continuous_group_the_estimate_is_invariant_within_its_error():
    circle = VectorAction.plane("SO(2)")
    x, element = points(10, 2), circle.sample((), torch.Generator().manual_seed(3))
    errors = []
    for draws in (16, 512):
        density = augmented(circle, circle, draws=draws)
        with torch.no_grad():
            errors.append(float((density(circle.act(element, x)) - density(x)).abs().mean()))
    assert 0 < errors[1] < errors[0] / 3
    assert "images" not in repr(density).splitlines()[0]


def test_draws_are_stated_and_other_seeds_give_other_draws():
    assert augmented(draws=20).draws == 16  # a multiple of the 8 images
    assert augmented(draws=1).draws == 8
    x = points(5, 2)
    with torch.no_grad():
        assert (augmented(seed=0)(x) - augmented(seed=1)(x)).abs().max() > 1e-4
    state = torch.get_rng_state()
    augmented()
    torch.set_rng_state(state)
    augmented_state = augmented()
    before = torch.get_rng_state()
    augmented_state(x)
    assert torch.equal(torch.get_rng_state(), before)  # an evaluation draws nothing from the global generator


def test_many_draws_are_scored_in_parts(monkeypatch):
    density, x = augmented(), points(5, 2)
    with torch.no_grad():
        expected = density(x)
        monkeypatch.setattr("pyro_gflows.flows.padding_noise._AT_ONCE", 95)
        torch.testing.assert_close(density(x), expected, rtol=0, atol=1e-12)


def test_draws_are_those_of_the_padded_flow_without_the_padding():
    density = augmented()
    torch.manual_seed(0)
    padded = density.flow.dist.sample((4, 5))
    torch.manual_seed(0)
    assert torch.equal(density.sample((4, 5)), padded[..., :2])
    images = augmented(*CASES["images of C4"][:2])
    assert images.sample((3,)).shape == (3, 1, 2, 2)


def test_draws_have_the_density_of_the_estimate():
    """The mean of log p over draws is minus the entropy, here by quadrature."""
    density = augmented(draws=256, scale=0.04)  # all of it lies on the grid below
    torch.manual_seed(0)
    x = density.sample((400,))
    scores = log_probs(density, x)
    line = torch.linspace(-6, 6, 21, dtype=torch.float64)
    log_p = by_quadrature(density, torch.cartesian_prod(line, line), limit=7.0, count=29)
    cell = (12 / 20) ** 2
    assert float(log_p.exp().sum() * cell) == pytest.approx(1, abs=1e-3)
    entropy = -float((log_p.exp() * log_p).sum() * cell)
    assert -float(scores.mean()) == pytest.approx(entropy, abs=4 * float(scores.std()) / 20)


# -- as a model and a guide of Pyro ------------------------------------------------------------------------------------
def test_the_elbo_of_model_and_guide_is_the_bound():
    density, x = augmented().train(), points(30, 2)
    torch.manual_seed(0)
    expected = -density(x).sum()
    torch.manual_seed(0)
    elbo = Trace_ELBO().differentiable_loss(density.model, density.guide, x)
    torch.testing.assert_close(elbo, expected)
    names = [name for name, _ in density.named_parameters()]
    gradients = [torch.autograd.grad(loss, list(density.parameters()), allow_unused=True) for loss in (elbo, expected)]
    for name, first, second in zip(names, *gradients, strict=True):
        assert first is not None, name
        torch.testing.assert_close(first, second)


def test_particles_are_vectorized_and_weighted():
    density, x = augmented(), points(5, 2)
    with torch.no_grad():
        torch.manual_seed(0)
        many = Trace_ELBO(num_particles=500, vectorize_particles=True, max_plate_nesting=1)
        sums = -density.log_weights(x, 4000).sum(-1)
        error = float(sums.std()) / 500**0.5
        assert many.loss(density.model, density.guide, x) == pytest.approx(float(sums.mean()), abs=4 * error)
    weighted = RenyiELBO(alpha=0, num_particles=500, vectorize_particles=True, max_plate_nesting=1)
    bound = -density.importance_bound(x, draws=500).sum()
    assert weighted.loss(density.model, density.guide, x) == pytest.approx(float(bound), abs=0.6)


def test_svi_trains_both_flows():
    pyro.clear_param_store()
    density, x = augmented(scale=0.1).train(), points(64, 2) * torch.tensor([0.3, 2.0], dtype=torch.float64)
    x = PLANE.act(2, x) * 1.0
    before = {name: p.detach().clone() for name, p in density.named_parameters()}
    svi = SVI(density.model, density.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(25)]
    assert sum(losses[-5:]) < sum(losses[:5]) - 10
    unchanged = [name for name, p in density.named_parameters() if torch.equal(p, before[name])]
    assert not unchanged
    pyro.clear_param_store()


# -- in training, evaluation and files ---------------------------------------------------------------------------------
def test_fit_trains_the_bound_and_validates_the_estimate():
    density, x = augmented(scale=0.1, draws=16).float(), (0.2 * points(200, 2)).float()
    x = PLANE.act_each(torch.randint(8, (200,), generator=torch.Generator().manual_seed(0)), x + torch.tensor([1.0, 0]))
    before = nll(density, x)
    settings = FitSettings(40, batch_size=64, optimizer=Adam(lr=1e-2), validation=Validation(every=20))
    result = fit(density, x, settings=settings, validation=x[:100], progress=False)
    after = nll(density, x)
    assert after < before - 0.05
    assert not density.training
    assert result.log_det_error.is_exact
    with torch.no_grad():
        assert_invariant(density, PLANE, x[:4], tol=1e-4)


def test_it_is_saved_and_loaded(tmp_path):
    density, x = augmented(draws=24, seed=3), points(5, 2)
    save(density, tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, AugmentedFlow) and isinstance(loaded, VariationalFlow)
    assert loaded.draws == density.draws == 24
    with torch.no_grad():
        assert torch.equal(loaded(x), density(x))
    assert repr(loaded) == repr(density)


def test_data_dependent_layers_are_set_from_x():
    density, x = augmented(), 5 * points(1000, 2)
    density.initialize(x)
    torch.manual_seed(1)
    inner = density.flow.transform.inv(density._joined(x, density.encoder.condition(x).sample()))
    with torch.no_grad():
        assert inner.std() < 3


BAD = {
    "no flow": (lambda: augment("flow", padding=PLANE), TypeError, "an EquivariantFlow, got str"),
    "no padding": (
        lambda: augment(augmented().flow, padding=2),
        TypeError,
        "LinearAction on the padding a, .* got int",
    ),
    "other fields": (
        lambda: augment(augmented().flow, padding=VectorAction.trivial("D4")),
        ValueError,
        r"last fields are those of the padding, VectorAction\(D4 on R\^1.*action.direct_sum\(padding\)",
    ),
    "nothing left": (
        lambda: augment(augmented().flow, padding=VectorAction.plane("D4", copies=2)),
        ValueError,
        "at least one field of x",
    ),
    "no context": (
        lambda: augment(augmented().flow, padding=augmented().flow),
        ValueError,
        r"a conditional flow q\(a \| x\) of the padding",
    ),
    "another padded space": (
        lambda: AugmentedFlow(augmented().flow, g_padding(PLANE, VectorAction.trivial("D4"))),
        ValueError,
        "a flow of the padded events of .*R.3.* got one of .*R.4",
    ),
    "a flow with a context": (
        lambda: augment(g_padding(PLANE, VectorAction.plane("D4", copies=2)), padding=PLANE),
        ValueError,
        "without a context, got one that takes",
    ),
    "draws": (lambda: augmented(draws=0), ValueError, "draws >= 1, got 0"),
    "layers": (lambda: g_padding(PLANE, PLANE, layers=-1), ValueError, "layers >= 0, got -1"),
    "events of the padded space": (lambda: augmented()(points(5, 4)), ValueError, r"x of shape \(\.\.\., 2\)"),
    "learned noise": (
        lambda: fit(
            augmented(),
            points(50, 2),
            dequantize=g_dequantizer(ImageAction("D4", size=4), _levels(), blocks=0),
            progress=False,
        ),
        TypeError,
        "an EquivariantFlow where noise is learned too, got AugmentedFlow",
    ),
}


def _levels():
    from pyro_gflows.datasets import GrayLevels

    return GrayLevels(17)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()
