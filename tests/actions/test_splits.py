"""Splits: parts that the group maps to themselves, orthogonal, and refused where there are none."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_gflows.actions import (
    ChannelSplit,
    CoordinateSplit,
    ImageAction,
    IrrepSplit,
    MaskSplit,
    Split,
    VectorAction,
    checkerboard_split,
    isotypic_split,
)
from pyro_gflows.groups import (
    DefiningRepresentation,
    QuotientRepresentation,
    RegularRepresentation,
    SubRepresentation,
    TrivialRepresentation,
)
from pyro_gflows.groups.escnn_representation import EscnnRepresentation
from pyro_gflows.serialization.registry import build, describe

D4_PLANE_AND_NUMBER = VectorAction([DefiningRepresentation("D4"), TrivialRepresentation("D4")])
TWO_CYCLES = VectorAction.from_generators([[1, 0, 2, 4, 3]], name="two swaps")
SQUEEZED = QuotientRepresentation("D4", [0, 4])
IMAGE = ImageAction("D4", size=4, fields=[SQUEEZED, RegularRepresentation("D4"), SQUEEZED])

SPLITS: dict[str, Callable[[], Split]] = {
    "planes": lambda: CoordinateSplit(VectorAction.plane("D8", copies=3)),
    "plane-number": lambda: CoordinateSplit(D4_PLANE_AND_NUMBER, [[2], [1, 0]]),
    "pieces-of-a-field": lambda: CoordinateSplit(TWO_CYCLES, [[3, 4], [0, 1, 2]]),
    "spaces": lambda: CoordinateSplit(VectorAction.space("O(3)", copies=2)),
    "three-parts": lambda: CoordinateSplit(VectorAction.plane("SO(2)", copies=3), [[4, 5], [0, 1], [2, 3]]),
    "channels": lambda: ChannelSplit(IMAGE),
    "channels-chosen": lambda: ChannelSplit(IMAGE, [list(range(4, 16)), [3, 2, 1, 0]]),
    "channels-shifts": lambda: ChannelSplit(ImageAction.translations(3, size=4, step=2)),
    "irreps-regular": lambda: IrrepSplit(VectorAction.regular("D4")),
    "irreps-two-regular": lambda: IrrepSplit(VectorAction.regular("C4", copies=2)),
    "irreps-d8": lambda: IrrepSplit(VectorAction.regular("D8")),
    "irreps-planes": lambda: IrrepSplit(VectorAction.plane("O(2)", copies=2)),
    "irreps-chosen": lambda: IrrepSplit(VectorAction.regular("C2", copies=2), [[0], [2, 3], [1]]),
    "mean-details": lambda: IrrepSplit(IMAGE),
    "mean-details-c4": lambda: IrrepSplit(ImageAction("C4", 2, size=3, fields="regular")),
    "irreps-channels": lambda: IrrepSplit(ImageAction("C4", 2, size=3)),
    "isotypes": lambda: isotypic_split(IMAGE),
    "isotypes-vectors": lambda: isotypic_split(VectorAction.regular("D4", copies=2)),
    "checkerboard": lambda: checkerboard_split(ImageAction("D4", 2, size=8, fields="regular")),
    "checkerboard-odd": lambda: checkerboard_split(ImageAction("D4", size=5)),
    "checkerboard-shifts": lambda: checkerboard_split(ImageAction.translations(2, size=4, step=2)),
    "mask": lambda: MaskSplit(ImageAction("D1", 2, size=(3, 2)), torch.tensor([[1, 0], [0, 0], [1, 0]]).bool()),
}
every_split = pytest.mark.parametrize("make", SPLITS.values(), ids=SPLITS.keys())


def events(split: Split, *batch: int) -> Tensor:
    shape = (*batch, *split.action.event_shape)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@every_split
def test_every_part_is_mapped_to_itself(make: Callable[[], Split]) -> None:
    split = make()
    x, action = events(split, 5), split.action
    generator = torch.Generator().manual_seed(1)
    for g in [*action.generators(), *action.sample((4,), generator)]:
        transformed = split.split(action.act(g, x))
        for part, own, other in zip(split.parts, split.split(x), transformed, strict=True):
            assert torch.allclose(other, part.act(g, own), atol=1e-12)
    parts = split.split(x)
    assert [part.shape for part in parts] == [(5, *part.event_shape) for part in split.parts]


@every_split
def test_merge_inverts_and_lengths_are_kept(make: Callable[[], Split]) -> None:
    split = make()
    x = events(split, 2, 3)
    parts = split.split(x)
    assert torch.allclose(split.merge(parts), x, atol=1e-13)
    assert torch.allclose(sum(part.square().sum() for part in parts), x.square().sum(), rtol=1e-12)  # type: ignore[arg-type]
    jacobians = torch.autograd.functional.jacobian(split.split, events(split))  # type: ignore[no-untyped-call]
    matrix = torch.cat([jacobian.reshape(-1, split.action.numel) for jacobian in jacobians])
    assert torch.allclose(matrix.T @ matrix, torch.eye(split.action.numel, dtype=torch.float64), atol=1e-12)
    assert torch.equal(split.split(x[0, 0])[0], split.split(x)[0][0, 0]) or isinstance(split, IrrepSplit)


@every_split
def test_restrict_keeps_what_a_part_owns(make: Callable[[], Split]) -> None:
    split = make()
    for index, (action, part) in enumerate(zip(split.parts, split.split(events(split)), strict=True)):
        assert torch.equal(split.restrict(index, part), part)
        values = torch.randn(action.event_shape, dtype=torch.float64)
        parts = [torch.zeros(other.event_shape, dtype=torch.float64) for other in split.parts]
        parts[index] = split.restrict(index, values)
        assert torch.allclose(split.split(split.merge(parts))[index], split.restrict(index, values), atol=1e-13)


@every_split
def test_values_compare_copy_and_rebuild(make: Callable[[], Split]) -> None:
    split = make()
    x = events(split)
    expected = split.split(x)
    for other in [copy.deepcopy(split), pickle.loads(pickle.dumps(split)), build(describe(split)), make()]:
        assert other == split
        assert hash(other) == hash(split)
        assert all(torch.equal(a, b) for a, b in zip(other.split(x), expected, strict=True))
    assert sum(other() == split for other in SPLITS.values()) == 1


def test_parts_are_typed() -> None:
    assert repr(SPLITS["channels"]()) == (
        "ChannelSplit(ImageAction(D4 on 8 x 4 x 4: regular) | ImageAction(D4 on 8 x 4 x 4: 2 x quotient by [0, 4]))"
    )
    first, second = SPLITS["pieces-of-a-field"]().parts
    assert first == VectorAction.regular(TWO_CYCLES.group)
    assert repr(second) == "VectorAction(two swaps on R^3: regular + trivial)"
    assert repr(SPLITS["checkerboard"]()).endswith("32 | 32 pixels)")


def test_parts_of_mean_and_details_are_signed_permutations() -> None:
    for name in ["mean-details", "mean-details-c4", "irreps-regular", "irreps-two-regular", "irreps-chosen"]:
        assert all(part.is_signed_permutation for part in SPLITS[name]().parts), name
    split = IrrepSplit(ImageAction("D4", size=2, fields=SQUEEZED))
    x = events(split)
    mean, details = split.split(x)
    assert torch.allclose(mean, x.mean(0, keepdim=True) * 2)
    assert details.shape == (3, 2, 2)
    assert split.parts[0] == ImageAction("D4", size=2)


def test_parts_of_continuous_fields_that_are_reducible() -> None:
    basis = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    action = VectorAction(EscnnRepresentation("SO(3)", [(1,), (0,), (1,)], basis))
    split = IrrepSplit(action)
    assert sorted(part.numel for part in split.parts) == [3, 4]
    x = events(split)
    for g in action.sample((5,)):
        for part, own, transformed in zip(split.parts, split.split(x), split.split(action.act(g, x)), strict=True):
            assert torch.allclose(transformed, part.act(g, own), atol=1e-12)
            assert torch.allclose(part.matrix(g) @ part.matrix(g).mT, torch.eye(part.numel).double(), atol=1e-12)
    assert isinstance(split.parts[0].fields[0], SubRepresentation)
    assert build(describe(split)) == split


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "one orbit of coordinates": (
        lambda: CoordinateSplit(VectorAction.regular("C4")),
        r"one orbit, \[0, 1, 2, 3\].*GRadial",
    ),
    "one plane": (lambda: CoordinateSplit(VectorAction.plane("SO(2)")), r"one orbit, \[0, 1\].*GResidual or GRadial"),
    "one irrep": (lambda: IrrepSplit(VectorAction.plane("D8")), "one irreducible block.*GResidual or GRadial"),
    "one scalar field": (lambda: IrrepSplit(ImageAction("D4", size=4)), "one irreducible block.*checkerboard_split"),
    "one channel orbit": (lambda: ChannelSplit(ImageAction("C4", size=4, fields="regular")), r"orbit, \[0, 1, 2, 3\]"),
    "cut": (
        lambda: CoordinateSplit(TWO_CYCLES, [[0], [1, 2, 3, 4]]),
        r"cuts the orbit \[0, 1\]; .*\[\[0, 1\], \[2\], \[3, 4\]\]",
    ),
    "cut channel": (
        lambda: ChannelSplit(IMAGE, [[0, 1], list(range(2, 16))]),
        r"the orbits of channels are \[\[0, 1, 2, 3\]",
    ),
    "cut plane": (lambda: CoordinateSplit(D4_PLANE_AND_NUMBER, [[0, 2], [1]]), r"cuts the orbit \[0, 1\]"),
    "empty": (lambda: CoordinateSplit(D4_PLANE_AND_NUMBER, [[0, 1, 2], []]), "part 1 of the split is empty"),
    "one list": (lambda: CoordinateSplit(D4_PLANE_AND_NUMBER, [[0, 1, 2]]), "at least two lists"),
    "twice": (lambda: ChannelSplit(ImageAction("C4", 2, size=4), [[0, 1], [1]]), r"every channel 0\.\.1 once"),
    "irreps": (lambda: IrrepSplit(VectorAction.regular("C4"), [[0], [1]]), r"block 0\.\.2 once .*\[1, 1, 2\]"),
    "swap": (
        lambda: MaskSplit(ImageAction("C4", size=4), (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0),
        r"element 1 of C4 exchanges the two parts \(16 of 16",
    ),
    "move": (
        lambda: MaskSplit(ImageAction("D1", size=2), torch.tensor([[True, False], [False, False]])),
        "sends pixels",
    ),
    "odd shift": (lambda: checkerboard_split(ImageAction.translations(size=4)), "exchanges the two parts"),
    "all": (
        lambda: MaskSplit(ImageAction("D1", size=2), torch.ones(2, 2, dtype=torch.bool)),
        "one part of the split is empty",
    ),
    "shape": (lambda: MaskSplit(ImageAction("D1", size=2), torch.ones(2, 3, dtype=torch.bool)), "mask of shape"),
    "merge": (lambda: SPLITS["planes"]().merge([torch.zeros(2)]), "expected 2 parts"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_invalid_splits_say_why(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: CoordinateSplit(IMAGE),
        lambda: ChannelSplit(D4_PLANE_AND_NUMBER),
        lambda: MaskSplit(D4_PLANE_AND_NUMBER, torch.ones(2, 2, dtype=torch.bool)),  # type: ignore[arg-type]
        lambda: MaskSplit(IMAGE, torch.ones(4, 4)),
        lambda: checkerboard_split(D4_PLANE_AND_NUMBER),  # type: ignore[arg-type]
    ],
)
def test_wrong_kinds(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="expected"):
        make()


def test_isotypes_are_parts_without_a_common_irrep() -> None:
    split = isotypic_split(ImageAction("D4", 2, size=4, fields="regular"))
    parts = [[isotype.dim for isotype in part.field_decomposition()] for part in split.parts]
    assert parts == [[1]] * 4 + [[2]]  # the irreps of D4
    assert [part.channels for part in split.parts] == [2, 2, 2, 2, 8]
    with pytest.raises(ValueError, match="holds a single irrep"):
        isotypic_split(ImageAction("C1", 3, size=4))
    with pytest.raises(TypeError, match="expected a LinearAction to split by irreps, got str"):
        isotypic_split("D4")  # type: ignore[arg-type]


def test_channels_are_those_of_images():
    with pytest.raises(TypeError, match="expected an ImageAction to split by channels, got VectorAction"):
        ChannelSplit(VectorAction.plane("C4"))
    with pytest.raises(TypeError, match="expected a VectorAction to split by coordinates, got ImageAction"):
        CoordinateSplit(ImageAction("C4", size=4))
