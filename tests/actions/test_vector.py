"""VectorAction: moving vectors, naming groups, values, and what bad input gets."""

import copy
import itertools
import math
import pickle

import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.groups import DihedralGroup, MatrixRepresentation
from pyro_gflows.groups.escnn_adapter import escnn_group
from pyro_gflows.serialization.registry import build, describe

ACTIONS = {
    "plane D8": VectorAction.plane("D8", copies=2),
    "regular C4": VectorAction.regular("C4", copies=2),
    "quotient": VectorAction.quotient("D4", [0, 4]),
    "trivial": VectorAction.trivial("C3", copies=2),
    "generators": VectorAction.from_generators([[1, 2, 0], [1, 0, 2]]),
    "SO(2)": VectorAction.plane("SO(2)"),
    "O(2)": VectorAction.plane("O(2)", copies=2),
    "SO(3)": VectorAction.space("SO(3)", copies=2),
    "O(3)": VectorAction.space("O(3)"),
}


@pytest.fixture(params=ACTIONS, ids=str)
def action(request):
    return ACTIONS[request.param]


def test_acts_as_its_materialized_orthogonal_matrix(action):
    elements = action.sample((4, 3), torch.Generator().manual_seed(0))
    x = torch.randn(4, 3, action.numel, dtype=torch.float64)
    matrices = action.matrix(elements)
    transformed = torch.einsum("abij,abj->abi", matrices, x)
    torch.testing.assert_close(action.act_each(elements, x), transformed, rtol=0, atol=1e-14)
    torch.testing.assert_close(action.act(elements[1, 2], x[1, 2]), transformed[1, 2], rtol=0, atol=1e-14)
    identity = torch.eye(action.numel, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, identity, rtol=0, atol=1e-14)


def test_is_a_homomorphism(action):
    first, second = action.sample((5,)), action.sample((5,))
    x = torch.randn(5, action.numel, dtype=torch.float64)
    product = action.group.table[first, second] if action.is_finite else first @ second
    transformed = action.act_each(first, action.act_each(second, x))
    torch.testing.assert_close(action.act_each(product, x), transformed, rtol=0, atol=1e-13)


def test_orbits_hold_every_image(action):
    x = torch.randn(2, 3, action.numel)
    if not action.is_finite:
        with pytest.raises(ValueError, match=r"infinitely many elements; use sample\(\)"):
            action.elements()
        return
    orbit = action.act_all(x)
    assert orbit.shape == (action.group.order, 2, 3, action.numel)
    for element, image in zip(action.elements(), orbit, strict=True):
        torch.testing.assert_close(action.act(element, x), image)


def test_is_a_value(action):
    for twin in (copy.deepcopy(action), pickle.loads(pickle.dumps(action)), build(describe(action))):
        assert twin == action
        assert hash(twin) == hash(action)
        assert str(twin) == str(action)
    assert action != VectorAction.plane("D5")


def test_groups_of_one_table_that_move_the_plane_differently_differ():
    rotated, reflected = VectorAction.plane("C2"), VectorAction.plane("D1")
    assert rotated != reflected
    assert [isotype.dim for isotype in rotated.decomposition] == [1]
    assert [isotype.is_trivial for isotype in reflected.decomposition] == [True, False]


def test_follows_the_dtype(action, dtype):
    x = torch.randn(3, action.numel, dtype=dtype)
    assert action.act_each(action.sample((3,)), x).dtype == dtype


@pytest.mark.parametrize("name", ["C4", "c4", "C_4", "C(4)", "D8", "SO(2)", "so2", "O(2)"])
def test_names_parse_as_people_write_them(name):
    assert VectorAction.plane(name).numel == 2


@pytest.mark.parametrize(
    ("action", "permutes", "up_to_signs"),
    [
        (VectorAction.regular("D3"), True, True),
        (VectorAction.trivial("SO(3)"), True, True),
        (VectorAction.plane("C4"), False, True),
        (VectorAction.plane("C8"), False, False),
        (VectorAction.plane("SO(2)"), False, False),
    ],
    ids=str,
)
def test_knows_permutations(action, permutes, up_to_signs):
    assert (action.is_permutation, action.is_signed_permutation) == (permutes, up_to_signs)
    if up_to_signs:
        absolute = action.absolute()
        elements = action.sample((6,))
        assert absolute.is_permutation
        assert torch.equal(absolute.matrix(elements), action.matrix(elements).abs())
    else:
        with pytest.raises(ValueError, match="expected a signed permutation action, got VectorAction"):
            action.absolute()


