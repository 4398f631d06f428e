"""AutoGFlow: exactly invariant, inside Pyro's machinery, and what its set-up finds."""

import copy
import io
import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow, guide_transforms, log_joint_invariance
from pyro_gflows.transforms import g_autoregressive, g_residual
from tests.guides.models import (
    FACTORS,
    LABELS,
    ROWS,
    factor_data,
    factor_model,
    mixture,
    mixture_data,
    plain_mixture,
)


def small(action):
    return guide_transforms(action, steps=2, width=4)


def mixture_guide(dtype=torch.float32, **options):
    return AutoGFlow(mixture, LABELS, args=(mixture_data(dtype),), check="raise", **{"transforms": small, **options})


def factor_guide(**options):
    return AutoGFlow(factor_model, FACTORS, args=(factor_data(),), check="raise", **{"transforms": small, **options})


def train(guide, model, data, steps, *, lr=5e-3, particles=8, elbo=Trace_ELBO):
    optimizer = pyro.optim.Adam({"lr": lr})
    svi = SVI(model, guide, optimizer, elbo(num_particles=particles, vectorize_particles=True, max_plate_nesting=1))
    return [svi.step(data) for _ in range(steps)]


def asymmetry(guide, z):
    action = guide.vector_action
    return max((guide.flow(action.act(g, z)) - guide.flow(z)).abs().max().item() for g in action.elements())


@pytest.mark.long
@pytest.mark.parametrize("steps", [0, 20])
def test_no_relabeling_changes_the_density(dtype, steps):
    guide = mixture_guide(dtype)
    train(guide, mixture, mixture_data(dtype), steps)
    z = guide.flow.dist.sample((50,)).clone()
    assert z.dtype == dtype and asymmetry(guide, z) <= (1e-5 if dtype == torch.float32 else 1e-10)


@pytest.mark.long
def test_the_density_of_the_sites_does_not_change_either():
    """Simplex and positive sites included: what Pyro scores is invariant, not only the flow."""
    guide = mixture_guide(torch.float64)
    drawn = poutine.trace(guide).get_trace(mixture_data(torch.float64))
    latent = drawn.nodes["_AutoGFlow_latent"]["value"].detach().clone()
    total = drawn.log_prob_sum()
    values = {name: drawn.nodes[name]["value"] for name in LABELS.sites}
    for element in LABELS.elements():
        image = guide.vector_action.act(element, latent)
        again = poutine.trace(poutine.condition(guide, {"_AutoGFlow_latent": image})).get_trace()
        for name, value in LABELS.act(element, values).items():
            torch.testing.assert_close(again.nodes[name]["value"], value)
        torch.testing.assert_close(again.log_prob_sum(), total, rtol=0, atol=1e-10)


@pytest.mark.long
def test_sign_flips_of_factors():
    guide = factor_guide()
    losses = train(guide, factor_model, factor_data(), 60, particles=16)
    assert sum(losses[-10:]) < sum(losses[:10])
    assert asymmetry(guide, guide.flow.dist.sample((50,)).clone()) <= 1e-5
    draws = Predictive(factor_model, guide=guide, num_samples=2000, parallel=True)(factor_data())["loadings"]
    assert draws.mean(0).abs().max() < 0.15


