"""Restrictions of a representation to a subspace and to a subgroup, against the matrices they are made of."""

import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.groups import RegularRepresentation, TrivialRepresentation, parse_group
from pyro_gflows.groups.representations import DefiningRepresentation
from pyro_gflows.groups.restriction import (
    SubRepresentation,
    places_in,
    restricted_matrices,
    restricted_to_subgroup,
    restricted_to_subspace,
)


def test_on_an_invariant_subspace_the_matrices_are_those_of_the_whole():
    whole = RegularRepresentation("D4")
    for isotype in VectorAction(whole).decomposition:
        rows = isotype.basis[0]
        part = restricted_to_subspace(whole, rows, "part")
        elements = VectorAction(whole).elements()
        expected = rows @ whole.matrices(elements) @ rows.T
        torch.testing.assert_close(part.matrices(elements), expected, rtol=0, atol=1e-12)
        assert (part == TrivialRepresentation("D4")) == isotype.is_trivial


def test_whole_numbers_come_out_exactly():
    """Signed permutations of three rows, on the difference of the first two: -1, 0 and 1 without rounding."""
    swaps = VectorAction.from_generators([[1, 0, 2]]).matrix(torch.arange(2))
    rows = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64) / 2**0.5
    found = restricted_matrices(swaps, rows)
    assert found.tolist() == [[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]]
    assert not torch.signbit(found[found == 0]).any()
    assert not torch.equal(rows @ swaps @ rows.T, found)  # which matrix products alone do not give


def test_a_continuous_group_acts_on_a_subspace_by_reference():
    whole = VectorAction.plane("SO(2)", copies=2)
    rows = torch.eye(2, dtype=torch.float64)
    part = restricted_to_subspace(whole.fields[0], rows, "plane")
    assert isinstance(part, SubRepresentation) and part.band == 1
    elements = whole.sample((3,))
    assert torch.equal(part.matrices(elements), elements)


@pytest.mark.parametrize(("small", "large"), [("C4", "C8"), ("C2", "D6"), ("D4", "D8"), ("D2", "D4"), ("C1", "D1")])
@pytest.mark.parametrize("kind", [DefiningRepresentation, RegularRepresentation])
def test_a_subgroup_acts_as_its_elements_do_in_the_whole(small, large, kind):
    subgroup, whole = parse_group(small), kind(large)
    part = restricted_to_subgroup(whole, subgroup)
    places = places_in(subgroup, whole.group)
    assert part.group == subgroup and str(part) == f"{whole} of {small}"
    assert torch.equal(part.matrices(subgroup.elements()), whole.matrices(places))
    torch.testing.assert_close(
        DefiningRepresentation(small).matrices(subgroup.elements()), DefiningRepresentation(large).matrices(places)
    )


def test_what_is_no_subspace_or_subgroup_is_refused():
    with pytest.raises(ValueError, match="expected an orthogonal representation of D4"):
        restricted_to_subspace(RegularRepresentation("D4"), torch.eye(8, dtype=torch.float64)[:1], "corner")
    with pytest.raises(ValueError, match="expected a subgroup of C8 in the plane, got C3"):
        restricted_to_subgroup(RegularRepresentation("C8"), parse_group("C3"))
