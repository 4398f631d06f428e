"""The map, its inverse, its log-det and its symmetry, before and after training (contracts 22, 23, 29, 33, 39)."""

import math

import pytest
import torch

from pyro_gflows import TorusAction
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_invariant, assert_log_det
from tests.constructors import CONSTRUCTORS, events, in_space, make, make_flow, names

EXACT = names(CONSTRUCTORS, estimated=False)


def test_equivariance_and_invariance(flow_before_and_after):
    """Log-probs are compared, at random weights and after training (contracts 23, 33, 39)."""
    flow = flow_before_and_after
    transform = flow.transform
    assert_equivariant(transform, transform.action_in, transform.action_out, events(transform, 3), tol=1e-10)
    assert_invariant(flow, flow.action, events(flow, 3), tol=1e-10)


def test_round_trip(flow_before_and_after):
    assert_bijective(flow_before_and_after.transform, events(flow_before_and_after.transform, 4), tol=1e-8)


@pytest.mark.parametrize("trained", [False, True], ids=["random weights", "trained"])
@pytest.mark.parametrize("name", EXACT)
def test_log_det_against_autograd(name, trained):
    """Both directions, against dense Jacobians (contract 22)."""
    transform = make_flow(name, trained=trained).transform
    assert_log_det(transform, events(transform, 1 if transform.action_in.numel > 4 else 2), tol=1e-8)


def test_float32(name):
    transform = make(name, dtype=torch.float32)
    x = events(transform, 3, dtype=torch.float32)
    assert_equivariant(transform, transform.action_in, transform.action_out, x, tol=1e-4)
    assert_bijective(transform, x, tol=1e-4)
    if not CONSTRUCTORS[name].estimated and transform.action_in.numel <= 4:
        assert_log_det(transform, x[:1], tol=1e-4)
    flow = make_flow(name, dtype=torch.float32)
    assert_invariant(flow, flow.action, events(flow, 3, dtype=torch.float32), tol=1e-4)


def test_gradients_against_finite_differences(name):
    """Gradients in the weights and in x are right, in both directions.

    A log-det that is detached, or taken at the wrong point, has a right value and a wrong gradient (contract 22), and
    HMC needs the gradient of the value (contract 7).
    """
    flow = make_flow(name)
    parameters = [parameter for parameter in flow.parameters() if parameter.numel()]
    generator = torch.Generator().manual_seed(5)
    transform = flow.transform
    cases = [
        (flow, events(flow, 2)),
        (_value_and_log_det(transform.call_and_ladj), events(transform, 2)),
        (_value_and_log_det(transform.inv_call_and_ladj), events(flow, 2)),
    ]
    for function, x in cases:
        variables = [*parameters, x.requires_grad_()]
        directions = [torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in variables]
        directions[-1] = in_space(flow.action, directions[-1])  # a step leaves events in their space
        weights = torch.tensor([1.0, -0.4], dtype=torch.float64)
        gradient = torch.autograd.grad((function(x) * weights).sum(), variables, allow_unused=True)
        slope = sum((g * v).sum().item() for g, v in zip(gradient, directions, strict=True) if g is not None)
        near, far = (
            sum(
                sign * (_after_step(function, variables, directions, sign * step) * weights).sum().item()
                for sign in (1, -1)
            )
            / (2 * step)
            for step in (5e-6, 1e-5)
        )
        # without the error of the second order, which is large where a layer is steep
        assert slope == pytest.approx((4 * near - far) / 3, rel=1e-5, abs=1e-6)


def _after_step(function, variables, directions, step):
    """Return the value of a function after a step along the directions, and take the step back."""
    with torch.no_grad():
        for sign in (1.0, -1.0):
            for variable, direction in zip(variables, directions, strict=True):
                variable.add_(direction, alpha=sign * step)
            if sign > 0:
                value = function(variables[-1].clone())
    return value


def _value_and_log_det(call):
    def function(x):
        y, ladj = call(x)
        return ladj + y.flatten(ladj.ndim).sin().sum(-1)

    return function


def test_visits_to_low_precision_cost_no_symmetry(name):
    """The fixed bases of a module keep their precision through ``.float()`` and ``.half()`` (contracts 9, 29)."""
    flow = make_flow(name).half().double()
    assert_invariant(flow, flow.action, events(flow, 2), tol=1e-10)
    built_in_float32 = make_flow(name, dtype=torch.float32).double()
    assert_invariant(built_in_float32, built_in_float32.action, events(flow, 2), tol=1e-10)


@pytest.mark.parametrize("name", [name for name in names(CONSTRUCTORS) if "angle" in name])
def test_a_full_circle_changes_nothing(name):
    """Contract 47, for scores and in both directions."""
    flow = make_flow(name)
    assert isinstance(flow.action, TorusAction)
    x = events(flow, 4)
    counts = torch.randint(-2, 3, x.shape, generator=torch.Generator().manual_seed(0))
    circles = 2 * math.pi * counts.double()
    torch.testing.assert_close(flow(x + circles), flow(x), rtol=0, atol=1e-8)
    for transform in (flow.transform, flow.transform.inv):
        apart = flow.action.space.difference(transform(x + circles), transform(x))
        torch.testing.assert_close(apart, torch.zeros_like(apart), rtol=0, atol=1e-8)
