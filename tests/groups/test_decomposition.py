"""Isotypic components against escnn's irreps and against their own definition."""

from collections import Counter

import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.groups.decomposition import intertwiner
from pyro_gflows.groups.escnn_adapter import escnn_group

QUATERNIONS = [
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]
TYPES = {"R": 1, "C": 2, "H": 4}


def _escnn(name, n, kind):
    groups = escnn_group()
    group = getattr(groups, name)(n) if n else getattr(groups, name)()
    if kind == "regular":
        return group.regular_representation
    return groups.directsum([group.irrep(*irrep) for irrep in kind])


REPRESENTATIONS = {
    "regular C1": ("cyclic_group", 1, "regular"),
    "regular C5": ("cyclic_group", 5, "regular"),
    "regular C8": ("cyclic_group", 8, "regular"),
    "regular D4": ("dihedral_group", 4, "regular"),
    "regular D5": ("dihedral_group", 5, "regular"),
    "sums C4": ("cyclic_group", 4, [(1,), (0,), (1,), (2,)]),
    "sums D8": ("dihedral_group", 8, [(1, 1), (1, 3), (0, 0), (1, 1), (1, 0), (1, 1)]),
    "SO(3) to l=3": ("so3_group", 3, [(0,), (1,), (2,), (3,), (1,), (3,)]),
    "O(3) to l=2": ("o3_group", 2, [(0, 1), (1, 1), (1, 0), (0, 2), (1, 1)]),
    "SO(2)": ("so2_group", 3, [(3,), (0,), (1,), (3,)]),
    "O(2)": ("o2_group", 3, [(1, 3), (0, 0), (1, 1), (1, 0), (1, 3)]),
}


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_components_are_those_of_escnn(name):
    representation = _escnn(*REPRESENTATIONS[name])
    group = representation.group
    counts = Counter(representation.irreps)
    expected = sorted(
        (group.irrep(*irrep).size, count, TYPES[group.irrep(*irrep).type], group.irrep(*irrep).is_trivial())
        for irrep, count in counts.items()
    )
    found = sorted(
        (isotype.dim, isotype.multiplicity, len(isotype.commutant), isotype.is_trivial)
        for isotype in VectorAction(representation).decomposition
    )
    assert found == expected


ACTIONS = {
    "quaternions": lambda: VectorAction.from_generators(QUATERNIONS),
    "two quaternions": lambda: VectorAction.from_generators(QUATERNIONS).copies(2),
    "regular D4, plane": lambda: VectorAction.regular("D4").direct_sum(VectorAction.plane("D4")),
    "regular C8": lambda: VectorAction.regular("C8"),
    "S4": lambda: VectorAction.from_generators([[1, 2, 3, 0], [1, 0, 2, 3]]).copies(2),
    "D1": lambda: VectorAction.plane("D1"),
    "SO(2)": lambda: VectorAction.plane("SO(2)", copies=2),
    "O(3)": lambda: VectorAction.space("O(3)", copies=2),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]()


def test_the_group_acts_on_an_orthonormal_basis_by_the_irrep(action):
    rows = torch.cat([isotype.basis.flatten(0, 1) for isotype in action.decomposition])
    torch.testing.assert_close(rows @ rows.T, torch.eye(action.numel, dtype=torch.float64), rtol=0, atol=1e-12)
    elements = action.sample((9,))
    matrices = action.matrix(elements)
    for isotype in action.decomposition:
        irrep = isotype.irrep(elements)
        for copy in isotype.basis:
            torch.testing.assert_close(copy @ matrices @ copy.T, irrep, rtol=0, atol=1e-11)


def test_components_are_irreducible_and_different(action):
    """Characters: the average of |chi|^2 is 1, 2 or 4 by type, and characters of different irreps are orthogonal."""
    elements, weights = action.group.quadrature(4)
    characters = [isotype.irrep(elements).diagonal(dim1=-2, dim2=-1).sum(-1) for isotype in action.decomposition]
    gram = torch.stack(characters) * weights @ torch.stack(characters).T
    types = [float(len(isotype.commutant)) for isotype in action.decomposition]
    torch.testing.assert_close(gram, torch.diag(torch.tensor(types, dtype=torch.float64)), rtol=0, atol=1e-11)


def test_commutants_commute_and_are_orthogonal(action):
    elements = action.sample((9,))
    for isotype in action.decomposition:
        irrep, maps = isotype.irrep(elements), isotype.commutant
        torch.testing.assert_close(irrep[:, None] @ maps, maps @ irrep[:, None], rtol=0, atol=1e-11)
        gram = torch.einsum("aij,bij->ab", maps, maps) / isotype.dim
        torch.testing.assert_close(gram, torch.eye(len(maps), dtype=torch.float64), rtol=0, atol=1e-12)
        torch.testing.assert_close(maps[0], torch.eye(isotype.dim, dtype=torch.float64))


def test_intertwiners_match_the_irreps_of_two_actions():
    regular, plane = VectorAction.regular("D4"), VectorAction.plane("D4")
    (target,) = plane.decomposition
    elements = plane.elements()
    found = [(source, intertwiner(source, target)) for source in regular.decomposition]
    (match,) = [(source, change) for source, change in found if change is not None]
    source, change = match
    assert (source.dim, source.multiplicity) == (2, 2)
    torch.testing.assert_close(target.irrep(elements) @ change, change @ source.irrep(elements), rtol=0, atol=1e-12)


def test_labels_say_which_summand_a_copy_lies_in():
    plane, regular = VectorAction.plane("D3"), VectorAction.regular("D3")
    action = plane.direct_sum(regular, plane)
    starts = [0, 2, 8, 10]
    for isotype in action.decomposition:
        for copy, label in zip(isotype.basis, isotype.labels, strict=True):
            outside = torch.ones(10, dtype=torch.bool)
            outside[starts[label] : starts[label + 1]] = False
            assert copy[:, outside].abs().max() == 0


def test_invariants_are_all_that_does_not_move(action):
    elements, weights = action.group.quadrature(2)
    projector = torch.einsum("g,gij->ij", weights, action.matrix(elements))
    invariants = action.invariants()
    torch.testing.assert_close(invariants.T @ invariants, projector, rtol=0, atol=1e-11)
