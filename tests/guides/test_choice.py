"""The base that a guide chooses, and guides on it: for groups of any size as for small ones."""

import logging

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from pyro.infer.reparam import NeuTraReparam

from pyro_gflows import Canonicalized, GActNorm, InvariantNormal, OrbitFlow, RowsAction, SitesAction, VectorAction
from pyro_gflows.evaluation import importance_report
from pyro_gflows.guides import AutoGFlow, LogRatioReparam, random_images
from pyro_gflows.guides.choice import chosen_base, nearest_other_image
from pyro_gflows.guides.near_elements import near_elements
from pyro_gflows.guides.start import Mode
from pyro_gflows.training import FitSettings, fit_energy
from tests.guides.models import LABELS, mixture, mixture_data

K = 8
ROWS = RowsAction(K)
EIGHT = SitesAction(ROWS.group, {"means": ROWS, "weights": ROWS, "scales": ROWS})


def at(location, deviation=1.0):
    """A search that finds a mode at a point, with independent coordinates of one standard deviation."""
    location = torch.as_tensor(location)
    return lambda: (location, deviation * torch.eye(len(location)))


def eight_data():
    centers = 4.0 * torch.arange(K).float().repeat(5)
    return centers + 0.5 * torch.randn(len(centers), generator=torch.Generator().manual_seed(0))


def plain_eight(x):
    like = x.new_ones(K)
    weights = pyro.sample("weights", dist.Dirichlet(2 * like))
    means = pyro.sample("means", dist.Normal(14.0 * like, 10.0).to_event(1))
    scales = pyro.sample("scales", dist.LogNormal(-0.5 * like, 0.5).to_event(1))
    components = dist.Normal(means[..., None, :], scales[..., None, :])
    each = dist.MixtureSameFamily(dist.Categorical(weights[..., None, :]), components)
    pyro.sample("x", each.expand([*weights.shape[:-1], len(x)]).to_event(1), obs=x)


eight = poutine.reparam(plain_eight, config={"weights": LogRatioReparam()})


def signs_model():
    """Twelve factors whose signs are free, and a noise scale."""
    z = pyro.sample("z", dist.Normal(torch.zeros(12), 2.0).to_event(1))
    noise = pyro.sample("noise", dist.LogNormal(0.0, 0.2))
    pyro.sample("x", dist.Normal(z.abs(), noise[..., None]).to_event(1), obs=torch.linspace(1.0, 4.0, 12))


# -- the rule ----------
def test_the_distance_to_the_nearest_other_image_decides():
    action = VectorAction.rows("S3")
    for mode, kind in [
        ([0.0, 0.2, 9.0], InvariantNormal),
        ([0.0, 1.0, 9.0], Canonicalized),
        ([0.0, 4.0, 9.0], OrbitFlow),
    ]:
        chosen = chosen_base(action, None, None, find=at(mode))
        distance = 2**0.5 * mode[1]
        assert type(chosen.base) is kind
        assert (
            chosen.reason == f"the nearest other image of the mode is {distance:.1f} Laplace standard deviations away"
        )
        assert (chosen.mode is None) == (kind is InvariantNormal)


def test_the_thresholds_are_half_and_four_standard_deviations_and_720_elements():
    action = VectorAction.signs(2)
    for gap, kind in [(0.24, InvariantNormal), (0.26, Canonicalized), (1.99, Canonicalized), (2.01, OrbitFlow)]:
        assert type(chosen_base(action, None, None, find=at([gap, 9.0])).base) is kind
    six, seven = RowsAction(6), RowsAction(7)
    assert type(chosen_base(six, None, None, find=at(9.0 * torch.arange(6))).base) is OrbitFlow
    assert type(chosen_base(seven, None, None, find=at(9.0 * torch.arange(7))).base) is Canonicalized
    ten = VectorAction.signs(10)  # 1,024 elements that can be listed
    assert type(chosen_base(ten, None, None, find=at(9.0 * torch.ones(10))).base) is Canonicalized


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (VectorAction.trivial("C1", copies=2), "the group is trivial"),
        (VectorAction.plane("O(2)"), "the group is continuous"),
        (VectorAction.quotient("S3", [0, 3, 4]).direct_sum(VectorAction.regular("S3")), None),
        (VectorAction.from_generators([[1, 2, 3, 0]]), "no canonical form is known for this group"),
    ],
)
def test_without_a_canonical_form_no_mode_is_searched_for(action, reason):
    if reason is None:
        assert type(chosen_base(action, None, None, find=at(3.0 * torch.arange(8.0))).base) is not InvariantNormal
        return
    chosen = chosen_base(action, None, None, find=lambda: pytest.fail("there is no need of a mode"))
    assert type(chosen.base) is InvariantNormal and chosen.reason == reason


