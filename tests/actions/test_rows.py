"""Row actions agree with the tables of small groups, and their structure holds for groups of any size."""

import math
import pickle

import pytest
import torch

from pyro_gflows import RowsAction, VectorAction
from pyro_gflows.groups import MatrixField, MatrixRepresentation, RowStructure, parse_group
from pyro_gflows.groups.decomposition import decompose, intertwiner
from pyro_gflows.nn import EquivariantLinear
from pyro_gflows.serialization.registry import build, describe


def _mixture(n):
    return RowsAction(n, mean_free=True).direct_sum(RowsAction(n, 2), RowsAction(n).trivial_fields(1))


def _hidden_units(n):
    return RowsAction(n, 2, signed=True).direct_sum(RowsAction(n, signed=[]), RowsAction(n, 3, signed=[1]))


SMALL = {
    "S3": RowsAction(3, 2),
    "S5": RowsAction(5),
    "mixture": _mixture(4),
    "hidden units": _hidden_units(3),
    "two units": RowsAction(2, 1, signed=True),
    "blocks": RowsAction((3, 2), 2),
    "one block": RowsAction((3, 2), 2, block=1).direct_sum(RowsAction((3, 2))),
    "planes": RowsAction(3, VectorAction.plane("C3", copies=2)).direct_sum(RowsAction(3, VectorAction.trivial("C3"))),
    "signed planes": RowsAction(2, VectorAction.plane("D4"), signed=True),
}
LARGE = {
    "S8": RowsAction(8, 2),
    "S50": RowsAction(50, 2),
    "mixture": _mixture(20),
    "hidden units": _hidden_units(20),
    "blocks": RowsAction((9, 4), 2),
    "circles": RowsAction(5, VectorAction.plane("O(2)")),
    "space": RowsAction(13, VectorAction.space("O(3)", copies=2)),
}
MATRICES = {
    "transition rates": RowsAction(4).direct_sum(RowsAction.of_matrix(4)),
    "transition log-ratios": RowsAction(4).direct_sum(
        RowsAction([MatrixField(RowStructure((4,)), (0, 0), mean_free=True)])
    ),
    "two layers": RowsAction.of_matrix((12, 9), blocks=(0, 1), odd=(True, True)).direct_sum(
        RowsAction((12, 9), signed=True)
    ),
}
EVERY = [*SMALL.items(), *LARGE.items(), *MATRICES.items()]
IDS = [f"{name}: {action.group}" for name, action in EVERY]


@pytest.fixture(params=[action for _, action in EVERY], ids=IDS)
def action(request):
    return request.param


