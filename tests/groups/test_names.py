"""Groups by name, and the names of their elements."""

import pytest
import torch

from pyro_gflows.groups import (
    O3,
    SO2,
    CyclicGroup,
    ProductGroup,
    SignedPermutationGroup,
    SignGroup,
    SymmetricGroup,
    parse_group,
)
from pyro_gflows.groups.element_names import element_name

NAMES = {
    "S20": SymmetricGroup(20),
    "S3": SymmetricGroup(3),
    "C2^20": SignGroup(20),
    "C2^1": SignGroup(1),
    "signed S50": SignedPermutationGroup(50),
    "signed S2": SignedPermutationGroup(2),
    "S13 x O(3)": ProductGroup([SymmetricGroup(13), O3()]),
    "C2^3 x S4": ProductGroup([SignGroup(3), SymmetricGroup(4)]),
    "C2 x C2": ProductGroup([CyclicGroup(2), CyclicGroup(2)]),
    "signed S20 x S8 x SO(2)": ProductGroup([SignedPermutationGroup(20), SymmetricGroup(8), SO2()]),
    "(S3 x SO(2)) x S8": ProductGroup([ProductGroup([SymmetricGroup(3), SO2()]), SymmetricGroup(8)]),
    "S8 x (C2 x (S9 x O(3)))": ProductGroup(
        [SymmetricGroup(8), ProductGroup([CyclicGroup(2), ProductGroup([SymmetricGroup(9), O3()])])]
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_makes_a_group_that_has_the_name(name):
    group = parse_group(name)
    assert group == NAMES[name] and type(group) is type(NAMES[name]) and str(group) == name
    assert parse_group(str(group)) == group and parse_group(group) is group


@pytest.mark.parametrize(
    ("written", "name"),
    [("s_20", "S20"), ("C_2^{20}", "C2^20"), ("Signed S_50", "signed S50"), ("(s3 X so(2)) x S8", "(S3 x SO(2)) x S8")],
)
def test_names_may_be_written_in_other_ways(written, name):
    assert parse_group(written) == NAMES[name]


@pytest.mark.parametrize(
    "name",
    [
        "S0",
        "C2^0",
        "signed S0",
        "signed C3",
        "signed",
        "C3^2",
        "C2^-1",
        "S3.5",
        "S3 x",
        "x S3",
        "(S3 x C2",
        "S3 x C2)",
        "",
    ],
)
def test_other_names_say_what_was_expected(name):
    with pytest.raises(ValueError, match=r"such as 'C4', 'D8', 'S20', 'C2\^20', 'signed S50', .* a positive number"):
        parse_group(name)
    with pytest.raises(ValueError, match="got 'S0'"):
        parse_group("S8 x S0")


@pytest.mark.parametrize(
    ("group", "permutation", "signs", "words"),
    [
        ("S3", [1, 2, 0], None, "element 3, permutation [1, 2, 0]"),
        ("S8", [1, 0, 2, 3, 4, 5, 6, 7], None, "permutation [1, 0, 2, 3, 4, 5, 6, 7]"),
        ("S20", range(20), None, "no permutation"),
        ("S20", [*range(18), 19, 18], None, "permutation of 18 to 19, 19 to 18"),
        ("S20", [*range(1, 20), 0], None, "permutation of 20 of 20 things, 0 to 1, 1 to 2, 2 to 3, ..."),
        ("C2^3", None, [1, -1, 1], "element 2, sign flip of 1"),
        ("C2^12", None, [-1] * 2 + [1] * 10, "sign flips of 0, 1"),
        ("C2^12", None, [1] * 12, "no sign flip"),
        ("C2^50", None, [1] * 10 + [-1] * 40, "sign flips of 40 of 50 things, 10, 11, 12, ..."),
        ("signed S2", [1, 0], [1, -1], "element 5, permutation [1, 0] and sign flip of 1"),
        ("signed S20", [*range(18), 19, 18], [1] * 20, "permutation of 18 to 19, 19 to 18 and no sign flip"),
    ],
)
def test_elements_have_names(group, permutation, signs, words):
    group = parse_group(group)
    parts = [None if part is None else torch.tensor(list(part)) for part in (permutation, signs)]
    assert element_name(group, group.elements_of(permutations=parts[0], signs=parts[1])) == words


def test_elements_of_products_have_the_names_of_their_components():
    group = parse_group("C2^3 x SO(2)")
    half = torch.tensor([[-1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    element = group.join([torch.tensor(2), half])
    assert element_name(group, element) == "C2^3: element 2, sign flip of 1; SO(2): rotation by 180 degrees"
    assert element_name(parse_group("S3 x C2"), torch.tensor(7)) == "element 7, that is (3, 1)"
