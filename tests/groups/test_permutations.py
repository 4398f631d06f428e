"""Symmetric groups, rows and signs that they move, and direct products."""

import itertools
import pickle

import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.groups import CyclicGroup, ProductGroup, RegularRepresentation, SymmetricGroup, parse_group
from pyro_gflows.nn import EquivariantMLP
from pyro_gflows.serialization.registry import build, describe


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_permutations_multiply_as_the_table_says(n):
    group = SymmetricGroup(n)
    permutations = group.permutations()
    assert [tuple(p) for p in permutations.tolist()] == list(itertools.permutations(range(n)))
    for g, h in group.sample((20, 2), torch.Generator().manual_seed(0)).tolist():
        assert permutations[group.table[g, h]].tolist() == [permutations[g][j] for j in permutations[h].tolist()]


@pytest.mark.parametrize("group", [SymmetricGroup(4), parse_group("S3 x D2 x C2")], ids=str)
def test_generators_generate(group):
    found = {0}
    while len(more := found | {int(group.table[g, h]) for g in group.generators() for h in found}) > len(found):
        found = more
    assert len(found) == group.order


def test_rows_are_permuted_with_all_their_features():
    group = SymmetricGroup(4)
    action = VectorAction.rows(group, features=3)
    x = torch.randn(5, 4, 3)
    for element, permutation in zip(group.elements(), group.permutations(), strict=True):
        expected = torch.empty_like(x)
        expected[:, permutation] = x
        assert torch.equal(action.act(element, x.flatten(1)).unflatten(1, (4, 3)), expected)
    assert action.is_permutation and [isotype.dim for isotype in action.decomposition] == [1, 3]


def test_columns_are_permuted_by_copies():
    element, x = torch.tensor(3), torch.randn(2, 3)
    rows = VectorAction.rows("S3", features=2).act(element, x.T.flatten()).unflatten(0, (3, 2))
    torch.testing.assert_close(VectorAction.rows("S3").copies(2).act(element, x.flatten()).unflatten(0, (2, 3)), rows.T)


def test_signs_flip_columns_one_by_one():
    action = VectorAction.signs(3, copies=2)
    orbit = action.act_all(torch.ones(6)).unflatten(1, (2, 3))
    assert torch.equal(orbit[:, 0], orbit[:, 1])
    assert {tuple(row) for row in orbit[:, 0].tolist()} == set(itertools.product([1.0, -1.0], repeat=3))
    assert action.is_signed_permutation and not action.is_permutation


def test_the_factors_of_a_product_act_on_their_own():
    group = parse_group("S3 x C2 x C4")
    assert group.order == 48
    first, second, third = (group.project(group.elements(), index) for index in range(3))
    for index, component in enumerate([first, second, third]):
        table = group.factors[index].table
        assert torch.equal(component[group.table], table[component[:, None], component])
    assert len(torch.unique(torch.stack([first, second, third]), dim=1).T) == 48
    rows = VectorAction.rows("S3").lift(group, 0)
    both = rows.direct_sum(VectorAction.plane("C4").lift(group, 2))
    x = torch.randn(5, dtype=torch.float64)
    for g in group.elements():
        alone = torch.cat([VectorAction.rows("S3").act(first[g], x[:3]), VectorAction.plane("C4").act(third[g], x[3:])])
        torch.testing.assert_close(both.act(g, x), alone)


THREE = SymmetricGroup(3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("S3", THREE), ("s3", THREE), ("S(3)", THREE), ("S3 x C2", ProductGroup([THREE, CyclicGroup(2)]))],
    ids=["S3", "s3", "S(3)", "S3 x C2"],
)
def test_names_parse(name, expected):
    group = parse_group(name)
    assert group == expected
    for twin in (pickle.loads(pickle.dumps(group)), build(describe(group)), parse_group(str(group))):
        assert twin == group and str(twin) == str(group)


def test_hidden_layers_of_a_large_group_are_as_small_as_the_event():
    """720 permutations, but no regular representation of them."""
    action = VectorAction.rows("S6")
    network = EquivariantMLP(action, action, width=4, depth=1).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    g = action.sample((3,))
    torch.testing.assert_close(network(action.act_each(g, x)), action.act_each(g, network(x)), rtol=0, atol=1e-12)
    assert sum(parameter.numel() for parameter in network.parameters()) < 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SymmetricGroup(0), "positive number n of things to permute .*, got 0"),
        (
            lambda: VectorAction.rows("S7"),
            r"got S7, which has 5040 elements; use RowsAction\(7, features=1\)",
        ),
        (lambda: parse_group("S0"), "expected a group such as"),
        (lambda: VectorAction.rows("D3"), "rows are permuted by a symmetric group such as 'S3', got D3"),
        (lambda: VectorAction.rows("S3", features=0), "positive number of features, got 0"),
        (lambda: VectorAction.signs(0), "positive number of signs, got 0"),
        (lambda: ProductGroup([]), "at least one factor, got none"),
        (lambda: RegularRepresentation("S3 x O(2)"), r"needs a finite group, got S3 x O\(2\)"),
        (lambda: VectorAction.plane("C4").lift(parse_group("S3 x C2"), 1), "expected an action of factor 1, C2"),
    ],
)
def test_bad_groups_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