@pytest.mark.long
def test_a_continuous_group_turns_loadings_and_scores():
    turns = SitesAction(
        "O(2)", {"loadings": VectorAction.plane("O(2)", copies=3), "scores": VectorAction.plane("O(2)", copies=4)}
    )
    guide = AutoGFlow(factor_model, turns, args=(factor_data(),), check="raise", transforms=small)
    train(guide, factor_model, factor_data(), 3)
    z = guide.flow.dist.sample((20,)).clone()
    g = guide.vector_action.sample((20,))
    torch.testing.assert_close(guide.flow(guide.vector_action.act_each(g, z)), guide.flow(z), rtol=0, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_svi_improves_the_bound(elbo):
    guide = mixture_guide()
    losses = train(guide, mixture, mixture_data(), 100, lr=1e-2, elbo=elbo)
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 5


@pytest.mark.parametrize(
    "transforms",
    [
        lambda action: [g_autoregressive(action, width=2, depth=1, fast="sample")],
        lambda action: [g_residual(action, fast="sample")],
    ],
    ids=["autoregressive", "residual"],
)
def test_takes_other_families_and_bases(transforms):
    guide = mixture_guide(transforms=transforms, base=lambda action: InvariantNormal(action, covariance="full"))
    before = {name: value.detach().clone() for name, value in guide.named_parameters()}
    train(guide, mixture, mixture_data(), 2)
    assert [
        name for name, value in guide.named_parameters() if value.numel() and torch.equal(value, before[name])
    ] == []


def test_parameters_exist_before_the_first_step_and_are_those_that_train():
    guide = mixture_guide()
    names = {name for name, _ in guide.named_parameters()}
    assert names
    train(guide, mixture, mixture_data(), 1)
    assert {name for name, _ in guide.named_parameters()} == names
    assert {key.replace("$$$", ".").removeprefix("AutoGFlow.") for key in pyro.get_param_store()} == names


@pytest.mark.long
def test_weights_go_into_a_fresh_guide():
    first = mixture_guide()
    train(first, mixture, mixture_data(), 3)
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    pyro.clear_param_store()
    second = mixture_guide()
    z = first.flow.dist.sample((5,)).clone()
    assert not torch.equal(second.flow(z), first.flow(z))
    second.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(second.flow(z), first.flow(z))
    assert first.flow.config() == second.flow.config()


@pytest.mark.long
def test_predictive_draws_in_parallel_what_it_draws_one_by_one():
    guide = mixture_guide()
    for parallel in (False, True):
        predictive = Predictive(mixture, guide=guide, num_samples=7, parallel=parallel, return_sites=[*LABELS.sites])
        draws = predictive(mixture_data())
        assert all(value.reshape(7, -1).shape[-1] == 3 for value in draws.values())
        torch.testing.assert_close(draws["weights"].sum(-1).flatten(), torch.ones(7))
        assert len(torch.unique(draws["means"])) == 21


@pytest.mark.long
def test_joins_a_list_of_guides():
    guide = AutoGuideList(mixture)
    data = mixture_data()
    labels = SitesAction("S3", {"means": ROWS, "scales": ROWS})
    guide.append(AutoNormal(poutine.block(mixture, expose=["weights"])))
    guide.append(
        AutoGFlow(poutine.block(mixture, hide=["weights"]), labels, args=(data,), transforms=small, check="skip")
    )
    losses = train(guide, mixture, data, 3)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert set(guide(data)) == {"weights", "means", "scales"}


def test_plates_hold_sites():
    def model():
        with pyro.plate("components", 3):
            means = pyro.sample("means", dist.Normal(0.0, 2.0))
        pyro.sample("x", dist.Normal(means.square().sum(-1), 1.0), obs=torch.tensor(2.0))

    guide = AutoGFlow(model, SitesAction("S3", {"means": ROWS}), transforms=small, check="raise")
    trace = poutine.trace(guide).get_trace()
    assert [frame.name for frame in trace.nodes["means"]["cond_indep_stack"]] == ["components"]
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step()


def test_copies_have_the_same_density():
    guide = mixture_guide()
    z = torch.randn(4, 8)
    expected = guide.flow(z)
    assert torch.equal(copy.deepcopy(guide).flow(z), expected)


# -- what the set-up finds --------------------------------------------------------------------------------------------
@pytest.mark.long
def test_a_prior_that_distinguishes_components_is_named():
    def ordered(x):
        means = pyro.sample("means", dist.Normal(torch.tensor([-1.0, 0.0, 1.0]), 5.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(means.sum(-1, keepdim=True), 1.0), obs=x)

    action = SitesAction("S3", {"means": ROWS})
    message = r"log-joint is not invariant: group element \d changes it by .* nats .* most of all at site 'means'"
    with pytest.warns(UserWarning, match=message):
        AutoGFlow(ordered, action, args=(mixture_data(),), transforms=small)
    with pytest.raises(ValueError, match=message):
        AutoGFlow(ordered, action, args=(mixture_data(),), transforms=small, check="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AutoGFlow(ordered, action, args=(mixture_data(),), transforms=small, check="skip")


def test_a_likelihood_that_distinguishes_components_is_named():
    only_means = SitesAction("S3", {"means": ROWS})
    with pytest.warns(UserWarning, match="most of all at site 'x'"):
        AutoGFlow(mixture, only_means, args=(mixture_data(),), transforms=small)


def test_sites_that_the_guide_does_not_see_make_the_check_impossible():
    def model(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(means[label], 1.0), obs=x)

    def summed(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), dist.Normal(means, 1.0)), obs=x)

    action, options = SitesAction("S3", {"means": ROWS}), {"args": (mixture_data(),), "transforms": small}
    hidden = poutine.block(model, hide=["label"])
    with pytest.warns(UserWarning, match="could not be checked .*discrete ones .* pass joint="):
        AutoGFlow(hidden, action, **options)
    AutoGFlow(hidden, action, joint=summed, check="raise", **options)


def test_minibatches_are_held_fixed_by_the_check():
    def model(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=4) as index:
            components = dist.Normal(means, 1.0)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), components), obs=x[index])

    action = SitesAction("S3", {"means": ROWS})
    AutoGFlow(model, action, args=(mixture_data(),), transforms=small, check="raise")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: AutoGFlow(plain_mixture, LABELS, args=(mixture_data(),)),
            ValueError,
            r"site 'weights': .* only 2 of them are free .* poutine.reparam\(model, config={'weights': LogRatioReparam",
        ),
        (
            lambda: AutoGFlow(
                factor_model,
                SitesAction("C2", {"noise": VectorAction([VectorAction.plane("C2").fields[0]])}),
                args=(factor_data(),),
            ),
            ValueError,
            r"site 'noise': expected 2 components, as in its action VectorAction\(C2 .*, but the model's value has 1",
        ),
        (
            lambda: AutoGFlow(
                mixture,
                SitesAction("D1", {"scales": VectorAction.plane("D1").direct_sum(VectorAction.trivial("D1"))}),
                args=(mixture_data(),),
            ),
            ValueError,
            r"site 'scales': .* does not commute with .* \(off by .* at group element 1\); give the site",
        ),
        (
            lambda: AutoGFlow(mixture, SitesAction("S3", {"mean": ROWS}), args=(mixture_data(),)),
            ValueError,
            r"the action names \['mean'\], but the latent sites of the model are \['weights', 'means', 'scales'\]",
        ),
        (
            lambda: AutoGFlow(mixture, LABELS),
            TypeError,
            r"pass the model's arguments as AutoGFlow\(model, action, args",
        ),
        (lambda: AutoGFlow(mixture, ROWS), TypeError, "expected a SitesAction"),
        (lambda: AutoGFlow(mixture, LABELS, check="maybe"), ValueError, "'warn', 'raise' or 'skip', got 'maybe'"),
    ],
)
def test_bad_input_says_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


