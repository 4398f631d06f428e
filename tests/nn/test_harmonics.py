"""The features cos(k . x) and sin(k . x): equivariance, Jacobian, Lipschitz constant, and the shortest frequencies."""

import math
from fractions import Fraction

import pytest
import torch

from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.nn import EquivariantMLP, Harmonics, shortest_frequencies
from pyro_gflows.testing import assert_equivariant

GLIDE = ([[1, 0], [0, -1]], [Fraction(1, 2), Fraction(1, 3)])
ACTIONS = {
    "none": TorusAction.trivial(2),
    "reflection": TorusAction.point_group(VectorAction.signs(1)),
    "D4": TorusAction.point_group("D4"),
    "D4, half periods": TorusAction.point_group("D4").with_translations([[math.pi, 0.0]]),
    "thirds": TorusAction.translations([[Fraction(1, 3), Fraction(2, 3)]]),
    "glide": TorusAction.from_generators([GLIDE]),
    "S3": TorusAction.point_group(VectorAction.rows("S3")),
    "common": TorusAction.fixing([[1, -1, 0], [0, 2, -2]]),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def angles(action, *batch):
    return 9 * torch.randn(*batch, action.numel, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def features_of(action, count=4):
    return Harmonics(action, shortest_frequencies(action, count)).double()


def test_the_features_are_equivariant(action):
    assert_equivariant(features_of(action), action, features_of(action).action_out, angles(action, 5), tol=1e-12)


def test_any_frequencies_of_a_finite_group(action):
    if action.is_finite:
        features = Harmonics(action, [[3, *range(1, action.numel)], [1] * action.numel]).double()
        assert_equivariant(features, action, features.action_out, angles(action, 5), tol=1e-12)
        assert (3, *range(1, action.numel)) in features.frequencies


def test_networks_take_the_features(action):
    features = features_of(action)
    torch.manual_seed(0)
    network = EquivariantMLP(features.action_out, action.linear_part, width=3, depth=1).double()
    assert_equivariant(lambda x: network(features(x)), action, action.linear_part, angles(action, 5), tol=1e-10)


def test_the_jacobian_and_the_lipschitz_constant(action):
    features, x = features_of(action), angles(action, 3)
    value, jacobian = features.call_and_jacobian(x)
    expected = torch.stack([torch.autograd.functional.jacobian(features, row) for row in x])
    torch.testing.assert_close(value, features(x), rtol=0, atol=0)
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-13)
    norms = torch.linalg.matrix_norm(jacobian, 2)
    torch.testing.assert_close(norms, torch.full_like(norms, features.lipschitz), rtol=1e-12, atol=0)


def test_the_shortest_frequencies_are_those_that_the_translations_fix(action):
    found = shortest_frequencies(action, 4)
    assert len(found) >= 4 and len(set(found)) == len(found)
    shifts = action.shift(action.sample((200,), torch.Generator().manual_seed(0)))
    matrices = action.matrix(action.sample((200,), torch.Generator().manual_seed(0)))
    pure = shifts[(matrices == torch.eye(action.numel)).flatten(1).all(1)]
    longest = max(sum(entry**2 for entry in k) for k in found)
    reach = math.isqrt(longest)
    for k in torch.cartesian_prod(*[torch.arange(-reach, reach + 1)] * action.numel).reshape(-1, action.numel):
        if 0 < k.square().sum() <= longest:
            fixed = ((pure @ k.double()).cos() > 1 - 1e-12).all()
            pair = {tuple(k.tolist()), tuple((-k).tolist())}
            assert len(pair & set(found)) == int(fixed)


def test_wrong_frequencies():
    action = TorusAction.fixing([[1, -1]])
    with pytest.raises(ValueError, match=r"fix k \. x, got \[1, 0\]; take integer combinations of \[\[1, -1\]\]"):
        Harmonics(action, [[1, 0]])
    with pytest.raises(ValueError, match="not all 0, got"):
        Harmonics(ACTIONS["D4"], [[0, 0]])
    with pytest.raises(ValueError, match="2 whole numbers"):
        Harmonics(ACTIONS["D4"], [[1, 0, 0]])
    with pytest.raises(ValueError, match="whole coefficients"):
        Harmonics(ACTIONS["D4"], [[0.5, 0]])
    with pytest.raises(TypeError, match="expected a TorusAction"):
        Harmonics(VectorAction.plane("D4"), [[1, 0]])
    with pytest.raises(ValueError, match="give frequencies of your own"):
        shortest_frequencies(TorusAction.trivial(40), 100_000)


def test_frequencies_are_found_however_long_they_are():
    assert shortest_frequencies(TorusAction.fixing([[4000, 0]]), 2) == ((4000, 0), (8000, 0))
    assert shortest_frequencies(TorusAction.fixing([[1, 2, 3]]), 6)[-1] == (6, 12, 18)
    # (3, 1, -3) is much shorter than the vectors of the basis
    assert shortest_frequencies(TorusAction.fixing([[1, 0, 999], [0, 1, -3000]]), 1) == ((3, 1, -3),)
