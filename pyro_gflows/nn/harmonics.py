"""Harmonics: cosines and sines of integer combinations of angles, on which a group acts linearly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.groups import IsometryTable, MatrixRepresentation, Representation, TrivialRepresentation
from pyro_gflows.groups.torus_translations import whole_rows
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.numerics.integer_lattices import Row, in_lattice
from pyro_gflows.serialization.registry import registered

__all__ = ["Harmonics", "shortest_frequencies"]

_MOST_STEPS = 2**18


@registered
class Harmonics(nn.Module):
    r"""The features :math:`\cos(k \cdot x)` and :math:`\sin(k \cdot x)` of angles x, for some integer vectors k.

    Networks on angles read these features, since they are periodic. The group, which acts on angles by :math:`x \mapsto
    M x + a`, acts on the features by orthogonal matrices: M permutes the vectors k up to signs, and a rotates each pair
    (cos, sin) by the angle :math:`k \cdot a`. So ``action_out`` is an action on vectors, which any equivariant network
    takes as its input. The vectors k are completed by their images under M^T; k and -k count as one.

    The features of one k are side by side, ``(cos, sin)``, and the vectors k of one orbit form one field of
    ``action_out``. The Jacobian J of the features has :math:`J^T J = \sum_k k k^T` everywhere, so the features are
    Lipschitz with the constant ``lipschitz``, the square root of the largest eigenvalue of this matrix.

    Args:
        action: How the group acts on the angles.
        frequencies: The integer vectors k, one in each row; :func:`shortest_frequencies` gives the first ones.

    Raises:
        TypeError: ``action`` is not a TorusAction.
        ValueError: A vector k is 0, not whole or of the wrong length; or the group is infinite and does not fix k . x.

    Example:
        >>> action = TorusAction.point_group("D4")
        >>> features = Harmonics(action, [[1, 0]])
        >>> features.frequencies, features.action_out
        (((1, 0), (0, 1)), VectorAction(D4 on R^4: harmonics of [1, 0]))
        >>> features(torch.tensor([0.0, torch.pi / 2]))
        tensor([ 1.0000e+00,  0.0000e+00, -4.3711e-08,  1.0000e+00])
    """

    def __init__(self, action: TorusAction, frequencies: Sequence[Sequence[int]] | Tensor) -> None:
        super().__init__()
        if not isinstance(action, TorusAction):
            raise TypeError(f"expected a TorusAction, such as TorusAction.trivial(2), got {type(action).__name__}")
        orbits: list[list[Row]] = []
        for row in whole_rows(frequencies):
            vector = _one_of_pair(_checked(tuple(row), action))
            if not any(vector in orbit for orbit in orbits):
                orbits.append(_orbit(action, vector))
        self.action_in = action
        self.action_out = VectorAction([field for orbit in orbits for field in _fields(action, orbit)])
        self.frequencies: tuple[tuple[int, ...], ...] = tuple(vector for orbit in orbits for vector in orbit)
        rows = torch.tensor(self.frequencies, dtype=torch.float64)
        self.lipschitz = math.sqrt(float(torch.linalg.eigvalsh(rows.T @ rows)[-1]))
        self.rows = FixedBasis(rows)

    def forward(self, x: Tensor) -> Tensor:
        phases = x @ self.rows(x).T
        return torch.stack([phases.cos(), phases.sin()], -1).flatten(-2)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features and their Jacobian, of shapes ``batch + (features,)`` and ``batch + (features, d)``."""
        rows = self.rows(x)
        phases = x @ rows.T
        cos, sin = phases.cos(), phases.sin()
        slopes = torch.stack([-sin, cos], -1)[..., None] * rows[:, None, :]
        return torch.stack([cos, sin], -1).flatten(-2), slopes.flatten(-3, -2)

    def extra_repr(self) -> str:
        return f"{len(self.frequencies)} frequencies, {self.action_in}"


