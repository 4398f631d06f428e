"""Splits of angles: orbits, coordinates in which a group shifts little, and the combinations that networks read."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from pyro_gflows.actions import TorusAction, TorusSplit, VectorAction, default_split
from pyro_gflows.serialization.registry import build, describe
from tests.constructors.circular import exchange, glide, half_periods
from tests.constructors.torus import square

CIRCLE = 2 * math.pi
ROTATION = ([[-1, 0], [0, -1]], [math.pi / 2, math.pi / 3])  # by 180 degrees, about a point other than 0
FIFTHS = [[Fraction(1, 5), Fraction(2, 5), 0]]
ACTIONS = {
    "none": lambda: TorusAction.trivial(3),
    "half periods of both": lambda: TorusAction.translations([[math.pi, math.pi]]),
    "half periods of each": lambda: TorusAction.translations([[math.pi, 0], [0, math.pi]]),
    "thirds and sixths": lambda: TorusAction.translations([[Fraction(1, 3), Fraction(1, 6)]]),
    "fifths": lambda: TorusAction.translations(FIFTHS),
    "D2": lambda: TorusAction.point_group("D2"),
    "D2 with half periods": half_periods,
    "glide": glide,
    "rotation about a point": lambda: TorusAction.from_generators([ROTATION]),
    "exchange": exchange,
    "reflections with fifths": lambda: TorusAction.point_group(
        VectorAction.from_generators([-torch.eye(3).double()])
    ).with_translations(FIFTHS),
    "exchanged pairs": lambda: TorusAction.from_generators(
        [([1, 0, 3, 2], [0, 0, 0, 0]), ([0, 1, 2, 3], [Fraction(1, 4)] * 2 + [Fraction(3, 4)] * 2)]
    ),
}
CONTINUOUS = {
    "sum": [[1, 1]],
    "twice": [[2, -1]],
    "three": [[1, 1, 0], [0, 1, -1]],
    "with thirds": [[3, 3, 0], [0, 1, 1]],
    "one free": [[1, 1, 0]],
}


def coordinates(split, frame, part, read, x):
    own, others = split.angles_of([part]), split.angles_of(read)
    rows = torch.tensor(frame.combinations, dtype=torch.float64).reshape(len(own), len(others))
    origin = CIRCLE * torch.tensor([float(o) for o in frame.origin], dtype=torch.float64)
    return torch.tensor(frame.repeats) * x[..., own] - x[..., others] @ rows.T - origin


def off_circle(angle):
    return (angle - CIRCLE * (angle / CIRCLE).round()).abs().max()


def all_frames(action):
    """Every part with all other parts, and with none of them."""
    split = TorusSplit(action)
    for part in range(len(split.parts)):
        for read in ([other for other in range(len(split.parts)) if other != part], []):
            yield split, part, read, split.frame(part, read)


def points(action, *batch):
    return 5 * torch.randn(*batch, action.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ACTIONS)
def test_the_group_acts_on_the_coordinates_as_the_frame_says(name):
    action = ACTIONS[name]()
    x = points(action, 4)
    for split, part, read, frame in all_frames(action):
        own = split.angles_of([part])
        acts = split.action_in_frame(part, read)
        assert (frame.sectors == 1) == isinstance(acts, VectorAction)
        before = coordinates(split, frame, part, read, x)
        for g in action.elements():
            after = coordinates(split, frame, part, read, action.act(g, x))
            linear = before @ action.matrices[g][own][:, own].T
            expected = acts.act(g, before) if frame.sectors > 1 else linear
            assert off_circle(after - expected) < 1e-9
            assert off_circle(frame.sectors * (after - linear)) < 1e-9
            if frame.sectors == 1:
                torch.testing.assert_close(acts.act(g, before), linear)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_map_repeats_only_as_often_as_an_invariant_density_does(name):
    """As often as the group shifts the angle and leaves the angles that are read as they are."""
    action = ACTIONS[name]()
    identity = torch.eye(action.numel, dtype=torch.float64)
    for split, part, read, frame in all_frames(action):
        others = split.angles_of(read)
        for place, angle in enumerate(split.angles_of([part])):
            kept = [*others, *split.angles_of([part])]
            pure = (action.matrices[:, kept] == identity[kept]).flatten(1).all(1)
            pure &= (action.shifts[:, others] == 0).all(1)
            amounts = {round(float(shift) / CIRCLE, 9) for shift in action.shifts[pure, angle]}
            assert frame.repeats[place] == len(amounts)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_under_continuous_translations_the_coordinates_are_fixed(name):
    action = TorusAction.fixing(CONTINUOUS[name])
    split = TorusSplit(action, [[index] for index in range(action.numel)])
    x = points(action, 4)
    for part in range(len(split.parts)):
        read = [other for other in range(len(split.parts)) if other != part]
        frame = split.frame(part, read)
        assert frame.sectors == 1
        if frame.repeats == (0,):
            assert name == "one free" and part == 2
            continue
        before = coordinates(split, frame, part, read, x)
        for g in action.group.sample((5,), torch.Generator().manual_seed(1)):
            assert off_circle(coordinates(split, frame, part, read, action.act(g, x)) - before) < 1e-9


@pytest.mark.parametrize(
    ("action", "part", "expected"),
    [
        (TorusAction.trivial(2), 0, ((1,), ((0,),), 1)),
        (TorusAction.translations([[math.pi, math.pi]]), 0, ((1,), ((1,),), 1)),
        (TorusAction.translations([[math.pi, 0]]), 0, ((2,), ((0,),), 1)),
        (TorusAction.translations([[Fraction(1, 3), Fraction(1, 6)]]), 0, ((1,), ((2,),), 1)),
        (TorusAction.translations([[Fraction(1, 3), Fraction(1, 6)]]), 1, ((2,), ((1,),), 1)),
        (TorusAction.fixing([[1, 1]]), 0, ((1,), ((-1,),), 1)),
        (TorusAction.fixing([[2, -1]]), 0, ((2,), ((1,),), 1)),
        (half_periods(), 0, ((1,), ((0,),), 2)),
        (glide(), 1, ((1,), ((0,),), 1)),
    ],
)
def test_the_coordinates_of_some_groups(action, part, expected):
    frame = TorusSplit(action).frame(part, [1 - part])
    assert (frame.repeats, frame.combinations, frame.sectors) == expected


def test_a_reflection_about_a_point_has_its_origin_there():
    action = TorusAction.from_generators([ROTATION])
    frame = TorusSplit(action).frame(0, [1])
    assert frame.origin == (Fraction(1, 8),) and frame.combinations == ((0,),)


def test_a_common_translation_beside_a_reflection_of_both_is_subtracted():
    """With both angles reflected at once, x1 - x2 is reflected and not shifted."""
    action = TorusAction.point_group("C2").with_translations([[math.pi, math.pi]])
    frame = TorusSplit(action).frame(0, [1])
    assert frame.combinations == ((1,),) and (frame.repeats, frame.sectors) == ((1,), 1)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_networks_read_all_small_combinations(order):
    split = TorusSplit(TorusAction.trivial(3), [[0, 2], [1]], order=order)
    found = split.frequencies([0])
    both = {*found, *(tuple(-entry for entry in vector) for vector in found)}
    expected = {
        vector
        for vector in itertools.product(range(-order, order + 1), repeat=3)
        if 0 < sum(map(abs, vector)) <= order and vector[1] == 0
    }
    assert both == expected and len(found) == len(expected) // 2
    assert all(vector[1] for vector in split.frequencies([0, 1], involving=1))
    assert split.frequencies([]) == []


@pytest.mark.parametrize("name", CONTINUOUS)
def test_under_continuous_translations_networks_read_fixed_combinations(name):
    action = TorusAction.fixing(CONTINUOUS[name])
    split = TorusSplit(action, [[index] for index in range(action.numel)], order=1)
    everything = range(action.numel)
    rows = torch.tensor(split.frequencies(list(everything)), dtype=torch.float64)
    shifts = action.group.sample((7,), torch.Generator().manual_seed(1))
    assert off_circle(shifts @ rows.T) < 1e-9
    assert torch.linalg.matrix_rank(rows) == len(action.fixed_combinations)
    assert split.frequencies([0]) == []  # no multiple of one angle is fixed


def test_splits_are_values_and_are_described():
    split = TorusSplit(exchange(), [[2], [0, 1]], order=1)
    assert build(describe(split)) == split != TorusSplit(exchange(), [[2], [0, 1]])
    assert split != TorusSplit(exchange(), order=1) and hash(build(describe(split))) == hash(split)
    assert build(describe(TorusSplit(square(), [range(2)]))).parts == TorusSplit(square(), [range(2)]).parts
    assert isinstance(default_split(exchange()), TorusSplit)
    x = points(exchange(), 5)
    assert torch.equal(split.merge(split.split(x)), x) and [part.shape for part in split.split(x)] == [(5, 1), (5, 2)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: TorusSplit(square()),
            r"the angles of .*D4.* are one orbit, \[0, 1\].*use g_residual .* or GGradient",
        ),
        (lambda: default_split(TorusAction.trivial(1)), r"the angles .* are one orbit, \[0\]"),
        (
            lambda: TorusSplit(exchange(), [[0], [1, 2]]),
            r"part 0, \[0\], is not mapped to itself .* cuts the orbit \[0, 1\]",
        ),
        (lambda: TorusSplit(exchange(), [[0, 1]]), r"expected at least one list that holds every angle 0..2 once"),
        (lambda: TorusSplit(glide(), order=0), r"at least 1, got 0"),
    ],
)
def test_impossible_splits_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_actions_are_refused():
    with pytest.raises(TypeError, match="expected a TorusAction to split by angles"):
        TorusSplit(VectorAction.plane("D4"))
