"""Certified contractions, and inverses that say when they fail (contracts 20, 21, 35, 36, 45)."""

import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import BanachSolver, ExactLogDet, InverseDidNotConverge
from pyro_gflows.transforms import GResidual
from tests.constructors import CONSTRUCTORS, events, make, make_flow, names, training_steps

RESIDUAL = names(CONSTRUCTORS, family="residual")
SMOOTH = names(CONSTRUCTORS, family="residual", estimated=False, piecewise_linear=False)


def spectral_norms(layer, x):
    """The spectral norm of the branch's Jacobian at each point."""
    jacobians = [torch.autograd.functional.jacobian(lambda v: layer.branch(v[None])[0], point) for point in x]
    flat = torch.stack(jacobians).reshape(len(x), layer.action_in.numel, layer.action_in.numel)
    return torch.linalg.matrix_norm(flat, 2)


@pytest.mark.parametrize("scale", [0.3, 10.0])
@pytest.mark.parametrize("name", RESIDUAL)
def test_the_bound_holds_at_every_weight(name, scale):
    """The bound holds by construction, however large the weights are (contract 20), and is true (contracts 35, 36)."""
    layer = make(name, scale=scale)
    bound = layer.lipschitz_bound()
    assert bound < 1
    assert (spectral_norms(layer, events(layer, 4)) <= bound + 1e-12).all()


@pytest.mark.parametrize("name", RESIDUAL)
def test_the_bound_holds_after_training_hard(name):
    """Contract 20: no call is needed between the steps."""
    flow = make_flow(name)
    training_steps(flow, 10, lr=0.5)
    (layer,) = flow.transforms
    assert layer.lipschitz_bound() < 1
    assert (spectral_norms(layer, events(layer, 3)) <= layer.lipschitz_bound() + 1e-12).all()


@pytest.mark.parametrize("name", RESIDUAL)
def test_an_inverse_that_does_not_converge_raises(name):
    """With its figures (contract 21)."""
    layer = make(name)
    layer.solver = BanachSolver(max_iterations=1, tolerance=1e-14)
    x = events(layer, 3)
    many_passes = layer if layer.fast == "score" else layer.inv
    with pytest.raises(InverseDidNotConverge, match=r"residual .*iteration"):
        many_passes(x)


@pytest.mark.parametrize("name", RESIDUAL)
def test_the_solvers_tolerance_is_in_the_unit_of_the_data(name):
    """Contract 21: 1e-5 means 1e-5."""
    layer = make(name)
    layer.solver = BanachSolver(tolerance=1e-5)
    x = 100 * events(layer, 3)
    many_passes, one_pass = (layer.call_and_ladj, layer.inv_call_and_ladj)
    if layer.fast == "sample":
        many_passes, one_pass = one_pass, many_passes
    with torch.no_grad():
        difference = layer.action_in.space.difference(one_pass(many_passes(x)[0])[0], x)
        assert difference.abs().max() <= 1.01e-5


@pytest.mark.parametrize("name", SMOOTH)
def test_the_log_det_has_a_gradient_in_every_parameter_that_shapes_the_slope(name):
    """Contract 45: of the biases too, all but the last layer's, which no Jacobian can see."""
    layer = make(name).train()
    ladj = (layer.inv_call_and_ladj if layer.fast == "score" else layer.call_and_ladj)(2 * events(layer, 40))[1]
    named = {key: parameter for key, parameter in layer.named_parameters() if parameter.numel()}
    gradients = torch.autograd.grad(ladj.sum(), list(named.values()), allow_unused=True)
    without = [key for key, g in zip(named, gradients, strict=True) if g is None or not (g != 0).any()]
    assert len(without) <= 1, without


def test_an_activation_without_a_bound_is_refused():
    """Contract 35: gates are unbounded, so no residual branch may hold one."""
    action = VectorAction.plane("D4")
    with pytest.raises(ValueError, match="below 1, got inf.*gated"):
        GResidual(action, LipschitzNetwork(action, width=2, activation="gated"))


def test_a_branch_without_a_bound_is_refused():
    layer = make(RESIDUAL[0])

    class Wild(torch.nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(TypeError, match="lipschitz_bound"):
        GResidual(layer.action_in, Wild(), log_det=ExactLogDet())
    wild = Wild()
    wild.lipschitz_bound = lambda: torch.tensor(1.0)
    with pytest.raises(ValueError, match="below 1, got 1"):
        GResidual(layer.action_in, wild)
