"""Finite groups whose elements cannot be listed: what works all the same, and what says that it needs them all."""

import re

import pytest
import torch

from pyro_gflows import (
    ElementwiseCircularSpline,
    EquivariantFlow,
    GActNorm,
    InvariantNormal,
    OrbitFlow,
    OrbitMixture,
    RowsAction,
    Symmetrized,
    VectorAction,
    augment,
    g_autoregressive,
    g_coupling,
    g_residual,
)
from pyro_gflows.actions.splits.irrep_basis import monomial_basis
from pyro_gflows.datasets.symmetry import check_symmetry
from pyro_gflows.evaluation.invariance import invariance_report
from pyro_gflows.groups import SignGroup, SignRepresentation, TrivialRepresentation
from pyro_gflows.nn import ConditionalBranch, LipschitzDenseNetwork, LipschitzNetwork, Ridges, lipschitz_branch
from pyro_gflows.nn.hidden_fields import maps_between
from pyro_gflows.testing import assert_equivariant, assert_invariant

SIGNS = VectorAction.signs(12, copies=2)
LARGE = {"C2^12": SIGNS, "S8": RowsAction(8, 2), "signed S6": RowsAction(6, 2, signed=True)}


@pytest.fixture(params=LARGE)
def action(request):
    return LARGE[request.param]