def shortest_frequencies(action: TorusAction, count: int) -> tuple[tuple[int, ...], ...]:
    """The shortest integer vectors k for which the translations of the group fix k . x, at least ``count`` of them.

    All vectors of one length are taken together, so that the exchanges and sign flips of the group permute them up to
    signs. Of k and -k there is one.

    Args:
        action: How the group acts on angles.
        count: The least number of vectors.

    Raises:
        ValueError: The count is not positive, or the search takes too long, since these translations fix only very long
            vectors.

    Example:
        >>> shortest_frequencies(TorusAction.point_group("D4"), 3)
        ((0, 1), (1, 0), (1, -1), (1, 1))
        >>> shortest_frequencies(TorusAction.fixing([[1, -1]]), 2)
        ((1, -1), (2, -2))
    """
    if count < 1:
        raise ValueError(f"expected a positive number of frequencies, got {count}")
    basis = action.fixed_combinations
    reach = min(sum(entry**2 for entry in row) for row in basis)
    while True:
        steps = iter(range(_MOST_STEPS))
        vectors = sorted((sum(entry**2 for entry in v), v) for v in _up_to(reach, basis, steps) if v == _one_of_pair(v))
        if next(steps, None) is None:
            raise ValueError(
                f"found too few of {count} frequencies up to the length {math.sqrt(reach):.3g} for {action}; give "
                "frequencies of your own, integer combinations of action.fixed_combinations"
            )
        if len(vectors) >= count:
            longest = vectors[count - 1][0]
            return tuple(vector for length, vector in vectors if length <= longest)
        reach = max(reach + 1, reach * 5 // 4)


def _up_to(reach: int, basis: Sequence[Row], steps: Iterator[int]) -> Iterator[Row]:
    """All integer combinations of a basis with a sum of squares up to ``reach`` except 0, until steps are used up.

    In triangular coordinates the last coefficient alone decides the last coordinate, so that each coefficient lies in
    an interval about a center which those after it decide.
    """
    factor = torch.linalg.qr(torch.tensor(basis, dtype=torch.float64, device="cpu").T).R.tolist()
    size = len(basis)

    def extend(place: int, chosen: tuple[int, ...], rest: float) -> Iterator[tuple[int, ...]]:
        if place < 0:
            yield chosen
            return
        row = factor[place]
        center = -sum(entry * c for entry, c in zip(row[place + 1 :], chosen, strict=True)) / row[place]
        half = math.sqrt(max(rest, 0.0)) / abs(row[place]) + 1e-9
        for c in range(math.ceil(center - half), math.floor(center + half) + 1):
            if next(steps, None) is None:
                return
            yield from extend(place - 1, (c, *chosen), rest - (row[place] * (c - center)) ** 2 + 1e-9)

    for coefficients in extend(size - 1, (), float(reach)):
        columns = zip(*basis, strict=True)
        vector = tuple(sum(c * entry for c, entry in zip(coefficients, column, strict=True)) for column in columns)
        if 0 < sum(entry**2 for entry in vector) <= reach:
            yield vector


def _one_of_pair(vector: Row) -> Row:
    """The one of k and -k whose first entry that is not 0 is positive."""
    first = next((entry for entry in vector if entry), 0)
    return tuple(-entry for entry in vector) if first < 0 else vector


def _checked(vector: Row, action: TorusAction) -> Row:
    if len(vector) != action.numel or not any(vector):
        raise ValueError(f"expected frequencies of {action.numel} whole numbers that are not all 0, got {list(vector)}")
    if not action.is_finite and not in_lattice(action.fixed_combinations, vector):
        raise ValueError(
            f"expected frequencies k for which {action.group} fix k . x, got {list(vector)}; take integer combinations "
            f"of {[list(row) for row in action.fixed_combinations]}"
        )
    return vector


def _orbit(action: TorusAction, vector: Row) -> list[Row]:
    if not isinstance(action.maps, IsometryTable):
        return [vector]
    images = (torch.tensor(vector) @ action.maps.matrices).tolist()
    return list(dict.fromkeys(_one_of_pair(tuple(image)) for image in images))


def _fields(action: TorusAction, orbit: list[Row]) -> list[Representation]:
    r"""The representation on the features of one orbit.

    With M^T k = s k' for a vector k' of the orbit and a sign s, and with the phase p = k . a, the image of
    (cos k . x, sin k . x) is (cos(s k' . x + p), sin(s k' . x + p)).
    """
    if not isinstance(action.maps, IsometryTable) or action.group.order == 1:
        return [TrivialRepresentation(action.group)] * (2 * len(orbit))
    maps = action.maps
    vectors = torch.tensor(orbit)
    images = vectors @ maps.matrices  # (|G|, n, d): M^T k for each element and vector
    agrees = (images[:, :, None] == vectors).all(-1).double() - (images[:, :, None] == -vectors).all(-1).double()
    phases = 2 * math.pi * ((maps.steps @ vectors.T) % maps.denominator).double() / maps.denominator
    cos, sin, same = phases.cos()[..., None], phases.sin()[..., None], agrees.abs()
    rows = [torch.stack([cos * same, -sin * agrees], -1), torch.stack([sin * same, cos * agrees], -1)]
    blocks = torch.stack(rows, -2)
    table = blocks.transpose(2, 3).flatten(1, 2).flatten(2, 3)  # (|G|, n, n, 2, 2) to (|G|, 2 n, 2 n)
    whole = table.round()
    table = torch.where((table - whole).abs() < 1e-12, whole + 0.0, table)  # cos(pi / 2) is exactly 0
    return [MatrixRepresentation(maps.group, table, name=f"harmonics of {list(orbit[0])}")]
