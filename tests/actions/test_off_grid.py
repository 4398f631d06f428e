"""Turns between the pixels: exact where the grid carries them, interpolated elsewhere, never a flow's symmetry."""

import copy
import pickle

import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    ImageAction,
    InvariantNormal,
    OffGridAction,
    Symmetrized,
    g_residual,
    g_residual_image_flow,
)
from pyro_gflows.actions import Action, CoordinateSplit, IrrepSplit, LinearAction, isotypic_split
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.groups import RegularRepresentation
from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.groups.restriction import places_in, restricted_to_subgroup
from pyro_gflows.nn import EquivariantConv, EquivariantMLP, LipschitzDenseNetwork, LipschitzNetwork, Ridges
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.transforms import GSqueeze

GROUPS = {
    "C1": "C1",
    "C3": "C1",
    "C6": "C2",
    "C8": "C4",
    "C12": "C4",
    "D1": "D1",
    "D3": "D1",
    "D6": "D2",
    "D8": "D4",
    "D12": "D4",
    "SO(2)": "C4",
    "O(2)": "D4",
}


def events(action, *batch):
    return torch.randn(*batch, *action.event_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("group", "carried"), GROUPS.items())
@pytest.mark.parametrize("size", [5, 6])
def test_the_exact_part_is_that_image_action_bit_by_bit(group, carried, size):
    action = OffGridAction(group, 2, size=size)
    exact = action.exact_subgroup
    assert exact == ImageAction(carried, 2, size=size)
    if action.is_finite:
        elements = places_in(exact.group, action.group)
        exactly = [int(g) for g in action.elements() if action.is_exact(g)]
        assert sorted(elements.tolist()) == exactly
    else:
        elements = exact.group.plane()
        assert not action.is_exact(action.sample(generator=torch.Generator().manual_seed(0)))
    x = events(action, 3)
    for g, h in zip(elements, exact.elements(), strict=True):
        assert action.is_exact(g)
        assert torch.equal(action.act(g, x), exact.act(h, x))


def test_an_oblong_grid_has_rotations_by_180_degrees():
    action = OffGridAction("D8", size=(4, 6))
    assert action.exact_subgroup == ImageAction("D2", 1, size=(4, 6))
    assert not action.is_exact(torch.tensor(2))  # rotation by 90 degrees
    x = events(action)
    assert torch.equal(action.act(torch.tensor(4), x), action.exact_subgroup.act(torch.tensor(1), x))


def test_a_rotation_by_45_degrees_rotates_a_smooth_bump_counterclockwise():
    rows, columns = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(21.0) - 10, indexing="ij")

    def bump(x, y):
        return (-((columns - x) ** 2 + (rows + y) ** 2) / 8).exp()[None]

    transformed = OffGridAction("C8", size=21).act(torch.tensor(1), bump(5.0, 0.0))
    assert (transformed - bump(5 / 2**0.5, 5 / 2**0.5)).abs().max() < 0.05


def test_batches_of_elements_and_the_matrix():
    for group in ("D8", "O(2)"):
        action = OffGridAction(group, 2, size=4)
        elements, x = action.sample((3, 5), torch.Generator().manual_seed(0)), events(action, 5)
        transformed = action.act_each(elements, x)
        assert transformed.shape == (3, 5, 2, 4, 4)
        # a batch and a single event may be summed in another order
        torch.testing.assert_close(transformed[1, 2], action.act(elements[1, 2], x[2]), rtol=0, atol=1e-14)
        by_matrix = (action.matrix(elements) @ x.flatten(1)[..., None]).squeeze(-1)
        torch.testing.assert_close(by_matrix, transformed.flatten(2), rtol=0, atol=1e-14)


def test_it_is_a_value():
    action = OffGridAction("D8", 2, size=6)
    for other in (copy.deepcopy(action), pickle.loads(pickle.dumps(action)), build(describe(action))):
        assert other == action
        assert hash(other) == hash(action)
    assert action != OffGridAction("D8", 2, size=8) != OffGridAction("C16", 2, size=8)
    assert action.direct_sum(action.trivial_fields(1)) == OffGridAction("D8", 3, size=6)
    assert str(action) == "OffGridAction(D8 on 2 x 6 x 6, exact under D4)"


@pytest.mark.parametrize(
    "make",
    [
        lambda action: InvariantNormal(action),
        lambda action: GActNorm(action),
        lambda action: g_residual_image_flow(action),
        lambda action: Symmetrized(InvariantNormal(action.exact_subgroup), action),
        lambda action: EquivariantFlow(InvariantNormal(action), []),
        lambda action: g_residual(action),
        lambda action: LipschitzNetwork(action, width=1),
        lambda action: LipschitzDenseNetwork(action, width=1),
        lambda action: EquivariantMLP(action.exact_subgroup.as_vector(), action),
        lambda action: Ridges(action),
        lambda action: require_linear(action),
    ],
)
def test_no_density_takes_it_for_a_symmetry(make):
    with pytest.raises(ValueError, match=r"g_soft_coupling_image_flow.*action\.exact_subgroup"):
        make(OffGridAction("C8", size=4))


@pytest.mark.parametrize("group", ["C8", "D4", "O(2)"])
def test_it_is_an_action_that_claims_its_exact_subgroup_only(group):
    """And no linear one: what Schur's lemma needs is not there."""
    action = OffGridAction(group, 2, size=4)
    assert isinstance(action, Action) and not isinstance(action, LinearAction)
    for name in ("decomposition", "fields", "invariants", "regular_fields", "absolute", "is_permutation"):
        assert not hasattr(action, name) and hasattr(action.exact_subgroup, name)
    exact = action.exact_subgroup
    assert exact.exact_subgroup is exact and require_linear(exact) is exact
    assert action.field_sizes == exact.field_sizes == [1, 1]
    assert action.canonical(events(action)) is None
    action.check_event(events(action, 3))


@pytest.mark.parametrize("make", [IrrepSplit, CoordinateSplit, EquivariantConv, isotypic_split, GSqueeze])
def test_what_asks_for_another_kind_names_it(make):
    arguments = [OffGridAction("C8", size=4)] * (2 if make is EquivariantConv else 1)
    with pytest.raises(TypeError, match=r"expected an? (Linear|Vector|Image)Action.*OffGridAction"):
        make(*arguments)


def test_an_image_action_points_here():
    for group in ("C8", "SO(2)"):
        with pytest.raises(ValueError, match="OffGridAction.*g_soft_coupling_image_flow"):
            ImageAction(group, size=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OffGridAction("S3", size=4), "rotations of the plane"),
        (
            lambda: OffGridAction("C8", size=4, fields="regular"),
            "1 trivial fields.*g_soft_coupling_image_flow",
        ),
        (lambda: OffGridAction("C8", size=4).direct_sum(OffGridAction("C8", size=5)), "one grid"),
        (lambda: OffGridAction("SO(2)", size=4).elements(), "infinitely many"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_regular_representation_of_the_whole_under_a_part():
    whole, part = OffGridAction("D8", size=4).group, ImageAction("D4", size=4).group
    places, restricted = places_in(part, whole), restricted_to_subgroup(RegularRepresentation(whole), part)
    assert isinstance(whole, EnumerableGroup)
    for h in part.elements():
        assert torch.equal(restricted.matrices(h).argmax(-2), whole.table[places[h]])
    with pytest.raises(ValueError, match="expected a subgroup of C8"):
        places_in(part, OffGridAction("C8", size=4).group)