def events(action, *shape, seed=0):
    return torch.randn(*shape, action.numel, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def elements(action, *shape, seed=1):
    return action.sample(shape, torch.Generator().manual_seed(seed))


def with_random_weights(module):
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.double()


def residual(action):
    return g_residual(action, branch=lambda action: lipschitz_branch(action, bound=0.5))  # its inverse takes few steps


# -- sign flips of any number -----------------------------------------------------------------------------------------
def same_signs(fields):
    """The action of three signs with the structure of a large group, and by tables as small groups have it."""
    group = SignGroup(3)
    structured = [
        TrivialRepresentation(group) if field is None else SignRepresentation(group, field) for field in fields
    ]
    tables = VectorAction.signs(3).fields
    tabulated = [TrivialRepresentation(tables[0].group) if field is None else tables[field] for field in fields]
    return VectorAction(structured), VectorAction(tabulated)


@pytest.mark.parametrize("fields", [(0, 1, 2), (0, None, 1, 0, None, 2, 2, 2), (None, None)])
def test_the_components_of_signs_are_those_of_the_tables(fields):
    structured, tabulated = same_signs(fields)
    assert sorted(structured.decomposition.sizes) == sorted(tabulated.decomposition.sizes)
    x, g = events(structured, 5), elements(structured, 5)
    torch.testing.assert_close(structured.act_each(g, x), tabulated.act_each(g, x), rtol=0, atol=0)
    for part in structured.decomposition:
        (twin,) = [
            other
            for other in tabulated.decomposition
            if torch.allclose(other.project(x), part.project(x), rtol=0, atol=1e-12)
        ]
        assert part.dim == 1 and part.type == "real"
        assert (part.multiplicity, part.is_trivial) == (twin.multiplicity, twin.is_trivial)
        torch.testing.assert_close(part.irrep(g), twin.irrep(g))
    others = same_signs((2, 2, None, 0))
    assert maps_between(structured, others[0]) == maps_between(tabulated, others[1])
    assert structured.is_signed_permutation and structured.is_permutation == tabulated.is_permutation
    assert structured.absolute().is_permutation and len(structured.invariants()) == len(tabulated.invariants())


def test_signs_have_a_canonical_form():
    x, h = events(SIGNS, 40), elements(SIGNS, 40)
    x[0, 3] = x[1, 3] = x[1, 15] = 0.0  # one coordinate of a sign is 0, or all of them are
    g, images = SIGNS.canonical(x), SIGNS.act_each(h, x)
    torch.testing.assert_close(SIGNS.act_each(SIGNS.canonical(images), images), SIGNS.act_each(g, x), rtol=0, atol=0)
    keep = (x.unflatten(-1, (2, 12)) != 0).any(-2)
    assert torch.equal(SIGNS.canonical(images)[keep], (g * h)[keep])
    mixed = VectorAction([*SIGNS.fields[:5], TrivialRepresentation(SIGNS.group)])
    canonical = mixed.act_each(mixed.canonical(x[:, :6]), x[:, :6])
    assert bool((canonical[:, :5] >= 0).all()) and torch.equal(canonical[:, 5], x[:, 5])


@pytest.mark.parametrize(
    "make",
    [
        residual,
        g_coupling,
        g_autoregressive,
        LipschitzNetwork,
        LipschitzDenseNetwork,
    ],
)
def test_layers_and_networks_commute_with_many_signs(make):
    layer = with_random_weights(make(SIGNS))
    assert_equivariant(layer, SIGNS, SIGNS, events(SIGNS, 3), elements=elements(SIGNS, 6))


def test_a_conditional_branch_commutes_with_many_signs():
    branch = with_random_weights(ConditionalBranch(SIGNS, SIGNS))
    x, context, g = events(SIGNS, 4), events(SIGNS, 4, seed=3), elements(SIGNS, 4)
    image = branch.condition(SIGNS.act_each(g, context))(SIGNS.act_each(g, x))
    value = branch.condition(context)(x)
    torch.testing.assert_close(image, SIGNS.act_each(g, value), rtol=0, atol=1e-12)
    assert bool((value.abs() > 1e-6).all())


def test_a_flow_is_invariant_under_many_signs():
    flow = with_random_weights(EquivariantFlow(InvariantNormal(SIGNS), [GActNorm(SIGNS), residual(SIGNS)]))
    x = events(SIGNS, 6)
    assert_invariant(flow.dist, SIGNS, x)  # tries the generators and random elements
    assert invariance_report(flow, x, SIGNS).worst < 1e-12
    report = check_symmetry(flow.dist.sample((200,)), SIGNS, seed=0)
    assert report.is_consistent and len(report.results) == 8


def test_the_padding_of_an_augmented_flow_follows_many_signs():
    single = VectorAction.signs(12)
    layers = [g_coupling(SIGNS), GActNorm(SIGNS), g_coupling(SIGNS)]
    flow = augment(EquivariantFlow(InvariantNormal(SIGNS), layers), padding=single, draws=4)
    flow = with_random_weights(flow).eval()
    x, g = events(single, 3), elements(single, 3)
    torch.testing.assert_close(flow(single.act_each(g, x)), flow(x), rtol=0, atol=1e-9)


# -- what depends on whether elements can be listed, not on whether the group is finite -------------------------------
def test_large_groups_are_finite_but_not_enumerable(action):
    assert action.is_finite and not action.is_enumerable
    assert VectorAction.plane("D4").is_enumerable and not VectorAction.plane("O(2)").is_enumerable


def test_the_default_branch_of_a_large_group_sums_over_no_elements(action):
    branch = with_random_weights(lipschitz_branch(action))
    assert not any(isinstance(module, Ridges) for module in branch.modules())
    assert_equivariant(branch, action, action, events(action, 3), elements=elements(action, 4))


def test_bases_of_irreps_are_left_as_they_are(action):
    for isotype in action.decomposition:
        basis = monomial_basis(isotype, action, lambda involutions: involutions[:, 0])
        assert torch.equal(basis, torch.eye(isotype.dim, dtype=torch.float64))


@pytest.mark.parametrize(
    "make",
    [
        lambda action: action.elements(),
        lambda action: action.act_all(torch.zeros(action.numel)),
        lambda action: Symmetrized(InvariantNormal(action.without_symmetry()), action),
        OrbitMixture,
        OrbitFlow,
    ],
)
def test_sums_over_all_elements_say_how_large_the_group_is(action, make):
    size = action.group.order_in_words
    with pytest.raises(ValueError, match=rf"got {re.escape(str(action.group))}, .* {size} elements; .* Canonicalized"):
        make(action)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Ridges, "ridge terms are sums over all elements .* which has .* elements; use radial terms"),
        (ElementwiseCircularSpline, "a circular spline needs a group whose elements can be listed"),
        (
            lambda action: action.regular_fields(2),
            "a regular representation needs a group whose elements can be listed",
        ),
    ],
)
def test_other_sums_over_all_elements_say_what_they_are(action, make, message):
    with pytest.raises(ValueError, match=message):
        make(action)