def test_what_the_user_names_is_taken():
    action = VectorAction.rows("S3")
    no_search = lambda: pytest.fail("there is no need of a mode")  # noqa: E731
    assert type(chosen_base(action, Canonicalized, None, find=no_search).base) is Canonicalized
    assert type(chosen_base(action, None, list, find=no_search).base) is InvariantNormal


def test_a_mode_that_cannot_be_found_gives_the_symmetric_flow():
    def fail():
        raise ValueError("the log-density is finite nowhere")

    chosen = chosen_base(VectorAction.rows("S3"), None, None, find=fail)
    assert type(chosen.base) is InvariantNormal and "finite nowhere" in chosen.reason


# -- nearest images ----------
@pytest.mark.parametrize(
    "action",
    [RowsAction(4, 2), RowsAction(3, 2, signed=True), RowsAction(3, 2, signed=[0]), VectorAction.signs(4)],
    ids=["S4", "signed S3", "signed S3, one odd", "C2^4"],
)
def test_the_nearest_image_is_that_of_all_elements(action):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        z = 3.0 * torch.randn(action.numel, generator=generator)
        root = torch.eye(action.numel) + 0.1 * torch.randn(action.numel, action.numel, generator=generator)
        factor = torch.linalg.cholesky(root @ root.T)
        steps = torch.linalg.solve(factor, (action.act_all(z) - z).T).norm(dim=0)
        exact = steps[steps > 1e-3].min()
        assert nearest_other_image(action, z, factor) == pytest.approx(float(exact), rel=1e-4)


def test_near_elements_of_large_groups():
    rows = RowsAction(20, 2, signed=True)
    elements = near_elements(rows.group)
    assert len(elements) == 2 * 190 + 20
    z = (10.0 * torch.arange(20)[:, None] + torch.tensor([1.0, 2.0])).flatten()  # the first row is small
    assert nearest_other_image(rows, z, torch.eye(40)) == pytest.approx(2 * (1 + 4) ** 0.5)
    blocks = RowsAction((9, 8), 1)
    assert len(near_elements(blocks.group)) == 36 + 28
    assert nearest_other_image(blocks, torch.arange(17.0), torch.eye(17)) == pytest.approx(2**0.5)


# -- guides ----------
@pytest.mark.long
def test_a_guide_tells_its_choice_and_leaves_the_random_state(caplog):
    pyro.set_rng_seed(0)
    with caplog.at_level(logging.INFO, logger="pyro_gflows"):
        guide = AutoGFlow(mixture, LABELS, args=(mixture_data(),), check="raise")
    assert isinstance(guide.flow.base, OrbitFlow)
    assert guide.base_choice.startswith("the nearest other image of the mode is ")
    assert f"base: OrbitFlow ({guide.base_choice})" in repr(guide)
    assert [record.message for record in caplog.records][-1].endswith(guide.base_choice)
    named = AutoGFlow(mixture, LABELS, args=(mixture_data(),), check="skip", base=InvariantNormal)
    assert isinstance(named.flow.base, InvariantNormal) and named.base_choice == ""
    assert "base: InvariantNormal\n" in repr(named)


@pytest.fixture(scope="module")
def guide_of_eight():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    guide = AutoGFlow(eight, EIGHT, args=(eight_data(),), check="raise")
    settings = FitSettings(steps=30, batch_size=32)
    report = fit_energy(guide.flow, guide.log_density(eight_data()), settings=settings, progress=False)
    return guide, report


@pytest.mark.long
def test_a_mixture_of_eight_components(guide_of_eight):
    guide, report = guide_of_eight
    assert isinstance(guide.flow.base, Canonicalized) and guide.flow.base.order == 40320
    assert report.reverse_kl < 1.5
    z = guide.flow.dist.sample((1000,)).clone()
    images = guide.vector_action.act_each(guide.vector_action.sample(1000), z)
    assert (guide.flow(images) - guide.flow(z)).abs().max() < 1e-4
    log_joint = guide.log_density(eight_data())
    weights = (log_joint(z) - guide.flow(z)).detach()
    assert importance_report(weights).ess > 0.05


