"""Every space against what a space promises, and the log-det test on a curved one; a new space is one new row."""

import math
import pickle

import pytest
import torch
from torch.distributions import constraints

from pyro_gflows import EquivariantFlow, EquivariantTransform, GActNorm, InvariantNormal, VectorAction
from pyro_gflows.actions import Action
from pyro_gflows.groups import parse_group
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.spaces import Euclidean, Space
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_log_det


class _OnCircle(constraints.Constraint):
    event_dim = 1

    def check(self, value):
        return (value.square().sum(-1) - 1).abs() < 1e-6


class Circle(Space):
    """The unit circle in the plane, with its length."""

    event_shape = torch.Size([2])
    constraint = _OnCircle()
    dimension = 1
    volume = 2 * math.pi

    def project(self, x):
        return x / x.norm(dim=-1, keepdim=True)

    def tangent_basis(self, x):
        return torch.stack([-x[..., 1], x[..., 0]], -1).unsqueeze(-2)

    def _key(self):
        return ()


SPACES = {
    "a number": Euclidean(()),
    "R^3": Euclidean((3,)),
    "images": Euclidean((2, 3, 3)),
    "a circle": Circle(),
}


def points(space, *batch, seed=0):
    shape = (*batch, *space.event_shape)
    return space.project(torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
@pytest.mark.parametrize("name", SPACES)
def test_projections_and_tangents(name, batch):
    space = SPACES[name]
    x = points(space, *batch)
    assert space.constraint.event_dim == space.event_dim
    assert space.constraint.check(x).shape == batch and space.constraint.check(x).all()
    torch.testing.assert_close(space.project(x), x, rtol=0, atol=1e-12)
    basis = space.tangent_basis(x)
    assert basis.shape == (*batch, space.dimension, space.event_shape.numel())
    torch.testing.assert_close(
        basis @ basis.mT, torch.eye(space.dimension, dtype=x.dtype).expand(*batch, -1, -1), rtol=0, atol=1e-12
    )
    # a curve in the space leaves x along its tangent space
    step = 1e-6 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    velocity = ((space.project(x + step) - space.project(x - step)) / 2e-6).reshape(*batch, -1, 1)
    torch.testing.assert_close(basis.mT @ (basis @ velocity), velocity, rtol=0, atol=1e-8)


def test_values():
    space = Euclidean((2, 3))
    assert space == Euclidean(torch.Size([2, 3])) == pickle.loads(pickle.dumps(space)) == build(describe(space))
    assert hash(space) == hash(Euclidean((2, 3))) and space != Euclidean((6,)) and space != Circle()
    assert (space.dimension, space.volume) == (6, math.inf)
    with pytest.raises(ValueError, match=r"expected an event shape of positive sizes, got \(2, 0\)"):
        Euclidean((2, 0))


class Turned(Action):
    """C_n turning the circle."""

    def __init__(self, group):
        self.group, self.event_shape, self.space = parse_group(group), torch.Size([2]), Circle()
        self._plane = VectorAction.plane(group)

    space = None

    def act_each(self, elements, x):
        return self._plane.act_each(elements, x)

    def without_symmetry(self):
        return Turned("C1")

    def _key(self):
        return self.group


class Wave(EquivariantTransform):
    """theta -> theta + a sin(n theta) / n: a bijection of the circle for |a| < 1 that C_n leaves alone."""

    spaces = (Circle,)

    def __init__(self, n, size=0.6):
        super().__init__(Turned(f"C{n}"))
        self.n, self.size = n, size

    def call_and_ladj(self, x, context=None):
        angle = torch.atan2(x[..., 1], x[..., 0])
        image = angle + self.size * (self.n * angle).sin() / self.n
        return torch.stack([image.cos(), image.sin()], -1), (1 + self.size * (self.n * angle).cos()).log()

    def inv_call_and_ladj(self, y, context=None):
        target = torch.atan2(y[..., 1], y[..., 0])
        angle = target
        for _ in range(200):
            angle = target - self.size * (self.n * angle).sin() / self.n
        x = torch.stack([angle.cos(), angle.sin()], -1)
        return x, -self.call_and_ladj(x)[1]


@pytest.mark.long
def test_the_log_det_on_a_curved_space():
    layer = Wave(3)
    x = points(Circle(), 5)
    assert layer.domain is layer.codomain is Circle.constraint and layer.reaches_all
    assert_equivariant(layer, layer.action_in, layer.action_in, x)
    assert_bijective(layer, x)
    assert_log_det(layer, x, tol=1e-7)
    assert_log_det(layer.inv, x, tol=1e-7)


def test_a_wrong_log_det_on_a_curved_space_is_found():
    class Wrong(Wave):
        def call_and_ladj(self, x, context=None):
            y, ladj = super().call_and_ladj(x)
            return y, ladj + 1e-3 * x[..., 0]

    with pytest.raises(AssertionError, match="the log-det is not autograd's"):
        assert_log_det(Wrong(3), points(Circle(), 5), tol=1e-7)


@pytest.mark.parametrize("make", [GActNorm, InvariantNormal])
def test_other_spaces_are_refused_where_a_map_is_built(make):
    with pytest.raises((ValueError, TypeError), match="Euclidean|LinearAction"):
        make(Turned("C3"))


def test_a_transform_of_the_circle_refuses_the_plane():
    class Plane(Turned):
        space = Euclidean((2,))

        def __init__(self, group):
            self.group, self.event_shape, self._plane = parse_group(group), torch.Size([2]), VectorAction.plane(group)

    class OnPlane(Wave):
        def __init__(self):
            EquivariantTransform.__init__(self, Plane("C3"))

    with pytest.raises(ValueError, match=r"OnPlane is defined on Circle, got events on Euclidean\(2\)"):
        OnPlane()


@pytest.mark.parametrize("action", [VectorAction.plane("C4"), VectorAction.regular("C4")])
def test_supports_come_from_the_space(action):
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
    constraint = action.space.constraint
    assert flow.base.support is flow.dist.support is flow.transforms[0].domain is flow.transforms[0].codomain
    assert flow.dist.support is constraint


def test_a_space_and_an_action_of_ones_own_are_named_in_errors():
    assert repr(Circle()) == "Circle(2)"
    assert repr(Euclidean((3, 8, 8))) == "Euclidean(3 x 8 x 8)"
    with pytest.raises(ValueError, match=r"GActNorm is defined on Euclidean, got events on Circle\(2\)"):
        GActNorm(Turned("C4"))
    assert repr(Turned("C4")) == "Turned(C4 on 2)"
