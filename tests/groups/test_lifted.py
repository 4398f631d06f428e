"""Representations of one factor as those of a direct product, and actions of products that cannot be listed."""

import pickle

import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    GCoupling,
    GLinear,
    InvariantNormal,
    IrrepSplit,
    VectorAction,
    g_coupling,
)
from pyro_gflows.groups import (
    DefiningRepresentation,
    LiftedRepresentation,
    MatrixRepresentation,
    RegularRepresentation,
    SignRepresentation,
    TrivialRepresentation,
    parse_group,
)
from pyro_gflows.nn import EquivariantMLP
from pyro_gflows.nn.hidden_fields import maps_between
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_equivariant, assert_invariant

LARGE = parse_group("C2^12 x S3 x O(2)")
SMALL = parse_group("C2^2 x S3 x D4")


def action_of(product):
    """Signs, permuted rows, vectors of the plane, and scalars, each under a factor of its own."""
    signs = VectorAction([SignRepresentation(product.factors[0], index) for index in (0, 1, 1)])
    rows = VectorAction.rows("S3", features=2)
    plane = VectorAction.plane(product.factors[2], copies=2)
    parts = [part.lift(product, index) for index, part in enumerate([signs, rows, plane])]
    return parts[0].direct_sum(*parts[1:], VectorAction.trivial(product, copies=2))


def lifted(action):
    """The same action of a small product, by lifted representations instead of tables."""
    product = action.group
    signs = [LiftedRepresentation(SignRepresentation("C2^2", index), product, 0) for index in (0, 1, 1)]
    rows = [LiftedRepresentation(VectorAction.rows("S3", features=2).fields[0], product, 1)]
    plane = [LiftedRepresentation(DefiningRepresentation("D4"), product, 2)] * 2
    return VectorAction([*signs, *rows, *plane, *[TrivialRepresentation(product)] * 2])


def events(action, *shape, seed=0):
    return torch.randn(*shape, action.numel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_lifted_fields_are_the_tables_of_a_small_product():
    tables = action_of(SMALL)
    own = lifted(tables)
    assert {type(field) for field in tables.fields} == {MatrixRepresentation, TrivialRepresentation}
    g = SMALL.elements()
    torch.testing.assert_close(own.matrix(g), tables.matrix(g), rtol=0, atol=0)
    x = events(own, len(g))
    torch.testing.assert_close(own.act_each(g, x), tables.act_each(g, x), rtol=0, atol=0)
    for field, start in zip(own.fields, torch.tensor([0, *own.field_sizes[:-1]]).cumsum(0).tolist(), strict=True):
        part = x[:, start : start + field.size]
        torch.testing.assert_close(field.act(g, part), tables.act_each(g, x)[:, start : start + field.size])
    assert sorted(own.decomposition.sizes) == sorted(tables.decomposition.sizes)
    for part in own.decomposition:
        assert any(
            torch.allclose(part.project(x), other.project(x), rtol=0, atol=1e-12) for other in tables.decomposition
        )
    assert maps_between(own, own) == maps_between(tables, tables)
    torch.testing.assert_close(own.invariants().T @ own.invariants(), tables.invariants().T @ tables.invariants())
    assert own.is_signed_permutation and tables.is_signed_permutation and not own.is_permutation
    torch.testing.assert_close(own.absolute().matrix(g), tables.absolute().matrix(g), rtol=0, atol=0)


def test_a_large_product_acts_by_its_factors():
    action = action_of(LARGE)
    assert {type(field) for field in action.fields} == {LiftedRepresentation, TrivialRepresentation}
    g, x = LARGE.sample((5,), torch.Generator().manual_seed(0)), events(action, 5)
    signs, permutations, rotations = (LARGE.project(g, index) for index in range(3))
    images = action.act_each(g, x)
    torch.testing.assert_close(images[:, :3], x[:, :3] * signs[:, [0, 1, 1]], rtol=0, atol=0)
    torch.testing.assert_close(images[:, 3:9], VectorAction.rows("S3", features=2).act_each(permutations, x[:, 3:9]))
    expected = torch.einsum("nij,nkj->nki", rotations, x[:, 9:13].unflatten(-1, (2, 2))).flatten(1)
    torch.testing.assert_close(images[:, 9:13], expected)
    torch.testing.assert_close(images[:, 13:], x[:, 13:], rtol=0, atol=0)
    torch.testing.assert_close((action.matrix(g) @ x[..., None])[..., 0], images)


@pytest.mark.parametrize(
    "make",
    [
        GLinear,
        GActNorm,
        g_coupling,
        lambda action: GCoupling(action, split=IrrepSplit(action)),
        lambda action: EquivariantMLP(action, action, width=2, depth=1),
    ],
)
def test_layers_commute_with_a_large_product(make):
    action = action_of(LARGE)
    layer = make(action).double()
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    elements = torch.cat([LARGE.generators(), LARGE.sample((4,), torch.Generator().manual_seed(2))])
    assert_equivariant(layer, action, action, events(action, 3), elements=elements)


def test_a_flow_is_invariant_under_a_large_product():
    action = action_of(LARGE)
    flow = EquivariantFlow(InvariantNormal(action), [g_coupling(action), GLinear(action)]).double()
    assert_invariant(flow.dist, action, events(action, 4))


def test_the_canonical_form_is_that_of_each_factor():
    product = parse_group("C2^12 x C4")
    action = VectorAction.signs(12).lift(product, 0).direct_sum(VectorAction.plane("C4").lift(product, 1))
    x, h = events(action, 30), product.sample((30,), torch.Generator().manual_seed(0))
    images = action.act_each(h, x)
    forms = action.act_each(action.canonical(x), x)
    torch.testing.assert_close(action.act_each(action.canonical(images), images), forms, rtol=0, atol=1e-12)
    assert bool((forms[:, :12] >= 0).all()) and not torch.equal(forms[:, 12:], x[:, 12:])
    signs_alone = VectorAction.signs(12).lift(product, 0)
    unread = product.project(signs_alone.canonical(x[:, :12]), 1)
    assert torch.equal(unread, torch.zeros_like(unread))  # no field reads this factor
    assert action_of(LARGE).canonical(events(action_of(LARGE), 2)) is None  # none is known for O(2)


def test_lifted_representations_are_values():
    field = LiftedRepresentation(DefiningRepresentation("O(2)"), LARGE, 2)
    for twin in (pickle.loads(pickle.dumps(field)), build(describe(field))):
        assert twin == field and hash(twin) == hash(field) and repr(twin) == "defining of C2^12 x S3 x O(2)"
    twice = parse_group("C2 x C2 x O(2)")
    first, second = (LiftedRepresentation(RegularRepresentation("C2"), twice, index) for index in range(2))
    assert first != second
    kinds = VectorAction([first, second]).decomposition
    assert [(part.multiplicity, part.is_trivial) for part in kinds] == [(2, True), (1, False), (1, False)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LiftedRepresentation(DefiningRepresentation("O(2)"), LARGE, 3), "a direct product with a factor 3"),
        (
            lambda: LiftedRepresentation(DefiningRepresentation("D4"), LARGE, 2),
            r"of factor 2, O\(2\), got defining of D4",
        ),
        (lambda: LiftedRepresentation(DefiningRepresentation("D4"), parse_group("D4"), 0), "direct product .*, got D4"),
        (lambda: VectorAction.plane("D4").lift(LARGE, 2), r"expected an action of factor 2, O\(2\)"),
    ],
)
def test_bad_input_says_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
