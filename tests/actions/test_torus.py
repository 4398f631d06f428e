"""Actions on angles: homomorphism, exact closure, translations and the combinations that they fix, errors."""

import copy
import math
import pickle
from fractions import Fraction

import pytest
import torch

from pyro_gflows import GActNorm, GLinear, InvariantNormal, g_radial
from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.groups import IsometryTable, TorusTranslations
from pyro_gflows.groups.finite import CyclicGroup
from pyro_gflows.numerics.angles import angle_between
from pyro_gflows.numerics.integer_lattices import in_lattice
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.spaces import Torus

HALF, THIRD = Fraction(1, 2), Fraction(1, 3)
GLIDE = ([[1, 0], [0, -1]], [math.pi, 2 * math.pi / 3])
CUBE = VectorAction.from_generators([[1, 2, 0], [1, 0, 2], [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]])
ACTIONS = {
    "none": (TorusAction.trivial(3), 1),
    "reflection": (TorusAction.point_group(VectorAction.signs(1)), 2),
    "C4": (TorusAction.point_group("C4"), 4),
    "D4": (TorusAction.point_group("D4"), 8),
    "S3": (TorusAction.point_group(VectorAction.rows("S3")), 6),
    "cube": (TorusAction.point_group(CUBE), 48),
    "half periods": (TorusAction.translations([[math.pi, math.pi]]), 2),
    "quarters": (TorusAction.translations([[math.pi / 2, 0.0], [0.0, HALF]]), 8),
    "D4, half periods": (TorusAction.point_group("D4").with_translations([[math.pi, 0.0]]), 32),
    "D1, thirds": (TorusAction.point_group("D1").with_translations([[0.0, THIRD]]), 6),
    "glide": (TorusAction.from_generators([GLIDE]), 2),
    "screw": (TorusAction.from_generators([([[0, 1], [1, 0]], [math.pi / 2, 0.0])]), 8),
    "difference": (TorusAction.fixing([[1, -1]]), math.inf),
    "two parts": (TorusAction.fixing([[2, 0, 0], [0, 3, 3]]), math.inf),
    "one angle of three": (TorusAction.fixing([[0, 0, 1], [0, 1, 0]]), math.inf),
    "fixed and finite": (TorusAction.fixing([[2, 1], [1, 3]]), 5),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param][0]


