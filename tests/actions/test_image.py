"""Image actions against torch.rot90, flip and roll, and against their own matrices."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.groups import (
    DefiningRepresentation,
    DihedralGroup,
    QuotientRepresentation,
    RegularRepresentation,
    TrivialRepresentation,
)
from pyro_gflows.serialization.registry import build, describe

ACTIONS = {
    **{f"{group}-trivial": ImageAction(group, 2, size=4) for group in ["C1", "C2", "C4", "D1", "D2", "D4"]},
    **{f"{group}-regular": ImageAction(group, 2, size=3, fields="regular") for group in ["C2", "C4", "D1", "D2", "D4"]},
    "D2-oblong": ImageAction("D2", 1, size=(3, 4), fields="regular"),
    "D4-quotient": ImageAction("D4", size=4, fields=QuotientRepresentation("D4", [0, 4])),
    "D4-mixed": ImageAction(
        "D4", size=4, fields=[TrivialRepresentation("D4"), RegularRepresentation("D4"), TrivialRepresentation("D4")]
    ),
    "D4-vectors": ImageAction("D4", size=4, fields=[DefiningRepresentation("D4"), TrivialRepresentation("D4")]),
    "shifts": ImageAction.translations(2, size=4),
    "even-shifts": ImageAction.translations(2, size=(4, 8), step=2),
}
every_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())


def images(action: ImageAction, *batch: int) -> torch.Tensor:
    return torch.randn(*batch, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_scalar_fields_are_rotated_counterclockwise_and_reflected() -> None:
    action = ImageAction("D4", 2, size=5)
    x = images(action, 3)
    for k in range(4):
        assert torch.equal(action.act(torch.tensor(k), x), torch.rot90(x, k, (-2, -1)))
        assert torch.equal(action.act(torch.tensor(4 + k), x), torch.rot90(x.flip(-2), k, (-2, -1)))


def test_regular_fields_also_permute_their_channels() -> None:
    group = DihedralGroup(4)
    action = ImageAction("D4", 1, size=4, fields="regular")
    x = images(action)
    for g in range(8):
        rotated = torch.rot90(x.flip(-2) if g >= 4 else x, g % 4, (-2, -1))
        expected = torch.empty_like(x)
        expected[group.table[g]] = rotated
        assert torch.equal(action.act(torch.tensor(g), x), expected)


def test_translations_roll_the_periodic_grid() -> None:
    action = ImageAction.translations(2, size=(4, 8), step=2)
    x = images(action, 2)
    for g in range(8):
        assert torch.equal(action.act(torch.tensor(g), x), x.roll((2 * (g // 4), 2 * (g % 4)), (-2, -1)))
    assert action.padding == "circular"
    assert ImageAction("C4", size=4).padding == "zero"


@every_action
def test_action_is_its_matrices_and_a_homomorphism(action: ImageAction) -> None:
    x, elements = images(action, 3), action.elements()
    expected = (action.matrix(elements)[:, None] @ x.flatten(1)[..., None]).reshape(len(elements), *x.shape)
    assert torch.allclose(action.act_all(x), expected, atol=1e-14)
    for g in elements[-2:]:
        composed = action.act_each(g, action.act_all(x))
        assert torch.allclose(composed, action.act_all(x)[action.group.table[g]], atol=1e-14)  # type: ignore[attr-defined]


@every_action
def test_elements_broadcast_with_the_batch(action: ImageAction) -> None:
    x, elements = images(action, 3), action.sample((5, 3))
    transformed = action.act_each(elements, x)
    assert transformed.shape == (5, *x.shape)
    for i in range(5):
        for j in range(3):
            assert torch.equal(transformed[i, j], action.act(elements[i, j], x[j]))
    assert action.act_each(elements, x[0]).shape == (5, *x.shape)


@every_action
def test_decomposition_block_diagonalizes(action: ImageAction) -> None:
    isotypes = action.decomposition
    basis = torch.cat([isotype.basis.flatten(0, 1) for isotype in isotypes])
    assert torch.allclose(basis @ basis.T, torch.eye(action.numel, dtype=torch.float64), atol=1e-12)
    elements = action.elements()
    for isotype in isotypes:
        images = torch.einsum("mid,gde,nje->gmnij", isotype.basis, action.matrix(elements), isotype.basis)
        same = torch.eye(isotype.multiplicity, dtype=torch.float64)[:, :, None, None]
        assert torch.allclose(images, same * isotype.irrep(elements)[:, None, None], atol=1e-11)
        assert len(isotype.labels) == isotype.multiplicity
        assert max(isotype.labels) < len(action.fields)


@every_action
def test_values_compare_copy_and_rebuild(action: ImageAction) -> None:
    action.act_all(images(action))
    for other in [copy.deepcopy(action), pickle.loads(pickle.dumps(action)), build(describe(action))]:
        assert other == action
        assert hash(other) == hash(action)
        assert torch.equal(other.act_all(images(action)), action.act_all(images(action)))
    assert sum(other == action for other in ACTIONS.values()) == 1


def test_related_actions() -> None:
    action = ImageAction("D4", 3, size=4)
    assert repr(action) == "ImageAction(D4 on 3 x 4 x 4: 3 x trivial)"
    assert action.regular_fields(2) == ImageAction("D4", 2, size=4, fields="regular")
    assert action.trivial_fields(3) == action
    assert action.copies(2).event_shape == (6, 4, 4)
    both = action.direct_sum(action.regular_fields(1))
    x, y = images(action), images(action.regular_fields(1))
    g = torch.tensor(5)
    expected = torch.cat([action.act(g, x), action.regular_fields(1).act(g, y)])
    assert torch.equal(both.act(g, torch.cat([x, y])), expected)
    assert repr(both) == "ImageAction(D4 on 11 x 4 x 4: 3 x trivial + regular)"
    vectors = ACTIONS["D4-vectors"]
    assert vectors.is_signed_permutation
    assert not vectors.is_permutation
    assert vectors.absolute().is_permutation
    assert torch.equal(vectors.absolute().matrix(vectors.elements()), vectors.matrix(vectors.elements()).abs())


def test_two_groups_with_one_table_are_two_actions() -> None:
    assert ImageAction("C2", size=4) != ImageAction("D1", size=4)
    with pytest.raises(ValueError, match="one grid"):
        ImageAction("C2", size=4).direct_sum(ImageAction("D1", size=4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"group": "C3", "size": 4},
            "C3 does not map a pixel grid to itself; the groups that do are C1, C2",
        ),
        ({"group": "D8", "size": 4}, "D8 does not map a pixel grid to itself"),
        ({"group": "SO(2)", "size": 4}, r"SO\(2\) does not map a pixel grid to itself"),
        ({"group": "C4", "size": (4, 6)}, "C4 does not map a 4 x 6 grid to itself"),
        ({"group": "D4", "size": (4, 5)}, "D4 does not map a 4 x 5 grid to itself"),
        ({"group": "C4", "size": 0}, "size such as 32"),
        ({"group": "C4", "size": 4, "copies": 0}, "positive number"),
        ({"group": "C4", "size": 4, "fields": "vector"}, "'trivial', 'regular'"),
        ({"group": "C4", "size": 4, "fields": RegularRepresentation("D4")}, "fields of C4"),
        ({"group": "C4", "size": 4, "copies": 3, "fields": [RegularRepresentation("C4")] * 2}, "expected 3 fields"),
    ],
)
def test_what_the_grid_cannot_carry(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageAction(**arguments)


def test_bad_events_and_large_decompositions() -> None:
    action = ImageAction("C4", size=4)
    with pytest.raises(ValueError, match="expected x of shape"):
        action.act(torch.tensor(1), torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="at most 512"):
        _ = ImageAction("C4", size=32).decomposition[0].basis
    with pytest.raises(ValueError, match="use layers on fields, such as convolutions"):
        _ = ImageAction.translations(size=32).decomposition[0].basis
    with pytest.raises(ValueError, match="divides the grid"):
        ImageAction.translations(size=5, step=2)
    with pytest.raises(ValueError, match="one kind"):
        action.direct_sum(VectorAction.regular("C4"))


@pytest.mark.parametrize("action", [ImageAction("D4", 2, size=4), ImageAction("C2", 1, size=(2, 3), fields="regular")])
def test_as_vector_acts_on_the_flattened_event(action: ImageAction) -> None:
    x = torch.randn(3, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vector = action.as_vector()
    assert vector.is_permutation and vector.group == action.group
    for g in action.elements():
        assert torch.equal(vector.act(g, x.flatten(1)), action.act(g, x).flatten(1))
