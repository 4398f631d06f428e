"""What an estimator is told of a residual map, and how probes follow a group."""

import dataclasses

import pytest
import torch

from pyro_gflows import GResidual, VectorAction
from pyro_gflows.nn import LipschitzSum, Ridges
from pyro_gflows.numerics import (
    CarriedProbes,
    ConstantMemory,
    ExactLogDet,
    LogDet,
    OrbitAverage,
    ResidualMap,
    SeriesLogDet,
    as_branch,
)
from tests.numerics.branches import AnalyticBranch, Branch, EquivariantBranch


def points(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class FirstTerm(LogDet):
    """An estimator of one's own: the trace alone."""

    def estimate(self, residual_map, x, *, create_graph):
        with torch.set_grad_enabled(create_graph):
            value, jacobian = residual_map.f.call_and_jacobian(x)
            return value, jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)

    def describe(self, *, lipschitz, dim, images=None):
        return "first term"


@pytest.mark.parametrize("kind", [Branch, AnalyticBranch])
def test_an_estimator_of_ones_own_writes_two_methods(kind):
    f, x = kind((4,)), points(5, 4).requires_grad_()
    _, expected = SeriesLogDet(1, probes=None)(f, x, 1, lipschitz=0.8, training=False)
    gradient = torch.autograd.grad(expected.sum(), x)[0]
    for estimator in (FirstTerm(), ConstantMemory(FirstTerm())):
        value, log_det = estimator(f, x, 1, lipschitz=0.8, training=False)
        torch.testing.assert_close(value, f(x))
        torch.testing.assert_close(log_det, expected)
        torch.testing.assert_close(torch.autograd.grad(log_det.sum(), x)[0], gradient)
        with torch.no_grad():
            assert not estimator(f, x, 1, lipschitz=0.8, training=False)[1].requires_grad
    action = VectorAction.plane("D4")
    layer = GResidual(action, LipschitzSum([Ridges(action)]), log_det=FirstTerm())
    assert "log-det first term" in repr(layer)
    assert layer.inv_call_and_ladj(points(5, 2).float())[1].shape == (5,)


def test_a_call_is_the_estimate_of_the_map_that_is_described():
    f, x = EquivariantBranch(copies=2), points(3, 4)
    described = ResidualMap.of(f, 1, lipschitz=torch.tensor(0.8), orbit=f.orbit)
    assert described.lipschitz == pytest.approx(0.8)
    assert isinstance(described.images, OrbitAverage)
    estimator = SeriesLogDet(5, probes=2)
    called = estimator(f, x, 1, lipschitz=0.8, training=False, orbit=f.orbit)
    for own, expected in zip(estimator.value_and_log_det(described, x), called, strict=True):
        assert torch.equal(own, expected)
    with pytest.raises(dataclasses.FrozenInstanceError):
        described.training = True


def test_a_branch_is_completed_by_autograd():
    x, vector = points(5, 4), points(5, 4).sin()
    for f in (Branch((4,)), AnalyticBranch((4,)), torch.nn.Identity()):
        branch = as_branch(f, 1)
        value, jacobian = branch.call_and_jacobian(x)
        torch.testing.assert_close(branch(x), value)
        assert getattr(f, "calls", 1) == 1  # the one that it knows
        with torch.enable_grad():
            _, product = branch.call_and_pullback(x)
        torch.testing.assert_close(product(vector, create_graph=False), (jacobian.mT @ vector[..., None])[..., 0])
        assert as_branch(branch, 1) is branch


def test_carried_probes_are_exactly_invariant_and_cost_one_image():
    f, x = EquivariantBranch(copies=3), points(10, 6)
    w = points(7, 6)[-1]

    def carry(probes, x):
        chosen = f.matrices[(x @ (f.matrices @ w).mT).argmax(-1)]
        return torch.einsum("bij,kj->kbi", chosen, probes)

    estimator, images = SeriesLogDet(8, probes=2), CarriedProbes(carry)
    _, found = estimator(f, x, 1, lipschitz=0.8, training=False, orbit=images)
    _, plain = estimator(f, x, 1, lipschitz=0.8, training=False)
    apart = []
    for g in f.matrices:
        image = x @ g.mT
        own = estimator(f, image, 1, lipschitz=0.8, training=False, orbit=images)[1]
        torch.testing.assert_close(own, found, rtol=0, atol=1e-12)
        apart.append((estimator(f, image, 1, lipschitz=0.8, training=False)[1] - plain).abs().max())
    assert max(apart) > 1e-3
    assert images(points(2, 6), x, 1).shape == (1, 2, 10, 6)
    text = estimator.describe(lipschitz=0.8, dim=6, images=images)
    assert text.endswith("; probes follow x, so the estimate may jump where the canonical element of x changes")
    assert ConstantMemory(estimator).describe(lipschitz=0.8, dim=6, images=images) == f"{text}; in constant memory"
    assert ExactLogDet().describe(lipschitz=0.8, dim=6, images=images) == "exact"
