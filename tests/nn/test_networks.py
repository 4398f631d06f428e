"""Networks of a pair of actions: equivariance, certified bounds, closed-form Jacobians."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import (
    EquivariantCNN,
    EquivariantMLP,
    LipschitzNetwork,
    LipschitzSum,
    conditioner,
    lipschitz_branch,
)
from pyro_gflows.testing import randomize_
from tests.nn.terms import QUATERNIONS

VECTORS = {
    "regular C4": VectorAction.regular("C4"),
    "plane D3": VectorAction.plane("D3"),
    "quaternions": VectorAction.from_generators(QUATERNIONS),
    "SO(3)": VectorAction.space("SO(3)", copies=2),
    "no symmetry": VectorAction.trivial("C1", copies=3),
}
IMAGES = {
    "D4": ImageAction("D4", 2, size=3),
    "C4 regular": ImageAction("C4", 1, size=3, fields="regular"),
    "shifts": ImageAction.translations(1, size=4),
}
ACTIONS = {**VECTORS, **IMAGES}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def events(action, count=5):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(count, *action.event_shape, generator=generator, dtype=torch.float64)


def dense(network, x):
    size = x[0].numel()
    return torch.stack([torch.autograd.functional.jacobian(network, row).reshape(-1, size) for row in x])


def test_conditioners_are_equivariant(action):
    params = action.trivial_fields(2).direct_sum(action)
    network = randomize_(conditioner(action, params, width=2).double())
    assert isinstance(network, EquivariantMLP if action.event_dim == 1 else EquivariantCNN)
    x, elements = events(action), action.sample((5,))
    image = params.act_each(elements, network(x))
    assert image.abs().max() > 0.01
    torch.testing.assert_close(network(action.act_each(elements, x)), image, rtol=0, atol=1e-11)


def test_conditioners_start_at_zero_unless_told_otherwise(action):
    x = events(action)
    assert conditioner(action, action, width=2).double()(x).abs().max() == 0
    assert conditioner(action, action, width=2, start=0.5).double()(x).abs().max() > 0


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_the_bound_holds(action, depth, scale):
    network = randomize_(LipschitzNetwork(action, width=2, depth=depth, bound=0.8).double(), scale=scale)
    norm = torch.linalg.matrix_norm(dense(network, events(action, 3)), 2).max()
    assert norm <= network.lipschitz_bound() + 1e-12
    assert network.lipschitz_bound() <= 0.8 * (1 + 1e-12)
    assert network.lipschitz_bound().dtype == torch.float64


def test_the_bound_survives_an_optimizer_that_wants_it_larger():
    action = VECTORS["regular C4"]
    network = LipschitzNetwork(action, width=2, bound=0.9).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.3)
    x = events(action, 16)
    for _ in range(30):
        optimizer.zero_grad()
        (-network.call_and_jacobian(x)[1].square().sum()).backward()
        optimizer.step()
    norm = torch.linalg.matrix_norm(dense(network, x), 2).max()
    assert 0.5 < norm <= network.lipschitz_bound() <= 0.9 * (1 + 1e-12)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", ["regular C4", "numbers"])
def test_networks_with_the_activation_of_earlier_formats_become_networks_of_today(name, depth):
    """The slopes of a LipSwish are factors of the weights beside it; a network that names it keeps it."""
    action = {"regular C4": VectorAction.regular("C4"), "numbers": VectorAction.trivial("C1", copies=3)}[name]
    former = randomize_(EquivariantMLP(action, action, width=3, depth=depth, activation="lipswish").double())
    state, x = former.state_dict(), torch.randn(6, action.numel, dtype=torch.float64)
    assert sum("raw_beta" in name for name in state) == depth
    network = EquivariantMLP(action, action, width=3, depth=depth).double()
    network.load_state_dict(state)
    assert "raw_beta" not in "".join(network.state_dict())
    torch.testing.assert_close(network(x), former(x), rtol=0, atol=1e-12)
    again = EquivariantMLP(action, action, width=3, depth=depth, activation="lipswish").double()
    again.load_state_dict(state)
    assert torch.equal(again(x), former(x))


@pytest.mark.parametrize("activation", ["lipswish", "splines", "sorted_pairs", "soft_threshold"])
@pytest.mark.parametrize("name", ["regular C4", "D4"])
def test_closed_form_jacobians_are_those_of_autograd(name, activation):
    action = ACTIONS[name]
    if activation == "soft_threshold" and action.event_dim == 3:
        return
    network = randomize_(LipschitzNetwork(action, width=2, activation=activation).double())
    x = events(action)
    value, jacobian = network.call_and_jacobian(x)
    torch.testing.assert_close(value, network(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(jacobian, dense(network, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", IMAGES)
def test_hidden_layers_may_know_where_they_are(name):
    action = IMAGES[name]
    x, elements = events(action), action.sample((5,))
    for network in (
        conditioner(action, action, width=2, bias="pixels", start=1.0),
        LipschitzNetwork(action, width=2, bound=0.8, bias="pixels"),
    ):
        randomize_(network.double())
        per_field = network.layers[0].orbit_biases.numel() / 2
        assert per_field == (1 if name == "shifts" else action.height * action.width)  # no place differs under shifts
        image = action.act_each(elements, network(x))
        torch.testing.assert_close(network(action.act_each(elements, x)), image, rtol=0, atol=1e-11)
    assert torch.linalg.matrix_norm(dense(network, x), 2).max() <= network.lipschitz_bound() <= 0.8 * (1 + 1e-12)
    torch.testing.assert_close(network.call_and_jacobian(x)[1], dense(network, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "bias"), [("plane D3", "pixels"), ("D4", "rows")])
def test_a_bias_that_the_event_cannot_have_is_refused(name, bias):
    with pytest.raises(ValueError, match=f"expected bias 'channels' or, on images, 'pixels', got '{bias}'"):
        conditioner(ACTIONS[name], ACTIONS[name], bias=bias)


def test_jacobians_keep_the_batch_shape_and_the_gradient_mode(action):
    network = randomize_(LipschitzNetwork(action, width=2).double())
    x = events(action, 6).unflatten(0, (2, 3))
    value, jacobian = network.call_and_jacobian(x)
    assert value.shape == x.shape
    assert jacobian.shape == (2, 3, action.numel, action.numel)
    assert jacobian.requires_grad
    torch.testing.assert_close(jacobian.flatten(0, 1), dense(network, x.flatten(0, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("action", "parts"),
    [
        (VectorAction.plane("D8"), ["Ridges", "RadialTerm"]),
        (VectorAction.plane("O(2)"), ["RadialTerm"]),
        (VectorAction.space("SO(3)", copies=2), None),
        (ImageAction("C4", size=4), None),
    ],
    ids=str,
)
def test_the_default_branch_suits_the_action(action, parts):
    branch = lipschitz_branch(action, bound=0.7)
    assert branch.action == action
    assert branch.lipschitz_bound() < 0.7 + 1e-6
    if parts is None:
        assert isinstance(branch, LipschitzNetwork)
    else:
        assert isinstance(branch, LipschitzSum)
        assert [type(part).__name__ for part in branch.parts] == parts


def test_gates_have_no_bound():
    assert LipschitzNetwork(VectorAction.plane("C4"), activation="gated").lipschitz_bound() == float("inf")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LipschitzNetwork(VectorAction.plane("C4"), bound=1.0), r"Lipschitz bound in \(0, 1\), got 1.0"),
        (lambda: LipschitzNetwork(VectorAction.plane("C4"), activation="relu"), "activation among .* got 'relu'"),
        (lambda: conditioner(VectorAction.plane("C4"), VectorAction.plane("C4"), width=0), "width >= 1 .* got 0"),
        (lambda: conditioner(VectorAction.plane("C4"), VectorAction.plane("C3")), "one group on vectors"),
    ],
)
def test_bad_networks_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "cayley"}, "a layer among .* got 'cayley'"),
        ({"units": "pixel"}, "units 'fixed', 'layer' or 'field', got 'pixel'"),
        ({"units": "field", "activation": "sorted_pairs"}, "each coordinate by itself, got SortedPairs"),
    ],
)
def test_bad_kinds_of_bounds_say_what_was_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        LipschitzNetwork(ImageAction("C4", size=4), width=2, **arguments)
    with pytest.raises(ValueError, match="images and depth >= 1 for mirrored=True"):
        LipschitzNetwork(VectorAction.regular("C4"), mirrored=True)
    with pytest.raises(ValueError, match="'spectral' on vectors"):
        LipschitzNetwork(VectorAction.regular("C4"), layer="polar")


def test_a_mirrored_branch_starts_with_a_symmetric_jacobian():
    torch.manual_seed(0)
    action = ImageAction("D4", 1, size=4)
    branch = LipschitzNetwork(action, width=2, mirrored=True).double()
    jacobian = branch.call_and_jacobian(events(action))[1]
    torch.testing.assert_close(jacobian, jacobian.mT, rtol=0, atol=1e-6)  # made in float32
