"""SitesAction: one group on several sites, packed into one vector, and what bad input gets."""

import copy
import itertools
import pickle

import pytest
import torch

from pyro_gflows.actions import Action, LinearAction, SitesAction, VectorAction
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.spaces import Euclidean
from pyro_gflows.testing import assert_equivariant

ROWS = VectorAction.rows("S3")
FLIP = {"loadings": [[-1, 0], [0, 1]], "scores": [[-1, 0], [0, 1]]}
SWAP = {"loadings": [1, 0], "scores": [1, 0]}

ACTIONS = {
    "rows": SitesAction("S3", {"weights": ROWS, "means": VectorAction.rows("S3", features=2)}),
    "signs": SitesAction(VectorAction.signs(2).group, {"loadings": VectorAction.signs(2, copies=3)}),
    "rotations": SitesAction("SO(2)", {"loadings": VectorAction.plane("SO(2)", copies=3)}),
    "generators": SitesAction.from_generators([SWAP, FLIP]),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def values_of(action, *batch):
    return {name: torch.randn(*batch, part.numel, dtype=torch.float64) for name, part in action.sites.items()}


def test_the_group_acts_on_the_packed_vector_as_on_the_sites(action):
    values = values_of(action, 5)
    vector = torch.cat(list(values.values()), -1)
    for element in action.sample((4,), torch.Generator().manual_seed(0)):
        transformed = action.act(element, values)
        torch.testing.assert_close(action.vector_action.act(element, vector), torch.cat(list(transformed.values()), -1))


def test_it_is_an_action_on_vectors_that_hold_the_sites(action):
    assert isinstance(action, Action) and not isinstance(action, LinearAction)
    values = values_of(action, 5)
    vector = torch.cat(list(values.values()), -1)
    action.check_event(vector)
    assert action.space == Euclidean(action.event_shape) and action.event_shape == vector.shape[1:]
    g, h = (action.sample((5,), torch.Generator().manual_seed(seed)) for seed in (1, 2))
    transformed = action.act_each(g, vector)
    torch.testing.assert_close(transformed, torch.cat(list(action.act_each(g, values).values()), -1))
    products = action.act_each(action.group.compose(g, h), vector)
    torch.testing.assert_close(action.act_each(g, action.act_each(h, vector)), products)
    torch.testing.assert_close(action.act(g[0], vector), action.vector_action.act(g[0], vector))
    if action.is_finite:
        assert torch.equal(action.act_all(vector), action.vector_action.act_all(vector))
        assert torch.equal(action.canonical(vector), action.vector_action.canonical(vector))
        forms = [action.act_each(action.canonical(x), x) for x in (vector, transformed)]
        torch.testing.assert_close(*forms, rtol=0, atol=1e-9)
    else:
        assert action.canonical(vector) is None
    nothing = action.without_symmetry()
    assert nothing.group.order == 1 and nothing.event_shape == action.event_shape
    assert torch.equal(nothing.act(torch.tensor(0), vector), vector)
    with pytest.raises(ValueError, match="expected x of shape"):
        action.act_each(g, vector[..., 1:])


def test_a_map_of_its_vectors_is_checked_as_of_any_action(action):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, action.numel, dtype=torch.float64, generator=generator)
    assert_equivariant(lambda x: x * x.norm(dim=-1, keepdim=True), action, action, x)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(lambda x: x + x[..., :1] ** 2, action, action, x)


def test_is_a_value(action):
    for twin in (copy.deepcopy(action), pickle.loads(pickle.dumps(action)), build(describe(action))):
        assert twin == action and hash(twin) == hash(action) and repr(twin) == repr(action)
    assert action != SitesAction("C3", {"x": VectorAction.regular("C3")})


def test_other_sites_are_left_alone_in_any_order():
    action = ACTIONS["rows"]
    packed = action.packed({"noise": 2, "means": 6, "weights": 3})
    x = torch.randn(11)
    transformed = packed.act(torch.tensor(4), x)
    assert torch.equal(transformed[:2], x[:2])
    torch.testing.assert_close(transformed[8:], ROWS.act(torch.tensor(4), x[8:]))


def test_values_of_any_shape_move_row_by_row():
    action = ACTIONS["rows"]
    means = torch.randn(7, 4, 3, 2)
    transformed = action.act(torch.tensor(3), {"means": means})["means"]
    torch.testing.assert_close(transformed[..., [1, 2, 0], :], means)
    each = action.act_on_site("means", torch.arange(6)[:, None, None], means)
    assert each.shape == (6, 7, 4, 3, 2)
    torch.testing.assert_close(each[3], transformed)


