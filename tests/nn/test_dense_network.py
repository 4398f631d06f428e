"""Concatenating branches: certified, equivariant, with closed-form Jacobians."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import LipschitzDenseNetwork, LipschitzNetwork
from pyro_gflows.testing import assert_equivariant, randomize_

ACTIONS = {
    "regular C4": VectorAction.regular("C4"),
    "SO(3)": VectorAction.space("SO(3)", copies=2),
    "image D4": ImageAction("D4", 1, size=3),
    "shifts": ImageAction.translations(1, size=3),
}


@pytest.fixture(params=[(name, depth) for name in ACTIONS for depth in (1, 2)], ids=str)
def branch(request):
    name, depth = request.param
    torch.manual_seed(0)
    return LipschitzDenseNetwork(ACTIONS[name], width=2, depth=depth, bound=0.8).double()


def events(action, count=3):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(count, *action.event_shape, generator=generator, dtype=torch.float64)


def dense(branch, x):
    size = branch.action.numel
    return torch.stack([torch.autograd.functional.jacobian(branch, row).reshape(size, size) for row in x])


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_bound_holds(branch, scale):
    randomize_(branch, scale=scale)
    norm = torch.linalg.matrix_norm(dense(branch, events(branch.action)), 2).max()
    assert norm <= branch.lipschitz_bound() + 1e-12
    assert branch.lipschitz_bound() <= 0.8 * (1 + 1e-12)
    assert not branch.lipschitz_bound().requires_grad


def test_is_equivariant(branch):
    randomize_(branch)
    assert_equivariant(branch, branch.action, branch.action, events(branch.action))


def test_jacobians_are_those_of_autograd(branch):
    randomize_(branch)
    x = events(branch.action)
    value, jacobian = branch.call_and_jacobian(x)
    torch.testing.assert_close(value, branch(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(jacobian, dense(branch, x), rtol=0, atol=1e-12)
    assert jacobian.requires_grad


@pytest.mark.parametrize("activation", ["clipswish", "curves"])
def test_concatenated_activations_have_closed_forms_too(activation):
    action = ImageAction("C4", 2, size=3)
    for kind in (LipschitzDenseNetwork, LipschitzNetwork):
        branch = randomize_(kind(action, width=2, activation=activation).double())
        jacobian = branch.call_and_jacobian(events(action))[1]
        torch.testing.assert_close(jacobian, dense(branch, events(action)), rtol=0, atol=1e-12)
        assert torch.linalg.matrix_norm(jacobian, 2).max() <= branch.lipschitz_bound() <= 0.98 * (1 + 1e-12)


def test_what_is_read_is_passed_on():
    """With cos = 1, the branch is the linear map of its last layer alone."""
    branch = LipschitzDenseNetwork(ACTIONS["image D4"], width=2).double()
    with torch.no_grad():
        branch.angle.zero_()
    x = events(branch.action, 2)
    torch.testing.assert_close(branch(2 * x) - branch(x), branch(x) - branch(0 * x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"bound": 1.0}, r"in \(0, 1\), got 1.0"), ({"depth": 0}, "depth >= 1"), ({"activation": "relu"}, "got 'relu'")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LipschitzDenseNetwork(ACTIONS["regular C4"], **arguments)


@pytest.mark.parametrize("name", ["regular C4", "SO(3)"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_the_bound_is_the_product_of_exact_norms(name, depth, scale):
    """Those of the layers' matrices, from dense singular values; to understate it, if only by 2 %, is to break it."""
    action = ACTIONS[name]
    branch = randomize_(LipschitzDenseNetwork(action, width=2, depth=depth, bound=0.8).double(), scale=scale)
    gains = torch.ones((), dtype=torch.float64)
    for layer, angle in zip(branch.layers[:-1], branch.angle.detach(), strict=True):
        made = torch.linalg.matrix_norm(matrix_of(layer), 2)
        gains = gains * (angle.cos() ** 2 + (angle.sin() * made) ** 2).sqrt()
    expected = gains * torch.linalg.matrix_norm(matrix_of(branch.layers[-1]), 2)
    torch.testing.assert_close(branch.lipschitz_bound(), expected, rtol=1e-10, atol=0)


def test_the_bound_of_images_is_no_less_than_the_product_of_exact_norms():
    for name in ("image D4", "shifts"):
        branch = randomize_(LipschitzDenseNetwork(ACTIONS[name], width=2, bound=0.8).double(), scale=0.2)
        made, last = (torch.linalg.matrix_norm(matrix_of(layer), 2) for layer in branch.layers)
        angle = branch.angle.detach()[0]
        assert (angle.cos() ** 2 + (angle.sin() * made) ** 2).sqrt() * last <= branch.lipschitz_bound() * (1 + 1e-12)


def matrix_of(layer):
    """The linear part of a layer, as a matrix on flattened events."""
    shape = layer.action_in.event_shape
    units = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    return (layer(units) - layer(torch.zeros_like(units))).flatten(1).detach().mT
