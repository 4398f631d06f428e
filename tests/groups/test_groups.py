"""Groups: multiplication tables against matrices, Haar averages, and what bad tables get."""

import math
import pickle

import pytest
import torch

from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, FiniteGroup
from pyro_gflows.groups.names import parse_group

DETERMINANTS = {"SO(2)": {1.0}, "O(2)": {1.0, -1.0}, "SO(3)": {1.0}, "O(3)": {1.0, -1.0}}
CONTINUOUS = list(DETERMINANTS)


@pytest.mark.parametrize(
    "group", [CyclicGroup(1), CyclicGroup(5), DihedralGroup(1), DihedralGroup(2), DihedralGroup(5)]
)
def test_planar_matrices_multiply_as_the_table_says(group):
    plane = group.plane()
    torch.testing.assert_close(plane[:, None] @ plane, plane[group.table], rtol=0, atol=1e-15)
    torch.testing.assert_close(plane[group.inverse(group.elements())], plane.mT, rtol=0, atol=1e-15)
    assert len({tuple(matrix.flatten().round(decimals=9).tolist()) for matrix in plane}) == group.order


@pytest.mark.parametrize("group", [CyclicGroup(6), DihedralGroup(4), DihedralGroup(1)])
def test_generators_generate(group):
    found = {0}
    while True:
        more = found | {int(group.table[g, h]) for g in group.generators() for h in found}
        if more == found:
            break
        found = more
    assert len(found) == group.order


def test_cosets_are_permuted():
    group = DihedralGroup(4)
    targets = group.coset_action([0, 4])
    assert targets.shape == (8, 4)
    for first in range(8):
        for second in range(8):
            assert torch.equal(targets[group.table[first, second]], targets[first][targets[second]])
    assert sorted(int(g) for g in range(8) if targets[g, 0] == 0) == [0, 4]


@pytest.mark.parametrize("name", ["C4", "D3", *CONTINUOUS])
def test_samples_come_from_the_generator_given(name):
    group = parse_group(name)
    draws = [group.sample((5, 2), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0].shape[:2] == (5, 2)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("name", CONTINUOUS)
def test_samples_lie_in_the_group_and_are_uniform(name):
    group = parse_group(name)
    elements = group.sample((20000,), torch.Generator().manual_seed(0))
    identity = torch.eye(group.dimension, dtype=torch.float64).expand_as(elements)
    torch.testing.assert_close(elements @ elements.mT, identity, rtol=0, atol=1e-13)
    determinants = torch.linalg.det(elements)
    assert set(determinants.round().tolist()) == DETERMINANTS[name]
    assert elements.mean(0).abs().max() < 5 / math.sqrt(20000)
    second = torch.einsum("gi,gj->ij", elements[:, :, 0], elements[:, :, 0]) / len(elements)
    torch.testing.assert_close(second, identity[0] / group.dimension, rtol=0, atol=0.02)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("band", [1, 2, 4, 6])
def test_quadrature_is_the_exact_average(name, band):
    """A Haar average does not change when the group acts on its argument."""
    group = parse_group(name)
    elements, weights = group.quadrature(band)
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-14)
    vector = torch.randn(group.dimension, dtype=torch.float64)
    weight = torch.randn(group.dimension, dtype=torch.float64)
    transformed = group.sample((7,)) @ vector
    values = ((elements @ transformed.T).mT @ weight) ** band
    averages = weights @ values
    torch.testing.assert_close(averages, averages[:1].expand(7), rtol=1e-12, atol=1e-13)
    if band == 2:
        assert averages[0].item() == pytest.approx(float(vector @ vector * (weight @ weight)) / group.dimension)


@pytest.mark.parametrize("name", ["C4", "D3", *CONTINUOUS])
def test_groups_are_values(name):
    group = parse_group(name)
    assert parse_group(group) is group
    assert pickle.loads(pickle.dumps(group)) == group == parse_group(name)
    assert hash(group) == hash(parse_group(name))
    assert str(group) == name


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FiniteGroup("X", [[1, 0], [0, 1]], [1]), ValueError, "element 0 must be the identity"),
        (lambda: FiniteGroup("X", [[0, 1], [1, 1]], [1]), ValueError, "must be a permutation"),
        (lambda: CyclicGroup(0), ValueError, "positive number of rotations, got 0"),
        (lambda: DihedralGroup(-1), ValueError, "positive number of rotations, got -1"),
        (lambda: CyclicGroup(4).coset_action([]), ValueError, "indices of a subgroup of C4"),
        (lambda: parse_group("C0"), ValueError, "expected a group such as 'C4'"),
        (lambda: parse_group(None), TypeError, "got NoneType"),
    ],
)
def test_bad_groups_say_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("c4", "C4"),
        ("C_4", "C4"),
        ("C_{4}", "C4"),
        (" D 8", "D8"),
        ("d(8)", "D8"),
        ("so(2)", "SO(2)"),
        ("SO( 3 )", "SO(3)"),
    ],
)
def test_names_parse_as_people_write_them(written, name):
    assert str(parse_group(written)) == name