def _event(action, *batch, seed=0):
    return torch.randn(*batch, action.numel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _elements(action, count, seed=0):
    return action.sample((count,), torch.Generator().manual_seed(seed))


def _commuting(matrices):
    """The dimension of the space of matrices that commute with all of these, from a null space."""
    unit = torch.eye(matrices.shape[-1], dtype=torch.float64)
    system = torch.cat([torch.kron(unit, m) - torch.kron(m.T.contiguous(), unit) for m in matrices])
    return len(unit) ** 2 - int(torch.linalg.matrix_rank(system.T @ system, atol=1e-8))


def test_a_row_goes_to_its_place_with_its_sign():
    action = RowsAction(7, 2, signed=[1])
    permutation, sign = torch.tensor([3, 0, 6, 1, 2, 5, 4]), torch.tensor([1, -1, 1, 1, -1, -1, 1])
    element = action.structure.elements_of([permutation], [sign])
    x = _event(action).unflatten(-1, (7, 2))
    image = action.act(element, x.flatten()).unflatten(-1, (7, 2))
    for j in range(7):
        assert torch.equal(image[permutation[j]], x[j] * torch.tensor([1.0, sign[j]]))


def test_it_is_an_action_by_the_orthogonal_matrices_that_it_names(action):
    g, h, x = _elements(action, 5), _elements(action, 5, seed=1), _event(action, 5)
    both = action.act_each(g, action.act_each(h, x))
    torch.testing.assert_close(both, action.act_each(action.group.compose(g, h), x), rtol=0.0, atol=1e-12)
    matrices = action.matrix(g)
    torch.testing.assert_close((matrices @ x[..., None])[..., 0], action.act_each(g, x), rtol=0.0, atol=1e-12)
    unit = torch.eye(action.numel, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(matrices @ matrices.mT, unit, rtol=0.0, atol=1e-12)
    back = action.act_each(action.group.inverse(g), action.act_each(g, x))
    torch.testing.assert_close(back, x, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_the_components_are_those_of_the_table_of_all_elements(name):
    action = SMALL[name]
    table = action.matrix(action.group.elements())
    known = decompose(MatrixRepresentation(action.group, table))
    found = {(part.multiplicity, part.dim, part.type): part for part in action.decomposition}
    expected = [(part.multiplicity, part.dim, part.type) for part in known]
    assert sorted((part.multiplicity, part.dim, part.type) for part in action.decomposition) == sorted(expected)
    x = _event(action, 3)
    for part in known:
        if expected.count(key := (part.multiplicity, part.dim, part.type)) == 1:
            torch.testing.assert_close(found[key].project(x), part.project(x), rtol=0.0, atol=1e-10)
    assert action.decomposition[0].is_trivial == known[0].is_trivial


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_the_change_of_basis_is_orthogonal_and_blocks_the_group(name):
    action = (SMALL | LARGE)[name]
    parts, g, x = action.decomposition, _elements(action, 3), _event(action, 2)
    basis = torch.cat([part.basis.flatten(0, 1) for part in parts])
    torch.testing.assert_close(basis @ basis.T, torch.eye(action.numel, dtype=torch.float64), rtol=0.0, atol=1e-12)
    torch.testing.assert_close(parts.coordinates(x), x @ basis.T, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(parts.event(parts.coordinates(x)), x, rtol=0.0, atol=1e-12)
    blocks = [torch.block_diag(*[part.irrep(e) for part in parts for _ in range(part.multiplicity)]) for e in g]
    torch.testing.assert_close(basis @ action.matrix(g) @ basis.T, torch.stack(blocks), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_every_irrep_is_irreducible_and_of_its_type(name):
    """As many maps commute with each irrep as its type says, and no two irreps are alike."""
    action = (SMALL | LARGE)[name]
    g = _elements(action, 12, seed=3)
    for part in action.decomposition:
        kernel = _commuting(part.irrep(g)) if part.dim < 20 else 1
        assert kernel == len(part.commutant)
    parts = list(action.decomposition)
    assert all(intertwiner(a, b) is None for a in parts for b in parts if a is not b)


def test_a_canonical_form_is_one_for_each_orbit(action):
    x = _event(action, 50)
    element = action.canonical(x)
    if action.structure.has_inner:
        assert element is None or action.group.order <= 2**20
        return
    form = action.act_each(element, x)
    images = action.act_each(_elements(action, 50), x)
    torch.testing.assert_close(action.act_each(action.canonical(images), images), form, rtol=0.0, atol=1e-12)


def test_equal_rows_are_the_only_ties_of_a_canonical_form():
    action = RowsAction(40, 2)
    x = torch.randint(3, (20, 80), generator=torch.Generator().manual_seed(0)).double()
    images = action.act_each(_elements(action, 20), x)
    forms = [action.act_each(action.canonical(event), event) for event in (x, images)]
    assert torch.equal(*forms)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_features_are_unpacked_and_packed_again(name):
    action = (SMALL | LARGE)[name]
    x = _event(action, 4)
    rows = action.unpack(x)
    torch.testing.assert_close(action.pack(rows), x, rtol=0.0, atol=1e-12)
    for block, size in enumerate(action.layout.sizes):
        assert rows.even[block].shape[:2] == rows.odd[block].shape[:2] == (4, size)
        free = action.layout.mean_free[block]
        assert rows.even[block].shape[-1] == len(free)
        assert rows.even[block][..., free].sum(-2).abs().max() < 1e-12 if free.any() else True


def test_invariant_vectors_are_all_that_are_left_as_they_are(action):
    found, g = action.invariants(), _elements(action, 40)
    assert torch.allclose(found @ found.T, torch.eye(len(found), dtype=torch.float64))
    for element in g[:3]:
        torch.testing.assert_close(action.act(element, found), found, rtol=0.0, atol=1e-12)
    mean = action.matrix(g).mean(0)  # the average over many elements has the eigenvalue 1 on invariant vectors only
    values = torch.linalg.svdvals(mean)
    assert int((values > 1 - 1e-9).sum()) == len(found)


def test_nothing_is_built_of_the_size_of_the_group_or_of_the_square_of_the_event():
    action = RowsAction(10_000, 3)
    x = torch.randn(2, 30_000)
    coordinates = action.decomposition.coordinates(x)
    assert torch.allclose(action.decomposition.event(coordinates), x, atol=1e-4)
    assert action.act_each(action.sample((2,)), x).shape == x.shape
    assert action.canonical(x).shape == (2, 10_000)
    assert action.invariants().shape == (3, 30_000)
    with pytest.raises(ValueError, match="at most 2048 coordinates, got 30000"):
        _ = action.decomposition[1].basis


@pytest.mark.parametrize("name", SMALL)
def test_linear_maps_are_all_that_commute_with_the_generators(name):
    action = SMALL[name]
    layer = EquivariantLinear(action, action, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == _commuting(action.matrix(action.generators()))


def test_an_action_is_a_value(action):
    copy = build(describe(action))
    assert copy == action and hash(copy) == hash(action) and pickle.loads(pickle.dumps(action)) == action
    assert repr(copy) == repr(action)
    assert action.copies(2).numel == 2 * action.numel


def test_names_and_orders():
    assert str(RowsAction(20, 10, signed=True)) == "RowsAction(signed S20 on R^200: signed rows of 10)"
    assert RowsAction(50, 2, signed=[]).group.order == math.factorial(50) * 2**50
    assert RowsAction(13, VectorAction.space("O(3)")).group == parse_group("S13 x O(3)")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RowsAction(0), ValueError, "at least one row"),
        (lambda: RowsAction(2.5), TypeError, "number of rows"),
        (lambda: RowsAction((3, 0)), ValueError, "at least one row"),
        (lambda: RowsAction(3, 0), ValueError, "positive number of features"),
        (lambda: RowsAction(3, "two"), TypeError, "expected features as a number"),
        (lambda: RowsAction(3, 2, signed=[2]), ValueError, "features in 0..1"),
        (lambda: RowsAction(3, 2, signed=[True, False]), TypeError, "indices of odd features"),
        (lambda: RowsAction(3, 2, block=1), ValueError, "block in 0..0"),
        (lambda: RowsAction(3, signed=True, mean_free=True), ValueError, "cannot be mean-free"),
        (lambda: RowsAction((3, 2), mean_free=True), ValueError, "one block"),
        (lambda: RowsAction(1, mean_free=True), ValueError, "at least 2 rows"),
        (lambda: RowsAction(3).direct_sum(RowsAction(4)), ValueError, "one kind and group"),
        (lambda: RowsAction(4).pack(RowsAction(4).unpack(torch.zeros(5))), ValueError, "expected x of shape"),
        (lambda: MATRICES["two layers"].decomposition, ValueError, "not known in closed form"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
