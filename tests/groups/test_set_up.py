"""The set-up of decompositions: the same components as by the definition, with few averages and few floats."""

import functools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_gflows import VectorAction, g_autoregressive, g_coupling, g_residual
from pyro_gflows.groups import (
    FiniteGroup,
    MatrixRepresentation,
    QuotientRepresentation,
    RegularRepresentation,
    RowsRepresentation,
    parse_group,
)
from pyro_gflows.groups import decomposition as module
from pyro_gflows.groups.averages import IrrepImages, RepresentationImages
from pyro_gflows.groups.decomposition import decompose, intertwiner
from pyro_gflows.nn.ridge import _modulo_sign

QUATERNIONS = [
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]
REPRESENTATIONS = {
    "regular C6": lambda: RegularRepresentation("C6"),
    "regular S3": lambda: RegularRepresentation("S3"),
    "regular S3 x C2": lambda: RegularRepresentation("S3 x C2"),
    "quotient of D6": lambda: QuotientRepresentation("D6", [0, 6]),
    "rows of S4": lambda: RowsRepresentation("S4", features=2),
    "quaternions": lambda: VectorAction.from_generators(QUATERNIONS).fields[0],
    "regular quaternions": lambda: RegularRepresentation(VectorAction.from_generators(QUATERNIONS).group),
    "SO(3)": lambda: VectorAction.space("SO(3)").fields[0],
}


@pytest.fixture(params=REPRESENTATIONS)
def representation(request):
    return REPRESENTATIONS[request.param]()


class Allocations(TorchDispatchMode):
    """Counts the entries of all tensors that operations return in memory of their own."""

    def __init__(self):
        super().__init__()
        self.largest = self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        before = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        for leaf in tree_leaves(out):
            if torch.is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in before:
                self.largest = max(self.largest, leaf.numel())
                self.total += leaf.numel()
        return out


def allocations(make):
    """The allocations of a set-up from nothing."""
    decompose.cache_clear()
    with Allocations() as counted:
        make()
    return counted


def test_averages_and_restrictions_are_those_of_dense_matrices(representation):
    elements, weights = representation.group.quadrature(2 * representation.band)
    dense, images = representation.matrices(elements), RepresentationImages(representation)
    middle = torch.randn(representation.size, representation.size, dtype=torch.float64)
    expected = sum(weight * matrix @ middle @ matrix.T for weight, matrix in zip(weights, dense, strict=True))
    torch.testing.assert_close(images.average(middle), expected, rtol=0, atol=1e-13)
    for isotype in decompose(representation):
        rows = isotype.basis[0]
        expected = torch.stack([rows @ matrix @ rows.T for matrix in dense])
        torch.testing.assert_close(images.on_subspace(rows), expected, rtol=0, atol=1e-13)


def test_permutations_are_those_of_the_matrices(representation):
    places = representation.permutations()
    if representation.entries() <= {0.0, 1.0}:
        matrices = representation.matrices(representation.group.elements())
        assert torch.equal(torch.eye(representation.size).double()[places].mT, matrices)
    else:
        assert places is None


def test_a_table_that_is_a_permutation_to_rounding_only_is_none():
    swap = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    group = parse_group("C2")
    assert MatrixRepresentation(group, swap).permutations().tolist() == [[0, 1], [1, 0]]
    angle = torch.tensor(1e-13, dtype=torch.float64)
    bent = torch.stack([torch.stack([angle.sin(), angle.cos()]), torch.stack([angle.cos(), -angle.sin()])])
    assert MatrixRepresentation(group, torch.stack([swap[0], bent])).permutations() is None


def test_intertwiners_are_those_of_an_average_without_characters(representation):
    """The definition: an average over the group of any matrix, which is 0 exactly if the irreps differ."""
    group, components = representation.group, decompose(representation)
    other = decompose(MatrixRepresentation(group, _rotated(representation))) if representation.band == 0 else components
    found = 0
    for first in components:
        for second in other:
            change = intertwiner(first, second)
            elements, weights = group.quadrature(2 * representation.band)
            seed = torch.randn(second.dim, first.dim, dtype=torch.float64)
            images = second.irrep(elements) @ seed @ first.irrep(elements).mT
            average = torch.einsum("g,gij->ij", weights, images)
            assert (change is None) == (average.abs().max() < 1e-9)
            if change is not None:
                found += 1
                defects = second.irrep(elements) @ change - change @ first.irrep(elements)
                assert defects.abs().max() < 1e-12
    assert found == len(components)