def test_direct_sums_lie_side_by_side():
    plane, regular = VectorAction.plane("D3"), VectorAction.regular("D3")
    together = plane.direct_sum(regular, plane)
    x = torch.randn(10, dtype=torch.float64)
    for element in together.elements():
        expected = torch.cat([plane.act(element, x[:2]), regular.act(element, x[2:8]), plane.act(element, x[8:])])
        torch.testing.assert_close(together.act(element, x), expected)
    assert plane.copies(3) == VectorAction.plane("D3", copies=3)


def test_takes_any_escnn_representation():
    group = escnn_group().dihedral_group(6)
    representation = group.irrep(1, 2) + group.regular_representation
    action = VectorAction(representation)
    x = torch.randn(action.numel, dtype=torch.float64)
    images = torch.stack([torch.tensor(representation(g), dtype=torch.float64) @ x for g in group.elements])
    orbit = action.act_all(x)
    assert torch.cdist(images, orbit).min(1).values.max() < 1e-12
    assert torch.cdist(orbit, images).min(1).values.max() < 1e-12


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: VectorAction([]), ValueError, "at least one representation, got none"),
        (lambda: VectorAction(3), TypeError, "expected a representation .* got int"),
        (lambda: VectorAction.plane("E8"), ValueError, "expected a group such as 'C4'.* got 'E8'"),
        (lambda: VectorAction.plane(4), TypeError, "expected a group or its name such as 'D4', got int"),
        (lambda: VectorAction.plane("SO(3)"), ValueError, r"acts on R\^2, got SO\(3\)"),
        (lambda: VectorAction.regular("O(2)"), ValueError, r"needs a finite group, got O\(2\)"),
        (lambda: VectorAction.quotient("C4", [0, 1]), ValueError, r"subgroup of C4, got \[0, 1\]"),
        (lambda: VectorAction.plane("C4").copies(0), ValueError, "positive number of copies, got 0"),
        (
            lambda: VectorAction.plane("C4").direct_sum(VectorAction.plane("C3")),
            ValueError,
            r"VectorAction\(C4 .* and VectorAction\(C3",
        ),
        (
            lambda: VectorAction([*VectorAction.plane("C4").fields, *VectorAction.plane("C3").fields]),
            ValueError,
            "representations of one group, got .*C4.*C3",
        ),
        (
            lambda: MatrixRepresentation(DihedralGroup(1), torch.eye(2).expand(3, 2, 2)),
            ValueError,
            r"shape \(2, d, d\), got \(3, 2, 2\)",
        ),
        (
            lambda: MatrixRepresentation(DihedralGroup(1), torch.stack([torch.eye(2), 2 * torch.eye(2)])),
            ValueError,
            "orthogonal representation of D1, got defects",
        ),
    ],
)
def test_bad_actions_say_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3, 3), ValueError, r"shape \(\.\.\., 2\) for VectorAction\(C4 .* got \(3, 3\)"),
        (torch.zeros(()), ValueError, r"got \(\)"),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError, r"floating-point tensor, got torch.int64; convert"),
        ([1.0, 2.0], TypeError, "got list"),
    ],
)
def test_bad_events_say_what_was_expected(x, error, message):
    with pytest.raises(error, match=message):
        VectorAction.plane("C4").act(torch.tensor(1), x)


def _turn(degrees):
    angle = math.radians(degrees)
    return [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]


def test_elements_of_generated_groups_are_all_products():
    action = VectorAction.from_generators([[1, 2, 3, 0], [1, 0, 2, 3]])
    permutations = {tuple(p) for p in itertools.permutations(range(4))}
    assert {tuple(matrix.argmax(0).tolist()) for matrix in action.matrix(action.elements())} == permutations
    assert VectorAction.from_generators([_turn(45), [[1.0, 0.0], [0.0, -1.0]]]).group.order == 16
