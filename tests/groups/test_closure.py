"""The finite group that matrices or permutations generate."""

import math

import pytest
import torch

from pyro_gflows.groups.closure import generate_group

QUATERNIONS = [
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]


def turn(n):
    angle = 2 * math.pi / n
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)


MIRROR = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("generators", "order"),
    [
        ([turn(7)], 7),
        ([turn(12), MIRROR], 24),
        ([turn(6), turn(4)], 12),
        (QUATERNIONS, 8),
        ([[1, 2, 3, 4, 0], [1, 0, 2, 3, 4]], 120),
        ([torch.eye(3)], 1),
    ],
    ids=["C7", "D12", "C12 from C6 and C4", "quaternions", "S5", "trivial"],
)
def test_generates_a_group_that_multiplies_as_its_table_says(generators, order):
    group, matrices = generate_group(generators, 1000, "group")
    assert group.order == order
    assert matrices.shape[0] == order
    products = matrices[:, None] @ matrices
    torch.testing.assert_close(products, matrices[group.table], rtol=0, atol=1e-14)
    inverses = matrices[group.inverse(group.elements())]
    torch.testing.assert_close(inverses, matrices.mT, rtol=0, atol=1e-14)
    for index, generator in zip(group.generators(), generators, strict=True):
        given = torch.as_tensor(generator)
        expected = torch.eye(len(given))[:, given] if given.ndim == 1 else given
        torch.testing.assert_close(matrices[index], expected.double(), rtol=0, atol=1e-12)


def test_signed_permutations_stay_exact():
    _, matrices = generate_group(QUATERNIONS, 100, "Q8")
    assert torch.equal(matrices, matrices.round())


def test_a_permutation_sends_entry_j_to_its_target():
    group, matrices = generate_group([[1, 2, 0]], 10, "C3")
    assert (matrices[group.generators()[0]] @ torch.tensor([1.0, 2.0, 3.0]).double()).tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("generators", "message"),
    [
        ([], "at least one generator, got none"),
        ([[0, 0, 1]], r"generator 0: expected a permutation of 0..2, got \[0, 0, 1\]"),
        ([turn(3), [[1.0, 2.0, 3.0]]], r"generator 1: expected a square matrix or a permutation .* shape \(1, 3\)"),
        ([torch.eye(2), torch.eye(3)], r"generators of one size, got \[2, 3\]"),
        ([[[1.0, 0.1], [0.0, 1.0]]], r"generator 0 is not orthogonal: .* 1.0e-01, expected at most 1e-12"),
        ([turn(3).float()], "generator 0 is not orthogonal: .* give it in float64, or as a permutation"),
        ([[[float("nan"), 0.0], [0.0, 1.0]]], "generator 0 is not orthogonal"),
        ([turn(math.sqrt(5))], "more than max_order=50 elements, .* the group is infinite, larger than expected"),
        ([turn(51)], "more than max_order=50 elements"),
    ],
)
def test_bad_generators_say_what_was_expected(generators, message):
    with pytest.raises(ValueError, match=message):
        generate_group(generators, 50, "group")
