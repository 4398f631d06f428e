"""A new group and a new action, each one small class, with a layer on it: what CONTRIBUTING.md says is all it takes."""

import copy
import math

import pytest
import torch

import pyro_gflows
from pyro_gflows.actions import Action, LinearAction, SitesAction, VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.groups import EnumerableGroup
from pyro_gflows.nn import RadialTerm, lipschitz_branch
from pyro_gflows.serialization.registry import build, describe, registered
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_log_det
from pyro_gflows.transforms import (
    EquivariantTransform,
    GActNorm,
    GAffine,
    GLinear,
    GOrbitNorm,
    GRadial,
    GSigmoid,
    g_residual,
)


@registered
class Carries(EnumerableGroup):
    """Addition modulo 2^bits, whose table would not fit into memory for many bits."""

    def __init__(self, bits):
        self.name, self.order = f"Z2^{bits}", 2**bits

    def compose(self, first, second):
        return (first + second) % self.order

    def inverse(self, elements):
        return -elements % self.order

    def generators(self):
        return torch.tensor([1])


@registered
class CurvedReflection(Action):
    """Odd elements reflect the plane in a curve, (u, v) -> (u, u^2 - v), which keeps areas and is not linear."""

    def __init__(self, bits):
        self.group, self.event_shape = Carries(bits), torch.Size([2])

    def act_each(self, elements, x):
        self.check_event(x)
        u, v = x.unbind(-1)
        return torch.stack(torch.broadcast_tensors(u, torch.where(elements.to(x.device) % 2 == 1, u**2 - v, v)), -1)

    def canonical(self, x):
        return (x[..., 1] < x[..., 0] ** 2 / 2).long()  # the image above the curve

    def without_symmetry(self):
        return VectorAction.trivial("C1", copies=2)

    def _key(self):
        return self.group


class Stretch(EquivariantTransform):
    """(u, v) -> (u, c + w |w|^(p - 1)) with c = u^2 / 2, w = v - c: odd in w, so it commutes with the reflection."""

    def __init__(self, action, power=1.5):
        super().__init__(action)
        self.power = power

    def _stretch(self, x, power):
        u, v = x.unbind(-1)
        w = v - u**2 / 2
        return torch.stack([u, u**2 / 2 + w * w.abs() ** (power - 1)], -1), math.log(power) + (
            power - 1
        ) * w.abs().log()

    def call_and_ladj(self, x, context=None):
        return self._stretch(x, self.power)

    def inv_call_and_ladj(self, y, context=None):
        return self._stretch(y, 1 / self.power)


ACTION = CurvedReflection(40)


def events():
    return torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_group_is_as_large_as_it_is():
    g, h = ACTION.sample((2, 10), torch.Generator().manual_seed(0))
    assert ACTION.group.order == 2**40 and int(g.max()) > 2**32
    assert torch.equal(ACTION.group.compose(g, ACTION.group.inverse(g)), torch.zeros_like(g))
    x = events()[:, None]
    twice = ACTION.act_each(g, ACTION.act_each(h, x))
    torch.testing.assert_close(ACTION.act_each(ACTION.group.compose(g, h), x), twice)
    with pytest.raises(ValueError, match="at most 4096 elements .* of order 1099511627776"):
        _ = ACTION.group.table
    with pytest.raises(ValueError, match=r"at most 1048576 elements to list them, got .*; use sample\(\)"):
        ACTION.act_all(x)


def test_a_layer_takes_it_and_is_tested():
    elements = ACTION.sample((6,), torch.Generator().manual_seed(0))
    layer = Stretch(ACTION)
    assert_bijective(layer, events())
    assert_log_det(layer, events())
    assert_equivariant(layer, ACTION, ACTION, events(), elements=elements)
    forms = [ACTION.act_each(ACTION.canonical(x), x) for x in (events(), ACTION.act(torch.tensor(1), events()))]
    torch.testing.assert_close(*forms)
    assert not torch.equal(*[ACTION.canonical(x) for x in (events(), ACTION.act(torch.tensor(1), events()))])
    with pytest.raises(TypeError, match="expected a LinearAction such as .* got CurvedReflection"):
        InvariantNormal(ACTION)


def test_they_are_values():
    for twin in (copy.deepcopy(ACTION), build(describe(ACTION))):
        assert twin == ACTION and hash(twin) == hash(ACTION)
    assert CurvedReflection(3) != ACTION != VectorAction.plane("C4")


LINEAR_ONLY = {
    "actnorm": GActNorm,
    "orbit norm": GOrbitNorm,
    "linear": GLinear,
    "radial": GRadial,
    "sigmoid": lambda action: GSigmoid(action, (0.0, 1.0)),
    "affine": lambda action: GAffine(action, context_action=action),
    "residual": g_residual,
    "radial term": RadialTerm,
    "branch": lipschitz_branch,
    "base": InvariantNormal,
}


@pytest.mark.parametrize("name", LINEAR_ONLY)
def test_what_needs_a_linear_action_says_so(name):
    with pytest.raises(TypeError, match="expected a LinearAction .*, got CurvedReflection$"):
        LINEAR_ONLY[name](CurvedReflection(3))
    sites = SitesAction("S3", {"z": VectorAction.rows("S3")})
    with pytest.raises(TypeError, match="got SitesAction; take its vector_action"):
        LINEAR_ONLY[name](sites)
    LINEAR_ONLY[name](sites.vector_action)


def test_the_name_of_before_still_works():
    for room in (pyro_gflows, pyro_gflows.actions):
        with pytest.warns(FutureWarning, match="GroupAction is pyro_gflows.actions.LinearAction now"):
            assert room.GroupAction is LinearAction
        with pytest.raises(AttributeError, match="NoAction"):
            _ = room.NoAction