@pytest.mark.long
def test_draws_of_a_large_group_are_read_off(guide_of_eight):
    guide, _ = guide_of_eight
    draws = guide.draw(400)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "weights": (400, 8),
        "means": (400, 8),
        "scales": (400, 8),
    }
    assert draws["means"].mean(0).std() < 3.0  # every order is as likely
    sorted_draws = guide.orbit_representative(draws)
    assert sorted_draws["means"].std(0).max() < 1.0
    assert (sorted_draws["means"].mean(0) - 4.0 * torch.arange(8)).abs().max() < 1.0
    predicted = Predictive(eight, guide=guide, num_samples=5)(eight_data())
    assert predicted["means"].shape == (5, 8)


@pytest.mark.long
def test_neutra_works_in_the_coordinates_of_canonical_forms(guide_of_eight):
    guide, _ = guide_of_eight
    neutra = NeuTraReparam(guide)
    warped = neutra.reparam(eight)
    latent = guide.get_base_dist().sample((4,))
    assert latent.shape == (4, 23)
    scores = []
    for z in latent:
        trace = poutine.trace(poutine.condition(warped, {"weights_shared_latent": z})).get_trace(eight_data())
        scores.append(trace.log_prob_sum().detach())
    event, ladj = guide.get_transform().call_and_ladj(latent)
    expected = guide.log_density(eight_data())(event) + ladj
    torch.testing.assert_close(torch.stack(scores), expected.detach(), rtol=1e-4, atol=1e-2)
    sites = neutra.transform_sample(latent)
    assert bool((sites["means"].diff(dim=-1) != 0).all())
    forms = guide.flow.base.canonical_form(event)
    torch.testing.assert_close(forms, event)
    images = random_images(sites, EIGHT)
    assert not torch.equal(images["means"], sites["means"])
    torch.testing.assert_close(images["means"].sort(-1).values, sites["means"].sort(-1).values)


def test_layers_after_canonical_forms_are_the_users_own_decision():
    def model():
        pyro.sample("a", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))

    action = SitesAction("S3", {"a": VectorAction.rows("S3", features=2)})
    with pytest.warns(UserWarning, match="trainable layer after it"):
        guide = AutoGFlow(model, action, base=Canonicalized, transforms=lambda action: [GActNorm(action)])
    assert guide.get_base_dist() is guide.flow.base and guide.get_transform() is guide.flow.transform


@pytest.mark.long
def test_twelve_signs():
    pyro.set_rng_seed(0)
    signs = VectorAction.signs(12)
    guide = AutoGFlow(signs_model, SitesAction(signs.group, {"z": signs}), check="raise")
    assert isinstance(guide.flow.base, Canonicalized)
    draws = guide.draw(500)
    assert draws["z"].mean(0).abs().max() < 0.6 and draws["noise"].shape == (500,)
    relabeled = guide.orbit_representative(draws)["z"]
    assert (relabeled.mean(0).abs() - torch.linspace(1.0, 4.0, 12)).abs().max() < 0.6


def test_draws_have_the_dimensions_of_plates_and_no_others():
    def model():
        with pyro.plate("groups", 3, dim=-2):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("one", 1, dim=-1), pyro.plate("of each", 2, dim=-3):
            pyro.sample("b", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(a.sum(), 1.0), obs=torch.tensor(0.0))

    guide = AutoGFlow(model, SitesAction("S3", {"a": VectorAction.rows("S3")}), base=InvariantNormal)
    shapes = {name: tuple(value.shape) for name, value in guide.draw(7).items()}
    assert shapes == {"a": (7, 3), "b": (7, 2, 1, 4)}
    assert not guide.draw(2)["a"].requires_grad


def test_the_distance_is_in_deviations_of_laplace_where_the_normal_at_the_mode_is_narrower():
    action = VectorAction.rows("S2")
    wide = chosen_base(action, None, None, find=lambda: Mode(torch.tensor([0.0, 3.0]), 0.1 * torch.eye(2), 0.1))
    assert "4.2 Laplace" in wide.reason and torch.equal(wide.mode[1], 0.1 * torch.eye(2))
    narrow = chosen_base(action, None, None, find=lambda: (torch.tensor([0.0, 3.0]), 0.1 * torch.eye(2)))
    assert "42.4 Laplace" in narrow.reason
