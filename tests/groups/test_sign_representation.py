"""One of many signs acts on one coordinate, and the action of all of them on a vector."""

import pickle

import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.groups import SignGroup, SignRepresentation
from pyro_gflows.serialization.registry import build, describe


@pytest.mark.parametrize("n", [3, 12])
def test_a_sign_multiplies_its_own_coordinate(n):
    group = SignGroup(n)
    g, h = group.sample((2, 30), torch.Generator().manual_seed(0))
    for index in range(n):
        field = SignRepresentation(group, index)
        matrices = field.matrices(g)
        assert matrices.shape == (30, 1, 1) and matrices.dtype == torch.float64
        assert torch.equal(matrices[:, 0, 0], group.signs_of(g)[:, index].double())
        assert torch.equal(field.matrices(group.compose(g, h)), matrices @ field.matrices(h))


def test_representations_are_values():
    field = SignRepresentation("C2^12", 3)
    for twin in (pickle.loads(pickle.dumps(field)), build(describe(field)), SignRepresentation(SignGroup(12), 3)):
        assert twin == field and hash(twin) == hash(field) and repr(twin) == "sign 3 of C2^12"
    assert field != SignRepresentation("C2^12", 4) and field != SignRepresentation("C2^13", 3)


def test_many_signs_act_on_the_columns_of_a_matrix():
    action = VectorAction.signs(12, copies=2)
    g = action.sample((5,), torch.Generator().manual_seed(0))
    x = torch.randn(5, 24)
    signs = action.group.signs_of(g)
    assert torch.equal(action.act_each(g, x), (x.unflatten(-1, (2, 12)) * signs[:, None]).flatten(-2))
    assert torch.equal(torch.stack([action.act(*pair) for pair in zip(g, x, strict=True)]), action.act_each(g, x))
    torch.testing.assert_close((action.matrix(g) @ x.double()[..., None])[..., 0], action.act_each(g, x.double()))
    assert build(describe(action)) == action == pickle.loads(pickle.dumps(action))


def test_up_to_ten_signs_are_tables_as_in_saved_flows():
    few, many = VectorAction.signs(10), VectorAction.signs(11)
    assert {type(field).__name__ for field in few.fields} == {"MatrixRepresentation"}
    assert describe(few.group)["class"] == "ProductGroup" and few.group == SignGroup(10)
    assert {type(field).__name__ for field in many.fields} == {"SignRepresentation"}
    x = torch.randn(6, 10)
    g = few.sample((6,))
    own = VectorAction([SignRepresentation(SignGroup(10), index) for index in range(10)])
    assert torch.equal(few.act_each(g, x), own.act_each(g, x))  # the elements have the same numbers


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SignRepresentation("S12", 0), "group of sign flips such as 'C2\\^20', got S12"),
        (lambda: SignRepresentation("C2^12", 12), r"index of a sign of C2\^12, in 0..11, got 12"),
        (lambda: SignRepresentation("C2^12", -1), r"in 0..11, got -1"),
        (
            lambda: VectorAction.signs(12).act_all(torch.ones(12)),
            r"all elements .* got C2\^12, which has 4096",
        ),
    ],
)
def test_bad_input_says_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
