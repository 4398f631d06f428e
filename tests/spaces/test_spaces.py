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
from pyro_gflows.spaces import Euclidean, MeanFree, Space, Torus
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
    "particles": MeanFree(4, 2),
    "an angle": Torus((1,)),
    "angles": Torus((2, 3)),
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
    torch.testing.assert_close(space.difference(space.project(x), x), torch.zeros_like(x), rtol=0, atol=1e-12)
    # a curve in the space leaves x along its tangent space
    step = 1e-6 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    velocity = (space.difference(space.project(x + step), space.project(x - step)) / 2e-6).reshape(*batch, -1, 1)
    torch.testing.assert_close(basis.mT @ (basis @ velocity), velocity, rtol=0, atol=1e-8)


def test_values():
    space = Euclidean((2, 3))
    assert space == Euclidean(torch.Size([2, 3])) == pickle.loads(pickle.dumps(space)) == build(describe(space))
    assert hash(space) == hash(Euclidean((2, 3))) and space != Euclidean((6,)) and space != Circle()
    assert (space.dimension, space.volume) == (6, math.inf)
    with pytest.raises(ValueError, match=r"expected an event shape of positive sizes, got \(2, 0\)"):
        Euclidean((2, 0))


def test_values_of_the_torus():
    space = Torus((2, 3))
    assert space == Torus(torch.Size([2, 3])) == pickle.loads(pickle.dumps(space)) == build(describe(space))
    assert space != Torus((6,)) and space != Euclidean((2, 3)) and hash(space) == hash(Torus((2, 3)))
    assert space.dimension == 6 and space.volume == pytest.approx((2 * math.pi) ** 6)
    assert space.constraint is Torus((4, 5)).constraint is not Euclidean((2, 3)).constraint
    x = torch.full((2, 3), -1e9)
    assert space.constraint.check(x) and not space.constraint.check(torch.full((2, 3), math.nan))
    with pytest.raises(ValueError, match=r"expected an event shape of positive sizes, got \(0,\)"):
        Torus((0,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angles_are_wrapped_into_the_half_open_circle(dtype):
    tiny = torch.tensor([-1e-20, -1e-7, -1e-8, -1e-16, 0.0, 1e-20], dtype=dtype)
    whole = torch.arange(-9, 10, dtype=dtype) * torch.tensor(2 * math.pi, dtype=dtype)
    near = torch.cat([whole, whole.nextafter(whole + 1), whole.nextafter(whole - 1)])
    x = torch.cat([tiny, near, torch.linspace(-50, 50, 999, dtype=dtype)]).requires_grad_()
    wrapped = Torus((1,)).project(x)
    assert (wrapped >= 0).all() and (wrapped.double() < 2 * math.pi).all()
    torch.testing.assert_close(
        torch.polar(torch.ones_like(x), wrapped),
        torch.polar(torch.ones_like(x), x),
        rtol=0,
        atol=1e-5 if dtype is torch.float32 else 1e-14,
    )
    assert torch.equal(torch.autograd.grad(wrapped.sum(), x)[0], torch.ones_like(x))


def test_the_difference_of_angles_is_the_shortest():
    torus = Torus((1,))
    a, b = points(torus, 1000), points(torus, 1000, seed=1)
    difference = torus.difference(a, b + 20 * math.pi)
    assert (difference >= -math.pi).all() and (difference < math.pi).all()
    torch.testing.assert_close((b + difference - a).cos(), torch.ones_like(a), rtol=0, atol=1e-14)
    tiny = torch.tensor([1e-13], dtype=torch.float64)
    assert torch.equal(torus.difference(tiny, torch.zeros_like(tiny)), tiny)  # not rounded to the precision of pi
    assert (
        torus.difference(torch.tensor(math.pi, dtype=torch.float64), torch.zeros((), dtype=torch.float64)) == -math.pi
    )


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


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_center_of_mass_is_checked_in_any_unit(unit):
    x = unit * torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    constraint = MeanFree(3, 2).constraint
    assert not constraint.check(x) and constraint.check(x - x.mean(0)) and constraint.check(torch.zeros(3, 2))