def angles(action, *batch, dtype=torch.float64):
    x = 9 * torch.randn(*batch, action.numel, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.to(dtype)


def elements_of(action, *batch):
    return action.sample(batch, torch.Generator().manual_seed(1))


def assert_same(x, y, tol=1e-12):
    assert angle_between(x, y).abs().max() <= tol


@pytest.mark.parametrize("name", ACTIONS)
def test_the_order_is_that_of_the_closure(name):
    action, order = ACTIONS[name]
    assert action.group.order == order and action.is_finite == (order < math.inf)
    if action.is_finite:  # all maps are different
        images = action.act_all(angles(action))
        distances = angle_between(images[:, None], images).abs().amax(-1) + torch.eye(order)
        assert distances.min() > 1e-3


def test_it_is_an_action(action):
    x, g, h = angles(action, 20), elements_of(action, 20), elements_of(action, 20).flip(0)
    group = action.group
    assert_same(action.act_each(g, action.act_each(h, x)), action.act_each(group.compose(g, h), x))
    assert_same(action.act_each(group.inverse(g), action.act_each(g, x)), x)
    assert_same(action.act(group.identity(), x), x)
    images = action.act_each(g, x)
    assert (images >= 0).all() and (images < 2 * math.pi).all() and action.space == Torus((action.numel,))
    assert_same(action.act_each(g, x + 2 * math.pi), images)


def test_the_map_is_that_of_the_matrices_and_shifts(action):
    x, g = angles(action, 20), elements_of(action, 20)
    assert_same(action.act_each(g, x), (action.matrix(g) @ x[..., None]).squeeze(-1) + action.shift(g))
    assert action.linear_part.group == action.group
    torch.testing.assert_close(action.linear_part.matrix(g), action.matrix(g), rtol=0, atol=0)
    if action.is_finite:
        assert torch.equal(action.matrices, action.matrix(action.elements()))
        assert torch.equal(action.shifts, action.shift(action.elements())) and (action.shifts < 2 * math.pi).all()


def test_the_generators_make_the_group(action):
    x, reached = angles(action), [angles(action)]
    for _ in range(60 if action.is_finite else 0):
        reached.append(action.act(action.generators()[len(reached) % len(action.generators())], reached[-1])) if len(
            action.generators()
        ) else None
    for image in reached:
        assert angle_between(action.act_all(x) if action.is_finite else x, image).abs().amax(-1).min() < 1e-10


def test_the_combinations_are_exactly_those_that_pure_translations_fix(action):
    g = action.elements() if action.is_finite else elements_of(action, 200)
    pure = (action.matrix(g) == torch.eye(action.numel)).flatten(1).all(1)
    shifts = action.shift(g)[pure]
    for k in torch.cartesian_prod(*[torch.arange(-4, 5)] * action.numel).reshape(-1, action.numel):
        fixed = ((shifts @ k.double()).cos() > 1 - 1e-12).all()
        assert in_lattice(action.fixed_combinations, k.tolist()) == fixed
    for index, order in enumerate(action.translation_order):
        count = len(shifts[:, index].mul(1e6 / (2 * math.pi)).round().remainder(1e6).unique())
        assert count == order if order < math.inf else count > 100


def test_an_action_is_a_value(action):
    x, g = angles(action), elements_of(action)
    for twin in (copy.deepcopy(action), pickle.loads(pickle.dumps(action)), build(describe(action))):
        assert twin == action and hash(twin) == hash(action) and repr(twin) == repr(action)
        assert torch.equal(twin.act(g, x), action.act(g, x))
    assert action.without_symmetry() == TorusAction.trivial(action.numel)
    assert [name for name, (other, _) in ACTIONS.items() if other == action] == [
        name for name, (other, _) in ACTIONS.items() if other is action
    ]


def test_float32(action):
    image = action.act_each(elements_of(action, 20), angles(action, 20, dtype=torch.float32))
    assert image.dtype is torch.float32 and (image.double() < 2 * math.pi).all()


def test_uniform_draws_of_a_closed_group():
    """The averages of the characters vanish, except of those that all translations fix."""
    for name in ("difference", "two parts", "one angle of three"):
        group = ACTIONS[name][0].group
        for elements, weights, tol in (
            (group.sample((20000,), torch.Generator().manual_seed(0)), torch.full((20000,), 1 / 20000).double(), 0.03),
            (*group.quadrature(4), 1e-12),
        ):
            for k in torch.cartesian_prod(*[torch.arange(-2, 3)] * group.dimension):
                average = (weights * (elements @ k.double()).cos()).sum()
                expected = float(in_lattice(group.fixed, k.tolist()))
                assert average == pytest.approx(expected, abs=tol)


def test_closures_are_exact():
    assert TorusAction.translations([[2 * math.pi / 7]]).group.order == 7
    assert TorusAction.translations([[Fraction(1, 1000)]]).group.order == 1000
    assert TorusAction.translations([[-math.pi / 2]]) == TorusAction.translations([[Fraction(3, 4)]])
    assert TorusAction.fixing([[2]]) == TorusAction.translations([[math.pi]])
    assert TorusAction.translations(torch.tensor([[math.pi, 0.0]], dtype=torch.float64)).group.order == 2


def test_bad_input():
    with pytest.raises(ValueError, match=r"rational part of the full circle.*got 1.0 radians = 0.159155 of the circle"):
        TorusAction.translations([[1.0]])
    with pytest.raises(ValueError, match=r"rational part.*TorusAction.fixing"):
        TorusAction.point_group("D4").with_translations([[math.sqrt(2), 0.0]])
    with pytest.raises(ValueError, match="only the uniform density|has only the uniform density"):
        TorusAction.fixing([[0, 0]])
    with pytest.raises(ValueError, match="more than max_order=10"):
        TorusAction.from_generators([([[1]], [Fraction(1, 11)])], max_order=10)
    with pytest.raises(ValueError, match="C1, C2, C4, D1, D2 and D4"):
        TorusAction.point_group("D8")
    with pytest.raises(ValueError, match="signed permutation matrix"):
        c, s = math.cos(1.0), math.sin(1.0)
        TorusAction.from_generators([([[c, -s], [s, c]], [0.0, 0.0])])
    with pytest.raises(ValueError, match="a translation of 2 angles, got 1"):
        TorusAction.from_generators([([1, 0], [0.0])])
    with pytest.raises(ValueError, match="one number of angles"):
        TorusAction.from_generators([([1, 0], [0.0, 0.0]), ([0], [0.0])])
    with pytest.raises(TypeError, match="expected an angle in radians"):
        TorusAction.translations([["half"]])
    with pytest.raises(ValueError, match=r"a list of translations, each a vector of angles, such as .*, got \[0.5, 1"):
        TorusAction.translations([0.5, 1.0])
    for entry in (math.nan, math.inf, "1", 0.5):
        with pytest.raises(ValueError, match="combinations with whole coefficients"):
            TorusAction.fixing([[entry, 1]])
    with pytest.raises(ValueError, match="infinitely many"):
        TorusAction.fixing([[1, 1]]).with_translations([[math.pi, 0.0]])
    with pytest.raises(ValueError, match="expected a finite group|needs a finite group"):
        print(TorusAction.fixing([[1, 1]]).matrices)
    with pytest.raises(ValueError, match="only 4 translations fix"):
        TorusTranslations([[4]])
    with pytest.raises(ValueError, match="multiply as the elements"):
        IsometryTable(CyclicGroup(2), [[[1]], [[1]]], steps=[[0], [1]], denominator=3)
    with pytest.raises(TypeError, match=r"TorusAction.point_group\('D4'\)"):
        TorusAction("D4")


@pytest.mark.parametrize("make", [GActNorm, InvariantNormal, GLinear, g_radial])
def test_maps_of_vectors_name_what_works_on_angles(make):
    with pytest.raises((TypeError, ValueError), match="on angles take the bases InvariantUniform.*g_residual"):
        make(TorusAction.point_group("D4"))
