"""PeriodicNetwork: periodic, equivariant under the matrices and invariant under translations, with a tight bound."""

import math

import pytest
import torch

from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.nn import PeriodicNetwork
from pyro_gflows.numerics.branch import jacobian_by_autograd
from pyro_gflows.testing import assert_equivariant, assert_layer, randomize_
from pyro_gflows.transforms import GResidual, g_residual
from tests.constructors.torus import square, thirds

ACTIONS = {
    "no symmetry": TorusAction.trivial(2),
    "reflection": TorusAction.point_group(VectorAction.signs(1)),
    "D4 with half periods": square(),
    "screw and thirds": thirds(),
    "common": TorusAction.fixing([[1, -1, 0], [0, 2, -2]]),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def branch_on(action, **options):
    torch.manual_seed(0)
    branch = PeriodicNetwork(action, width=2, **options).double()
    return randomize_(branch, generator=torch.Generator().manual_seed(1))


def angles(action, *batch):
    return 9 * torch.randn(*batch, action.numel, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_branch_is_equivariant_under_the_matrices_and_periodic(action, depth):
    branch, x = branch_on(action, depth=depth), angles(action, 5)
    assert branch(x).abs().max() > 1e-3
    assert_equivariant(branch, action, action.linear_part, x, tol=1e-11)
    torch.testing.assert_close(branch(x + 2 * math.pi), branch(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("activation", [None, "soft_threshold"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_jacobian_is_that_of_autograd(action, depth, activation):
    branch, x = branch_on(action, depth=depth, activation=activation), angles(action, 4)
    value, jacobian = branch.call_and_jacobian(x)
    expected_value, expected = jacobian_by_autograd(branch, x, 1)
    torch.testing.assert_close(value, expected_value, rtol=0, atol=1e-13)
    torch.testing.assert_close(jacobian, expected, rtol=0, atol=1e-12)


def test_the_bound_holds_in_radians_and_can_nearly_be_reached():
    """At depth 0, f = 0.9 sin(x) has a slope of 0.9 at 0."""
    action = TorusAction.point_group(VectorAction.signs(1))
    branch = PeriodicNetwork(action, frequencies=[[1]], depth=0, bound=0.9).double()
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.fill_(10.0)
    assert float(branch.lipschitz_bound()) == pytest.approx(0.9)
    x = torch.linspace(0, 2 * math.pi, 100, dtype=torch.float64)[:, None]
    slopes = branch.call_and_jacobian(x)[1].detach().abs()
    assert float(slopes.max()) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("log_scale", [0.3, 10.0])
def test_no_slope_exceeds_the_bound(action, log_scale):
    branch = randomize_(branch_on(action, depth=1, bound=0.7), scale=log_scale)
    norms = torch.linalg.matrix_norm(branch.call_and_jacobian(angles(action, 200))[1], 2)
    assert norms.max() <= branch.lipschitz_bound() + 1e-12 and branch.lipschitz_bound() <= 0.7 + 1e-12


def test_a_layer_with_frequencies_of_ones_own():
    action = TorusAction.point_group("D4")
    layer = GResidual(action, PeriodicNetwork(action, frequencies=[[2, 1]], bound=0.8)).double()
    assert len(layer.branch.features.frequencies) == 4
    assert_layer(randomize_(layer), angles(action, 5))


def test_bad_input():
    with pytest.raises(TypeError, match="expected a TorusAction"):
        PeriodicNetwork(VectorAction.plane("D4"))
    with pytest.raises(ValueError, match=r"bound in \(0, 1\), got 1.0"):
        PeriodicNetwork(TorusAction.trivial(2), bound=1.0)
    with pytest.raises(ValueError, match="expected a branch for TorusAction"):
        GResidual(TorusAction.point_group("D4"), PeriodicNetwork(TorusAction.trivial(2)))
    with pytest.raises(TypeError, match="no default branch on angles reads a context"):
        g_residual(TorusAction.trivial(2), context_action=VectorAction.trivial("C1"))
