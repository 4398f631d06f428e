"""Relabeling of draws under large groups: by assignment of rows and sign by sign, as trying all elements would."""

import pytest
import torch

from pyro_gflows import RowsAction, SitesAction, VectorAction
from pyro_gflows.groups import SignGroup
from pyro_gflows.groups.sign_representation import SignRepresentation
from pyro_gflows.guides import orbit_representative, random_images
from pyro_gflows.guides.relabeling import _ByAssignment, _ByElements, _BySigns, relabeling_for

SMALL = {
    "S4, two sites": [RowsAction(4, 2), RowsAction(4, mean_free=True)],
    "signed S3, odd and even": [RowsAction(3, 2, signed=[1]), RowsAction(3, 1, signed=True)],
    "signed S3, even alone": [RowsAction(3, 2, signed=[])],
    "two blocks": [RowsAction((3, 2), 2), RowsAction((3, 2), 1, block=1)],
    "with scalars": [RowsAction(4, 2), RowsAction(4, 1).trivial_fields(2)],
}
LARGE = {
    "S8": {"means": RowsAction(8, 2), "weights": RowsAction(8, mean_free=True)},
    "signed S7": {"in": RowsAction(7, 3, signed=True), "scale": RowsAction(7, 1, signed=[])},
    "two blocks": {"a": RowsAction((7, 5), 2), "b": RowsAction((7, 5), 1, block=0)},
    "C2^12": {"loadings": VectorAction.signs(12, copies=3)},
}


def joint_of(sites):
    return SitesAction(sites[0].group, {str(index): site for index, site in enumerate(sites)}).vector_action


def random_normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", SMALL)
def test_assignment_finds_the_nearest_of_all_images(name):
    sites = SMALL[name]
    joint = joint_of(sites)
    by_assignment = _ByAssignment(sites, joint)
    x = random_normal(30, joint.numel)
    mean = random_normal(sum(by_assignment.view_sizes), seed=1)
    weights = random_normal(len(mean), seed=2).exp()
    chosen = by_assignment.nearest(x, mean, weights)
    views = torch.stack([by_assignment.view(images) for images in joint.act_all(x)])
    costs = ((views - mean).square() * weights).sum(-1)
    own = ((by_assignment.view(joint.act_each(chosen, x)) - mean).square() * weights).sum(-1)
    torch.testing.assert_close(own, costs.min(0).values)


def test_signs_one_by_one_find_the_nearest_of_all_images():
    action = VectorAction([SignRepresentation(SignGroup(4), index) for index in (0, 1, 2, 3, 0, 1)])
    by_signs, by_elements = (make([action], action) for make in (_BySigns, _ByElements))
    x, mean = random_normal(50, 6), random_normal(6, seed=1)
    weights = random_normal(6, seed=2).exp()
    assert torch.equal(by_signs.nearest(x, mean, weights), by_elements.nearest(x, mean, weights))
    for event in x:
        first = [action.act(relabeling.first(event), event) for relabeling in (by_signs, by_elements)]
        assert torch.equal(*first)


@pytest.mark.parametrize("name", ["S4, two sites", "signed S3, even alone", "two blocks"])
def test_the_first_image_is_the_same_for_all_images(name):
    sites = SMALL[name]
    joint = joint_of(sites)
    relabeling = _ByAssignment(sites, joint)
    x = random_normal(joint.numel)
    first = joint.act(relabeling.first(x), x)
    for element in joint.elements():
        image = joint.act(element, x)
        torch.testing.assert_close(joint.act(relabeling.first(image), image), first)


@pytest.mark.long
@pytest.mark.parametrize("name", LARGE)
def test_draws_of_one_mode_come_back_from_their_random_images(name):
    sites = LARGE[name]
    action = SitesAction(next(iter(sites.values())).group, sites)
    draws = {
        key: 3.0 * random_normal(site.numel, seed=index) + 0.2 * random_normal(300, site.numel, seed=10 + index)
        for index, (key, site) in enumerate(sites.items())
    }
    images = random_images(draws, action, generator=torch.Generator().manual_seed(0))
    assert all(images[key].std(0).mean() > 5 * draws[key].std(0).mean() for key in sites if sites[key].numel > 7)
    expected, found = (orbit_representative(values, action) for values in (draws, images))
    for key in sites:
        torch.testing.assert_close(found[key], expected[key])
        assert found[key].std(0).max() < 0.25


def test_rows_are_in_ascending_order_of_the_first_site():
    sites = {"means": RowsAction(8), "weights": RowsAction(8, mean_free=True)}
    action = SitesAction(sites["means"].group, sites)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    means = order.double() + 0.05 * random_normal(100, 8)
    found = orbit_representative({"means": means, "weights": random_normal(100, 7)}, action)["means"]
    torch.testing.assert_close(found.mean(0).round(), torch.arange(8.0, dtype=torch.float64))


def test_random_images_are_uniform_and_keep_other_sites():
    action = SitesAction("S3", {"means": VectorAction.rows("S3")})
    draws = {"means": torch.tensor([[1.0, 2.0, 3.0]]).repeat(6000, 1), "noise": torch.arange(6000.0)}
    images = random_images(draws, action)
    assert torch.equal(images["noise"], draws["noise"])
    _, counts = images["means"].unique(dim=0, return_counts=True)
    assert len(counts) == 6 and (counts - 1000).abs().max() < 150
    shaped = random_images({"means": torch.zeros(2, 5, 3)}, action)
    assert shaped["means"].shape == (2, 5, 3)
    with pytest.raises(ValueError, match=r"expected draws of the sites \['means'\], got \['other'\]"):
        random_images({"other": torch.zeros(3)}, action)


def test_an_unknown_large_group_is_refused():
    action = RowsAction(8, VectorAction.plane("D4"))
    with pytest.raises(ValueError, match="expected a group whose elements can be listed, permutations of rows"):
        relabeling_for([action], action)
