"""GSqueeze against strided slices, and the fields that come out against the known orbits."""

from __future__ import annotations

import copy
import pickle
from collections import Counter

import pytest
import torch
from torch import Tensor

from pyro_gflows.actions import ChannelSplit, ImageAction, IrrepSplit, VectorAction
from pyro_gflows.groups import DefiningRepresentation, RegularRepresentation, TrivialRepresentation
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.squeeze import GSqueeze

GROUPS = ["C1", "C2", "C4", "D1", "D2", "D4"]
ACTIONS = {
    **{group: ImageAction(group, 2, size=8) for group in GROUPS},
    **{f"{group}-regular": ImageAction(group, 2, size=4, fields="regular") for group in GROUPS},
    "D2-oblong": ImageAction("D2", 1, size=(4, 8)),
    "D4-vectors": ImageAction("D4", size=4, fields=[DefiningRepresentation("D4"), TrivialRepresentation("D4")]),
    "shifts": ImageAction.translations(2, size=8, step=2),
    "shifts-by-4": ImageAction.translations(2, size=(8, 16), step=4),
}
every_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())


def images(action: ImageAction, *batch: int) -> Tensor:
    return torch.randn(*batch, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def twice(action: ImageAction) -> Compose:
    first = GSqueeze(action)
    out = first.action_out
    assert isinstance(out, ImageAction)
    return Compose([first, GSqueeze(out)])


@every_action
def test_equivariant(action: ImageAction) -> None:
    x = images(action, 3)
    even = action.padding == "zero" or action.group.step % 4 == 0  # type: ignore[attr-defined]
    for squeeze in [GSqueeze(action), twice(action) if even else GSqueeze(action)]:
        moved = squeeze.action_out.act_all(squeeze(x))
        assert torch.equal(squeeze(action.act_all(x)), moved)


@every_action
def test_a_permutation_of_the_entries_with_log_det_zero(action: ImageAction) -> None:
    squeeze = GSqueeze(action)
    x = images(action, 2, 3)
    y, ladj = squeeze.call_and_ladj(x)
    assert y.shape == (2, 3, *squeeze.action_out.event_shape)
    blocks = [x[..., c, a::2, b::2] for c in range(x.shape[-3]) for a in (0, 1) for b in (0, 1)]
    assert torch.equal(torch.stack(blocks, -3).index_select(-3, squeeze._order), y)
    back, inverse_ladj = squeeze.inv_call_and_ladj(y)
    assert torch.equal(back, x)
    assert torch.equal(ladj, torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(inverse_ladj, torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(squeeze.inv(squeeze(x[0, 0])), x[0, 0])
    assert squeeze.inv(squeeze(x[:0])).shape == x[:0].shape


@pytest.mark.parametrize(
    ("group", "once", "again"),
    [
        ("C1", {1: 4}, {1: 16}),
        ("C2", {2: 2}, {2: 8}),
        ("D1", {2: 2}, {2: 8}),
        ("C4", {4: 1}, {4: 4}),
        ("D2", {4: 1}, {4: 4}),
        ("D4", {4: 1}, {4: 2, 8: 1}),
    ],
)
def test_orbits_of_one_scalar_field(group: str, once: dict[int, int], again: dict[int, int]) -> None:
    squeeze = GSqueeze(ImageAction(group, size=8))
    second = twice(ImageAction(group, size=8))
    assert Counter(squeeze.action_out.field_sizes) == once
    assert Counter(second.action_out.field_sizes) == again
    if once == {4: 1}:
        with pytest.raises(ValueError, match=r"one orbit, \[0, 1, 2, 3\]"):
            ChannelSplit(squeeze.action_out)  # type: ignore[arg-type]
        assert [part.event_shape[0] for part in IrrepSplit(squeeze.action_out).parts] == [1, 3]
    else:
        assert [part.event_shape[0] for part in ChannelSplit(squeeze.action_out).parts] == [2, 2]  # type: ignore[arg-type]
    assert [part.event_shape[0] for part in ChannelSplit(second.action_out).parts] == [8, 8]  # type: ignore[arg-type]
    assert all(part.is_signed_permutation for part in IrrepSplit(second.action_out).parts)


def test_fields_are_typed() -> None:
    assert GSqueeze(ImageAction("C4", size=4)).action_out == ImageAction("C4", 1, size=2, fields="regular")
    assert GSqueeze(ImageAction("D1", size=4)).action_out == ImageAction("D1", 2, size=2, fields="regular")
    assert GSqueeze(ImageAction("C1", size=4)).action_out == ImageAction("C1", 4, size=2)
    regular = GSqueeze(ImageAction("D4", 1, size=4, fields="regular")).action_out
    assert regular.fields == (RegularRepresentation("D4"),) * 4
    assert GSqueeze(ImageAction.translations(size=8, step=4)).action_out == ImageAction.translations(4, size=4, step=2)
    vectors = GSqueeze(ACTIONS["D4-vectors"]).action_out
    assert vectors.is_signed_permutation
    assert vectors.field_sizes == [8, 4]


def test_factor_three_and_blocks_as_large_as_the_grid() -> None:
    action = ImageAction("D4", size=6)
    squeeze = GSqueeze(action, 3)
    assert Counter(squeeze.action_out.field_sizes) == {1: 1, 4: 2}
    x = images(action)
    assert torch.equal(squeeze(action.act_all(x)), squeeze.action_out.act_all(squeeze(x)))
    assert GSqueeze(ImageAction("D4", size=2)).action_out.event_shape == (4, 1, 1)


def test_blocks_of_one_pixel_change_nothing() -> None:
    action = ImageAction("D4", 2, size=3)
    squeeze = GSqueeze(action, 1)
    x = images(action)
    assert squeeze.action_out == action and torch.equal(squeeze(x), x)
    for factor in (0, -1, 1.0):
        with pytest.raises(ValueError, match="a factor that divides 3 and 3"):
            GSqueeze(action, factor)  # type: ignore[arg-type]


def test_a_description_names_both_actions_where_they_differ() -> None:
    action = ImageAction("D4", size=4)
    assert f"{action} -> {GSqueeze(action).action_out}" in repr(GSqueeze(action))
    assert "->" not in repr(GSqueeze(action, 1))


def test_copies_and_configuration() -> None:
    squeeze = GSqueeze(ACTIONS["D4-regular"])
    x = images(ACTIONS["D4-regular"])
    assert not squeeze.state_dict()
    for other in [copy.deepcopy(squeeze), pickle.loads(pickle.dumps(squeeze)), build(describe(squeeze))]:
        assert other.action_out == squeeze.action_out
        assert torch.equal(other(x), squeeze(x))


def test_refused() -> None:
    with pytest.raises(ValueError, match="divides 5 and 5"):
        GSqueeze(ImageAction("C4", size=5))
    with pytest.raises(ValueError, match="step=2"):
        GSqueeze(ImageAction.translations(size=4))
    with pytest.raises(TypeError, match="expected an ImageAction"):
        GSqueeze(VectorAction.plane("C4"))  # type: ignore[arg-type]
