"""Lattices of integer vectors, exactly: bases, membership, and the Smith normal form."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Row", "divided_form", "hermite_basis", "in_lattice", "integer_dual", "inverse_of"]

Row = tuple[int, ...]


def hermite_basis(rows: Sequence[Sequence[int]]) -> tuple[Row, ...]:
    """The canonical basis (Hermite normal form) of the lattice of all integer combinations of some vectors.

    Two lists of vectors have the same lattice if and only if they have the same canonical basis. Its rows are in
    echelon form with positive pivots, and the entries above a pivot lie between 0 and the pivot.

    Args:
        rows: Integer vectors of one length.

    Example:
        >>> hermite_basis([(2, 4), (0, 6), (2, -2)])
        ((2, 4), (0, 6))
    """
    remaining = [list(map(int, row)) for row in rows]
    basis: list[list[int]] = []
    for column in range(len(remaining[0]) if remaining else 0):
        pivot = None
        while candidates := [row for row in remaining if row[column]]:  # Euclid's algorithm on the entries of a column
            pivot = min(candidates, key=lambda row: abs(row[column]))
            for row in candidates:
                if row is not pivot:
                    _subtract(row, pivot, row[column] // pivot[column])
            if len(candidates) == 1:
                break
        if pivot is None or not pivot[column]:
            continue
        remaining = [row for row in remaining if row is not pivot]
        pivot = [-entry for entry in pivot] if pivot[column] < 0 else pivot
        for row in basis:
            _subtract(row, pivot, row[column] // pivot[column])
        basis.append(pivot)
    return tuple(tuple(row) for row in basis)


def _subtract(row: list[int], other: Sequence[int], times: int) -> None:
    for index, entry in enumerate(other):
        row[index] -= times * entry


def in_lattice(basis: Sequence[Row], vector: Sequence[int]) -> bool:
    """Whether an integer vector is an integer combination of the rows of a canonical basis.

    Args:
        basis: The rows that :func:`hermite_basis` gave.
        vector: An integer vector of the same length.

    Example:
        >>> in_lattice(hermite_basis([(1, 1), (0, 2)]), (3, 1)), in_lattice(hermite_basis([(1, 1)]), (1, 0))
        (True, False)
    """
    rest = list(vector)
    for row in basis:
        column = next(index for index, entry in enumerate(row) if entry)
        times, remainder = divmod(rest[column], row[column])
        if remainder:
            return False
        _subtract(rest, row, times)
    return not any(rest)


def divided_form(rows: Sequence[Sequence[int]], columns: int) -> tuple[list[int], list[Row]]:
    r"""Integer coordinates in which a lattice is :math:`d_1 Z \oplus d_2 Z \oplus \dots` (Smith normal form).

    With V the invertible integer matrix that is returned, and :math:`b = V a`, the conditions :math:`k \cdot a \in Z`
    for all vectors k of the lattice are :math:`d_i\,b_i \in Z`.

    Args:
        rows: Integer vectors that span the lattice.
        columns: The length of a vector.

    Returns:
        The positive integers d_i, as many as the rank of the lattice, and the rows of V.

    Example:
        >>> divided_form([(1, 1)], 2)
        ([1], [(1, 1), (0, 1)])
    """
    matrix = [list(map(int, row)) for row in rows]
    right = [[int(i == j) for j in range(columns)] for i in range(columns)]  # the rows of V
    divisors: list[int] = []
    while entries := [
        (abs(matrix[i][j]), i, j)
        for i in range(len(divisors), len(matrix))
        for j in range(len(divisors), columns)
        if matrix[i][j]
    ]:
        place = len(divisors)
        _, i, j = min(entries)
        matrix[place], matrix[i] = matrix[i], matrix[place]
        for row in matrix:
            row[place], row[j] = row[j], row[place]
        right[place], right[j] = right[j], right[place]
        for row in matrix[place + 1 :]:
            _subtract(row, matrix[place], row[place] // matrix[place][place])
        for column in range(place + 1, columns):
            times = matrix[place][column] // matrix[place][place]
            for row in matrix:  # column c minus times column p of the matrix: row p of V gains times row c
                row[column] -= times * row[place]
            _subtract(right[place], right[column], -times)
        if not any(row[place] for row in matrix[place + 1 :]) and not any(matrix[place][place + 1 :]):
            divisors.append(abs(matrix[place][place]))
    return divisors, [tuple(row) for row in right]


def inverse_of(rows: Sequence[Row]) -> list[Row]:
    """The inverse of an integer matrix of determinant 1 or -1, which is an integer matrix.

    Args:
        rows: The rows of the matrix.

    Example:
        >>> inverse_of([(1, 1), (0, 1)])
        [(1, -1), (0, 1)]
    """
    size = len(rows)
    joined = [(*row, *(int(i == j) for j in range(size))) for i, row in enumerate(rows)]
    return [row[size:] for row in hermite_basis(joined)]


def integer_dual(vectors: Sequence[Sequence[int]], modulus: int, columns: int) -> tuple[Row, ...]:
    r"""The canonical basis of the integer vectors k with :math:`k \cdot n` divisible by a modulus, for some vectors n.

    Args:
        vectors: The integer vectors n.
        modulus: The modulus.
        columns: The length of a vector.

    Example:
        >>> integer_dual([(1, 1)], 2, 2)
        ((1, 1), (0, 2))
    """
    unit = [[int(i == j) for j in range(columns)] for i in range(columns)]
    lattice = hermite_basis([*vectors, *[[modulus * entry for entry in row] for row in unit]])
    # combinations k of the columns of the basis, joined with k itself; the dual is where the first part vanishes
    joined = [[*(row[i] for row in lattice), *unit[i]] for i in range(columns)]
    joined += [[*(modulus * entry for entry in row), *([0] * columns)] for row in unit]
    return tuple(row[columns:] for row in hermite_basis(joined) if not any(row[:columns]))