# -- reading the posterior --------------------------------------------------------------------------------------------
@pytest.mark.long
def test_medians_are_given_for_what_the_group_leaves_alone():
    guide = factor_guide()
    median = guide.median(sites=["noise"])["noise"]
    low, middle, high = guide.quantiles([0.1, 0.5, 0.9], sites=["noise"])["noise"]
    torch.testing.assert_close(median, middle, rtol=0.1, atol=0)
    assert 0 < low < middle < high
    with pytest.raises(ValueError, match=r"\['loadings', 'scores'\], .*orbit_representative.* sites=\['noise'\]"):
        guide.median()
    with pytest.raises(ValueError, match=r"expected sites among .* got \['sigma'\]"):
        guide.quantiles([0.5], sites=["sigma"])


def test_draws_of_a_guide_are_relabeled():
    guide = mixture_guide()
    draws = Predictive(mixture, guide=guide, num_samples=50, parallel=True, return_sites=[*LABELS.sites])(
        mixture_data()
    )
    relabeled = guide.orbit_representative(draws)
    assert {name: value.shape for name, value in relabeled.items()} == {
        name: value.shape for name, value in draws.items()
    }
    torch.testing.assert_close(relabeled["means"].sort(-1).values, draws["means"].sort(-1).values)


def test_points_where_all_images_are_impossible_break_no_symmetry():
    def model():
        means = pyro.sample("means", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("wall", torch.where(means.sum() > 0, 0.0, -float("inf")))

    rows = SitesAction("S2", {"means": VectorAction.rows("S2")})
    points = [{"means": torch.tensor([-1.0, -2.0])}, {"means": torch.tensor([1.0, 2.0])}]
    assert log_joint_invariance(model, rows, points).is_invariant

    def lopsided():
        means = pyro.sample("means", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("wall", torch.where(means[0] > 0, 0.0, -float("inf")))

    report = log_joint_invariance(lopsided, rows, [{"means": torch.tensor([1.0, -2.0])}])
    assert not report.is_invariant and report.site == "wall"


def signed_scalar():
    """A number of shape () of either sign, and a vector that changes sign with it."""
    scale = pyro.sample("scale", dist.Normal(0.0, 1.0))
    slopes = pyro.sample("slopes", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(scale[..., None] * slopes, 0.5).to_event(1), obs=torch.tensor([1.0, -2.0]))


def lone_scalar():
    scale = pyro.sample("scale", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(scale.square(), 0.5), obs=torch.tensor(1.0))


@pytest.mark.parametrize(
    ("model", "action"),
    [
        (signed_scalar, SitesAction.from_generators([{"scale": [[-1]], "slopes": [[-1, 0], [0, -1]]}])),
        (lone_scalar, SitesAction("C2", {"scale": VectorAction.signs(1)})),
    ],
)
def test_the_group_acts_on_a_site_of_shape_nothing(model, action):
    guide = AutoGFlow(model, action, check="raise")
    one = guide()
    assert one["scale"].shape == ()
    assert guide.orbit_representative(one)["scale"].shape == ()
    with pyro.plate("draws", 40, dim=-1):
        drawn = guide()
    relabeled = guide.orbit_representative(drawn)
    assert relabeled["scale"].shape == (40,) and relabeled["scale"].requires_grad
    torch.testing.assert_close(relabeled["scale"].abs(), drawn["scale"].abs())
    Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=0).loss(model, guide)


@pytest.mark.parametrize("group", ["C1", "S3"])
@pytest.mark.long
def test_quantiles_of_a_site_that_no_element_changes(group):
    action = SitesAction(group, {"slopes": VectorAction.trivial(group, copies=2)})
    guide = AutoGFlow(signed_scalar, action, check="raise")
    found = guide.quantiles([0.1, 0.9])
    assert found["slopes"].shape == (2, 2) and found["scale"].shape == (2,)
    assert (found["slopes"][0] < found["slopes"][1]).all()
    assert guide.median(sites=["slopes"])["slopes"].shape == (2,)


def test_sites_that_are_named_but_left_unchanged_are_offered_for_quantiles():
    action = SitesAction("S2", {"slopes": VectorAction.rows("S2"), "scale": VectorAction.trivial("S2")})
    guide = AutoGFlow(signed_scalar, action, check="skip")
    with pytest.raises(ValueError, match=r"acts on \['slopes'\].*or ask for sites=\['scale'\], which the group leaves"):
        guide.quantiles([0.5])


@pytest.mark.long
def test_svi_on_images_of_one_flow_warns_of_nothing(recwarn):
    data = mixture_data()
    guide = AutoGFlow(mixture, LABELS, args=(data,), base=lambda action: OrbitFlow(action, steps=2, width=4))
    svi = SVI(mixture, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    before = guide.flow.transform(torch.ones(8))
    for _ in range(2):
        svi.step(data)
    assert not recwarn.list
    assert torch.equal(guide.flow.transform(torch.ones(8)), before)  # what is behind the base stays the identity
    assert {"flow.transform.parts.0.log_scale", "flow.transform.parts.0.shift"} <= set(guide.state_dict())


@pytest.mark.long
def test_a_guide_trains_where_the_data_are(device):
    x = mixture_data().to(device)
    guide = AutoGFlow(mixture, LABELS, args=(x,), transforms=small)
    svi = SVI(mixture, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    before = [parameter.detach().clone() for parameter in guide.parameters()]
    losses = [svi.step(x) for _ in range(2)]
    assert all(map(math.isfinite, losses))
    assert any((old != new).any() for old, new in zip(before, guide.parameters(), strict=True))
    assert {value.device.type for value in [*guide(x).values(), *guide.parameters()]} == {device.type}