def test_joint_generators_move_all_sites_together():
    action = ACTIONS["generators"]
    assert action.group.order == 8
    for element in action.elements():
        transformed = action.act(element, {"loadings": torch.eye(2), "scores": torch.eye(2)})
        assert torch.equal(transformed["loadings"], transformed["scores"])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SitesAction("S3", {}), ValueError, "at least one site on which the group acts, got none"),
        (lambda: SitesAction("S3", {"x": "rows"}), TypeError, "site 'x': expected a VectorAction .* got str"),
        (lambda: SitesAction("C3", {"x": ROWS}), ValueError, "site 'x': expected an action of C3"),
        (lambda: ACTIONS["rows"].packed({"weights": 3}), ValueError, r"got an action on \['means'\]; check the names"),
        (lambda: ACTIONS["signs"].packed({"loadings": 5}), ValueError, "site 'loadings' has 5 coordinates"),
        (lambda: ACTIONS["rows"].flatten("means", torch.zeros(4)), ValueError, "site 'means': expected 6 coordinates"),
        (lambda: SitesAction.from_generators([SWAP, {"scores": [0, 2, 1]}]), ValueError, "generators of one size"),
        (lambda: SitesAction.from_generators([{"a": [[2.0]]}]), ValueError, "generator 0, site 'a' is not orthogonal"),
        (lambda: SitesAction.from_generators([]), ValueError, "at least one generator, got none"),
        (lambda: ACTIONS["rotations"].elements(), ValueError, "infinitely many elements"),
    ],
)
def test_bad_input_says_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


SCALAR = SitesAction.from_generators([{"scale": [[-1]], "means": [[0, 1], [1, 0]]}])


@pytest.mark.parametrize("batch", [(), (5,), (4, 5), (1,), (0,)], ids=str)
def test_the_group_acts_on_a_scalar_site(batch):
    """A value of shape () per draw, as ``pyro.sample("scale", dist.Normal(0.0, 1.0))`` gives it."""
    values = {"scale": torch.randn(batch), "means": torch.randn(*batch, 2)}
    transformed = SCALAR.act(torch.tensor(1), values)
    assert torch.equal(transformed["scale"], -values["scale"])
    assert torch.equal(transformed["means"], values["means"].flip(-1))


def test_a_continuous_group_leaves_a_scalar_site_as_it_is():
    action = SitesAction("SO(2)", {"angle": VectorAction.trivial("SO(2)"), "arrow": VectorAction.plane("SO(2)")})
    values = {"angle": torch.tensor(2.0), "arrow": torch.randn(2)}
    element = action.sample((), torch.Generator().manual_seed(0))
    transformed = action.act(element, values)
    assert transformed["angle"].shape == () and torch.equal(transformed["angle"], values["angle"])
    each = action.act_on_site("angle", action.sample((3,)), torch.randn(3))
    assert each.shape == (3,)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_an_element_for_each_draw_of_a_site_of_one_number(shape):
    value, elements = torch.randn(7, *shape), torch.arange(7) % 2
    transformed = SCALAR.act_on_site("scale", elements, value)
    signs = (1 - 2 * elements).reshape(7, *[1] * len(shape))
    assert torch.equal(transformed, signs * value)
    all_images = SCALAR.act_on_site("scale", torch.arange(2).reshape(2, *[1] * value.ndim), value)
    assert torch.equal(all_images, torch.stack([value, -value]))


def test_which_sites_any_element_changes():
    group = VectorAction.signs(2).group
    action = SitesAction(group, {"x": VectorAction.signs(2), "y": VectorAction.trivial(group, copies=3)})
    assert [action.acts_on(site) for site in ("x", "y", "z")] == [True, False, False]
    assert not SitesAction("SO(3)", {"x": VectorAction.trivial("SO(3)")}).acts_on("x")
    assert SitesAction("SO(3)", {"x": VectorAction.space("SO(3)")}).acts_on("x")
    assert not SitesAction("C1", {"x": VectorAction.regular("C1", copies=2)}).acts_on("x")


def test_hidden_units_change_places_and_signs_jointly():
    """The group of a tanh network with 3 hidden units: permutations and signs, which do not commute."""
    swap, shift = torch.eye(3).double()[[1, 0, 2]], torch.eye(3).double()[[1, 2, 0]]
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]).double())
    generators = [{"w": torch.kron(m, torch.eye(2).double()), "b": m, "v": m} for m in (swap, shift, flip)]
    action = SitesAction.from_generators(generators)
    assert action.group.order == 2**3 * 6
    assert not torch.equal(action.group.table, action.group.table.T)
    x = torch.randn(20, 2, dtype=torch.float64)

    def outputs(values):
        return torch.tanh(x @ values["w"].mT + values["b"]) @ values["v"]

    values = {"w": torch.randn(3, 2), "b": torch.randn(3), "v": torch.randn(3)}
    values = {name: value.double() for name, value in values.items()}
    images = [action.act(element, values) for element in action.elements()]
    for image in images:
        torch.testing.assert_close(outputs(image), outputs(values))
    # independently: every order of the units with every choice of signs, once
    expected = {
        tuple(s * float(values["v"][i]) for i, s in zip(order, signs, strict=True))
        for order in itertools.permutations(range(3))
        for signs in itertools.product([1, -1], repeat=3)
    }
    assert {tuple(image["v"].tolist()) for image in images} == expected
