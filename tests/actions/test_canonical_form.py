"""The canonical form of an event is the same along its orbit, by images and by Fourier transforms."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, LinearAction, VectorAction
from pyro_gflows.actions.canonical_form import reference_event
from pyro_gflows.groups import DefiningRepresentation, TrivialRepresentation
from tests.largest import LargestTensor

SIGNED = [DefiningRepresentation("D4"), TrivialRepresentation("D4")]
ACTIONS = {
    "no symmetry": VectorAction.trivial("C1", copies=3),
    "plane": VectorAction.plane("D8"),
    "regular": VectorAction.regular("C5", copies=2),
    "rows": VectorAction.rows("S4", features=2),
    "signs": VectorAction.signs(6),
    "regular of translations": VectorAction.regular(ImageAction.translations(size=3).group),
    "image": ImageAction("D4", 2, size=5),
    "image, regular": ImageAction("C4", 1, size=4, fields="regular"),
    "image, signs": ImageAction("D4", size=4, fields=SIGNED),
    "translations": ImageAction.translations(2, size=(4, 6)),
    "translations by two": ImageAction.translations(1, size=(4, 6), step=2),
    "odd translations": ImageAction.translations(1, size=(3, 5)),
    "p4m": ImageAction.translations(1, size=6, point_group="D4"),
    "p4m, regular": ImageAction.translations(1, size=4, point_group="D4", fields="regular"),
    "p4m, signs": ImageAction.translations(2, size=4, step=2, point_group="D4", fields=SIGNED),
    "p4": ImageAction.translations(2, size=5, point_group="C4"),
    "pmm": ImageAction.translations(1, size=(4, 6), point_group="D2", fields="regular"),
}
PERIODIC = {name: action for name, action in ACTIONS.items() if getattr(action, "padding", None) == "circular"}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def events(action, *batch, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*batch, *action.event_shape, generator=generator, dtype=torch.float64).to(dtype)


def elements_of(action, *batch):
    return action.sample(batch, torch.Generator().manual_seed(2))


def canonical_form(action, x):
    elements = action.canonical(x)
    assert elements.shape == x.shape[: x.ndim - action.event_dim] + action.group.element_shape
    assert elements.dtype == torch.int64 and not elements.requires_grad
    return action.act_each(elements, x)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,), (2, 0)])
def test_it_is_equal_along_an_orbit(action, batch):
    x = events(action, *batch)
    form = canonical_form(action, x)
    for _ in range(4):
        x = action.act_each(elements_of(action, *batch), x)
        torch.testing.assert_close(canonical_form(action, x), form, rtol=0, atol=1e-9)
    torch.testing.assert_close(form.flatten(len(batch)).norm(dim=-1), x.flatten(len(batch)).norm(dim=-1))


def test_it_is_equal_along_an_orbit_in_single_precision(action):
    x = events(action, 5, dtype=torch.float32)
    transformed = action.act_each(elements_of(action, 5), x)
    torch.testing.assert_close(canonical_form(action, transformed), canonical_form(action, x), rtol=0, atol=1e-5)
    assert torch.equal(action.canonical(x), action.canonical(x.double()))


def test_the_element_is_the_inverse_of_the_best_of_all(action):
    x, w = events(action, 4).flatten(1), reference_event(action.event_shape).flatten()
    images = action.matrix(action.elements()) @ w
    best = (x @ images.T).argmax(-1)
    found = action.canonical(x.unflatten(-1, action.event_shape))
    assert torch.equal(action.group.compose(found, best), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("name", PERIODIC)
def test_fourier_transforms_find_what_all_images_find(name):
    action = PERIODIC[name]
    x = events(action, 7)
    assert torch.equal(action._nearest(action.group, x), LinearAction._nearest(action, action.group, x))


def test_all_images_in_several_parts(action, monkeypatch):
    x = events(action, 3)
    whole = LinearAction._nearest(action, action.group, x)
    monkeypatch.setattr("pyro_gflows.actions.canonical_form._AT_ONCE", 5 * x.numel())
    assert torch.equal(LinearAction._nearest(action, action.group, x), whole)


@pytest.mark.long
def test_an_event_that_some_elements_leave_alone():
    """There h is not unique; the form is all the same."""
    action, by_180_degrees = ACTIONS["p4m"], torch.tensor(2)
    x = events(action)
    x = x + action.act(by_180_degrees, x)
    assert torch.equal(action.act(by_180_degrees, x), x)
    for g in action.elements()[::5]:
        torch.testing.assert_close(canonical_form(action, action.act(g, x)), canonical_form(action, x))


def test_no_gradient_goes_through_it(action):
    x = events(action, 3)
    with torch.no_grad():
        expected = action.canonical(x)
    with_gradient = x.clone().requires_grad_()
    assert torch.equal(action.canonical(with_gradient), expected)
    canonical_form(action, with_gradient).square().sum().backward()
    torch.testing.assert_close(with_gradient.grad, 2 * x)  # of the action alone


def test_under_function_transforms(action):
    x = events(action, 3)
    fresh = type(action).__new__(type(action))
    fresh.__dict__.update(action.__getstate__())  # whose constants are made inside
    assert torch.equal(torch.func.vmap(fresh.canonical)(x), action.canonical(x))
    assert torch.equal(fresh.canonical(x), action.canonical(x))


@pytest.mark.parametrize("group", ["SO(2)", "O(3)"])
def test_of_continuous_groups_none_is_known(group):
    action = VectorAction.plane(group) if group == "SO(2)" else VectorAction.space(group)
    assert action.canonical(events(action, 2)) is None


def test_bad_events_are_refused():
    with pytest.raises(ValueError, match="expected x of shape"):
        ACTIONS["p4m"].canonical(torch.zeros(1, 5, 6))


def test_a_large_group_needs_no_list_of_images():
    """Those of one event have 8.4 million entries."""
    action = ImageAction.translations(size=32, point_group="D4")
    x = events(action, 8)
    with LargestTensor() as largest:
        action.canonical(x)
    assert 0 < largest.numel <= 2 * x.numel()
