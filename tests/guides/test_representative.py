"""Relabeled draws: every draw replaced by one of its images, jointly over its sites, that matches the others."""

import pytest
import torch

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.guides import orbit_representative

ROWS = VectorAction.rows("S4")
ACTION = SitesAction("S4", {"means": ROWS, "locations": VectorAction.rows("S4", features=2)})


def test_shuffled_draws_come_back_in_one_order():
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([0.0, 2.0, 2.0, 5.0]) + 0.3 * torch.randn(400, 4, generator=generator)
    locations = torch.tensor([[0.0, 0], [3, 0], [-3, 0], [9, 9]]) + 0.3 * torch.randn(400, 4, 2, generator=generator)
    element = ACTION.sample((400,), generator)
    shuffled = {
        # with a batch dimension of a plate, as Predictive returns it
        "means": ACTION.act_on_site("means", element, means)[:, None],
        "locations": ACTION.act_on_site("locations", element, locations),
        "noise": torch.ones(400),
    }
    relabeled = orbit_representative(shuffled, ACTION)
    assert torch.equal(relabeled["noise"], shuffled["noise"])
    order = relabeled["means"][0, 0].sub(means[0, :, None]).abs().argmin(-1)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(relabeled["means"][:, 0][:, order], means)
    torch.testing.assert_close(relabeled["locations"][:, order], locations)
    assert relabeled["means"].mean((0, 1)).diff().min() > -0.1


@pytest.mark.long
def test_draws_are_relabeled_on_their_device(device):
    draws = {"means": shuffled_means(50), "locations": torch.randn(50, 4, 2)}
    expected = orbit_representative(draws, ACTION)
    relabeled = orbit_representative({name: values.to(device) for name, values in draws.items()}, ACTION)
    for name, values in relabeled.items():
        assert values.device.type == device.type
        torch.testing.assert_close(values.cpu(), expected[name])


def test_noisy_sites_do_not_hide_the_site_that_distinguishes_components():
    """Weights and scales that are all alike, up to noise, beside means that are far apart."""
    action = SitesAction("S3", {name: VectorAction.rows("S3") for name in ("means", "weights", "scales")})
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 1000, 3, generator=generator)
    draws = {
        "means": torch.tensor([-6.0, 0.0, 6.0]) + 0.2 * noise[0],
        "weights": 0.33 + 0.03 * noise[1],
        "scales": 1.0 + 0.1 * noise[2],
    }
    element = action.sample((1000,), generator)
    relabeled = orbit_representative({name: action.act_on_site(name, element, x) for name, x in draws.items()}, action)
    for name, x in draws.items():
        torch.testing.assert_close(relabeled[name], x)


def test_signs_come_back():
    action = SitesAction(VectorAction.signs(2).group, {"loadings": VectorAction.signs(2, copies=3)})
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(3, 2, generator=generator) + 0.1 * torch.randn(200, 3, 2, generator=generator)
    shuffled = action.act_on_site("loadings", action.sample((200,), generator), loadings)
    relabeled = orbit_representative({"loadings": shuffled}, action)["loadings"]
    torch.testing.assert_close(relabeled.abs(), loadings.abs())
    assert relabeled.std(0).max() < 0.15


@pytest.mark.parametrize(
    ("samples", "action", "message"),
    [
        ({"x": torch.zeros(3, 2)}, SitesAction("SO(2)", {"x": VectorAction.plane("SO(2)")}), "infinitely many"),
        ({"x": torch.zeros(3, 2)}, ACTION, r"expected draws of the sites \['means', 'locations'\], got \['x'\]"),
        ({"means": torch.zeros(3, 4), "locations": torch.zeros(2, 4, 2)}, ACTION, "same number of draws of each site"),
    ],
)
def test_bad_draws_say_what_was_expected(samples, action, message):
    with pytest.raises(ValueError, match=message):
        orbit_representative(samples, action)


def shuffled_means(*batch):
    return (torch.tensor([0.0, 2.0, 4.0, 6.0]) + 0.1 * torch.randn(*batch, 4))[..., torch.randperm(4)]


@pytest.mark.parametrize("batch", [(), (1,), (1, 1)], ids=str)
def test_one_draw_comes_back_as_the_smallest_of_its_images(batch):
    draw = {"means": shuffled_means(*batch), "locations": torch.randn(*batch, 4, 2)}
    relabeled = orbit_representative(draw, ACTION)
    order = draw["means"].flatten().argsort()
    torch.testing.assert_close(relabeled["means"], draw["means"][..., order])
    torch.testing.assert_close(relabeled["locations"], draw["locations"][..., order, :])


@pytest.mark.parametrize("batch", [(), (1,), (9,)], ids=str)
def test_draws_of_a_scalar_site(batch):
    action = SitesAction.from_generators([{"x": [[-1]]}])
    x = 3 + 0.1 * torch.randn(batch)
    relabeled = orbit_representative({"x": x * torch.randn(batch).sign()}, action)["x"]
    torch.testing.assert_close(relabeled, -x)  # the smaller of the two images of the mean


def test_no_draws_come_back_as_they_are():
    none = {"means": torch.zeros(0, 4), "locations": torch.zeros(0, 4, 2), "noise": torch.zeros(0)}
    relabeled = orbit_representative(none, ACTION)
    assert {name: value.shape for name, value in relabeled.items()} == {
        name: value.shape for name, value in none.items()
    }


@pytest.mark.parametrize("batch", [(), (1,), (50,)], ids=str)
def test_gradients_pass_through_the_chosen_element(batch):
    means = shuffled_means(*batch).requires_grad_()
    relabeled = orbit_representative({"means": means}, ACTION)["means"]
    assert torch.equal(relabeled.detach(), orbit_representative({"means": means.detach()}, ACTION)["means"])
    (relabeled * torch.arange(4.0)).sum().backward()
    order = means.detach().argsort(-1).argsort(-1)
    torch.testing.assert_close(means.grad, order.to(means))


def test_under_the_trivial_group_nothing_is_moved():
    draws = {"x": torch.randn(20, 3)}
    action = SitesAction("C1", {"x": VectorAction.trivial("C1", copies=3)})
    assert torch.equal(orbit_representative(draws, action)["x"], draws["x"])
