"""Integer lattices against enumeration, and against determinants."""

import itertools
import random

import pytest
import torch

from pyro_gflows.numerics.integer_lattices import divided_form, hermite_basis, in_lattice, integer_dual, inverse_of


def matrices():
    chance = random.Random(0)
    shapes = [(1, 1), (1, 3), (2, 2), (3, 2), (3, 3), (2, 4), (4, 3)]
    for rows, columns in shapes * 4:
        yield [[chance.randint(-4, 4) for _ in range(columns)] for _ in range(rows)]


def box(size, columns):
    return itertools.product(range(-size, size + 1), repeat=columns)


@pytest.mark.parametrize("rows", list(matrices()), ids=str)
def test_the_basis_spans_the_lattice(rows):
    basis = hermite_basis(rows)
    assert len(basis) == torch.linalg.matrix_rank(torch.tensor(rows).double())
    assert all(in_lattice(basis, row) for row in rows)
    assert hermite_basis(basis) == basis == hermite_basis([*rows[::-1], [-entry for entry in rows[0]]])
    # small combinations are in it, and the basis has no finer vectors: equal volumes
    for weights in box(1, len(rows)):
        vector = [sum(w * row[i] for w, row in zip(weights, rows, strict=True)) for i in range(len(rows[0]))]
        assert in_lattice(basis, vector)
    if len(rows) == len(rows[0]) == len(basis):
        volume = abs(torch.linalg.det(torch.tensor(rows).double()))
        assert torch.linalg.det(torch.tensor(basis).double()) == pytest.approx(float(volume))
        inside = [vector for vector in box(3, len(rows)) if in_lattice(basis, vector)]
        for vector in box(3, len(rows)):
            weights = torch.linalg.solve(torch.tensor(rows).double().T, torch.tensor(vector).double())
            assert (vector in inside) == bool((weights - weights.round()).abs().max() < 1e-9)


@pytest.mark.parametrize("rows", list(matrices()), ids=str)
def test_in_the_divided_form_the_conditions_are_separate(rows):
    columns = len(rows[0])
    divisors, right = divided_form(rows, columns)
    assert abs(round(float(torch.linalg.det(torch.tensor(right).double())))) == 1
    scaled = [[divisor * entry for entry in row] for divisor, row in zip(divisors, right, strict=False)]
    assert hermite_basis(scaled) == hermite_basis(rows) and all(divisor > 0 for divisor in divisors)
    inverse = torch.tensor(inverse_of(right))
    assert torch.equal(inverse @ torch.tensor(right), torch.eye(columns, dtype=torch.int64))


@pytest.mark.parametrize("modulus", [2, 3, 4, 6])
@pytest.mark.parametrize("vectors", [[], [(1, 1)], [(2, 3)], [(0, 2), (2, 0)], [(1, 2), (3, 1)]], ids=str)
def test_the_dual_is_where_all_products_are_divisible(vectors, modulus):
    dual = integer_dual(vectors, modulus, 2)
    for k in box(7, 2):
        divisible = all((k[0] * n[0] + k[1] * n[1]) % modulus == 0 for n in vectors)
        assert in_lattice(dual, k) == divisible