def _rotated(representation):
    """The matrices of the representation in another orthonormal basis."""
    generator = torch.Generator().manual_seed(3)
    seed = torch.randn(representation.size, representation.size, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(seed)[0]
    return basis @ representation.matrices(representation.group.elements()) @ basis.T


def test_characters_tell_irreps_apart(representation):
    if representation.band > 0:
        pytest.skip("a continuous group")
    components = decompose(representation)
    for i, first in enumerate(components):
        for j, second in enumerate(components):
            assert first.images.is_equivalent(second.images) == (i == j)
            if i != j:
                assert abs(first.images.character @ second.images.character) < 1e-9
    conjugated = IrrepImages(components[-1].images.matrices.flip(-1, -2))  # a permutation of the basis
    assert conjugated.is_equivalent(components[-1].images)


def test_irreps_of_different_characters_are_never_averaged(monkeypatch):
    """There are 33 irreps in two regular fields of C64, and no two of them are compared by an average."""
    action = VectorAction.regular("C64", copies=2)
    assert len(action.decomposition) == 33
    averaged = []
    orthogonal = module._orthogonal
    monkeypatch.setattr(module, "_orthogonal", lambda matrix: averaged.append(matrix) or orthogonal(matrix))
    changes = [intertwiner(first, second) for first in action.decomposition for second in action.decomposition]
    assert sum(change is not None for change in changes) == 33 and averaged == []


@pytest.mark.parametrize("family", [g_coupling, g_autoregressive, g_residual])
def test_floats_of_a_set_up_grow_no_faster_than_the_matrices_of_the_group(family):
    """The matrices of the elements have |G|^3 entries; averages for pairs of irreps would have |G|^5."""
    small, large = (allocations(lambda n=n: family(VectorAction.regular(f"C{n}", copies=2))) for n in (12, 24))
    assert large.total < 8.5 * small.total


@pytest.mark.parametrize(
    ("make", "entries"),
    [
        (lambda: VectorAction.rows("S5", features=4), 120 * 20**2),
        (lambda: VectorAction.regular("S4", copies=2), 24 * 48**2),
        (lambda: VectorAction.signs(10), 1024 * 10**2),
    ],
)
def test_ridges_allocate_one_matrix_for_each_element_at_most(make, entries):
    assert allocations(lambda: g_residual(make())).largest <= entries


def _half_by_pairs(matrices):
    """The definition, by a comparison of all pairs of matrices."""
    same = (matrices[:, None] + matrices).abs().amax((-2, -1)) < 1e-9
    partner = same.long().argmax(1)
    return matrices[torch.arange(len(matrices)) < partner] if same.any(1).all() else None


def _turning(n, frequency):
    """C_n acts on the plane by multiples of its rotations, so that several elements act alike."""
    group = parse_group(f"C{n}")
    return VectorAction(MatrixRepresentation(group, group.plane()[frequency * torch.arange(n) % n]))


@pytest.mark.parametrize(
    "make",
    [functools.partial(VectorAction.plane, name) for name in ("C1", "C2", "C5", "C8", "D1", "D2", "D5", "D8")]
    + [functools.partial(_turning, *pair) for pair in ((8, 2), (12, 3), (12, 2), (6, 2))]
    + [lambda: VectorAction.signs(4), lambda: VectorAction.regular("C4"), lambda: VectorAction.rows("S4")]
    + [lambda: VectorAction.from_generators(QUATERNIONS)],
)
def test_half_of_a_group_modulo_sign_is_that_of_all_pairs(make):
    action = make()
    matrices = action.matrix(action.elements())
    expected, found = _half_by_pairs(matrices), _modulo_sign(action.group, matrices)
    assert (found is None) == (expected is None)
    assert found is None or torch.equal(found, expected)


def test_half_of_a_group_takes_each_matrix_equally_often_however_elements_are_numbered():
    turning = _turning(8, 2)
    old = torch.tensor([0, 2, 6, 4, 1, 5, 3, 7])  # the element of C8 that has each number
    new = old.argsort()
    group = FiniteGroup("C8 in another order", new[(old[:, None] + old) % 8], [int(new[1])])
    half = _modulo_sign(group, turning.matrix(old))
    angles = torch.atan2(half[:, 1, 0], half[:, 0, 0]) % torch.pi
    counts = [int((angles.sin().abs() < 1e-9).sum()), int((angles.cos().abs() < 1e-9).sum())]
    assert counts[0] == counts[1] > 0 and sum(counts) == len(half)
