"""Autoregressive layers: the structure of the Jacobian, both directions, and how many passes each takes."""

import pytest
import torch

from pyro_gflows import CoordinateSplit, GAutoregressive, GInverseAutoregressive, VectorAction, g_autoregressive
from pyro_gflows.actions import ImageAction
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import IrrepScale, MatrixScale

REGULAR = VectorAction.regular("C4", copies=3)
SPACE = VectorAction.space("O(3)", copies=3)
CASES = {
    "regular": lambda: GAutoregressive(REGULAR, width=2),
    "regular, for sampling": lambda: GInverseAutoregressive(REGULAR, width=2),
    "plane": lambda: g_autoregressive(VectorAction.plane("D3", copies=3), width=2),
    "O(3)": lambda: GAutoregressive(SPACE, width=2),
    "O(3), matrices": lambda: GAutoregressive(SPACE, transformer=MatrixScale, width=2),
    "channels": lambda: GAutoregressive(ImageAction("C4", 2, size=3), width=2),
}


@pytest.fixture(params=CASES)
def layer(request):
    torch.manual_seed(1)
    return randomize_(CASES[request.param]().double(), scale=0.2)


def events(layer, count=4):
    return torch.randn(count, *layer.action_in.event_shape, dtype=torch.float64)


def test_is_an_equivariant_bijection_with_its_log_det(layer):
    x = events(layer)
    assert_layer(layer, x, tol=1e-10)
    assert layer.call_and_ladj(x)[1].abs().min() > 1e-6


def test_the_jacobian_is_block_triangular(layer):
    (x,) = events(layer, 1)
    size = x.numel()
    split = layer.split
    for direction in (layer.call_and_ladj, layer.inv_call_and_ladj):
        jacobian = torch.autograd.functional.jacobian(
            lambda parts, f=direction: torch.cat(
                [p.flatten() for p in split.split(f(split.merge(_cut(parts, x, split)))[0])]
            ),
            torch.cat([part.flatten() for part in split.split(x)]),
        )
        sizes = [part.numel for part in split.parts]
        assert jacobian.shape == (size, size)
        for row, rows in enumerate(jacobian.split(sizes)):
            for column, block in enumerate(rows.split(sizes, 1)):
                assert (block.abs().max() == 0) == (column > row), (row, column)


def _cut(flat, x, split):
    pieces = flat.split([part.numel for part in split.parts])
    return [piece.reshape(part.event_shape) for piece, part in zip(pieces, split.parts, strict=True)]


@pytest.mark.parametrize("fast", ["score", "sample"])
def test_one_pass_one_way_and_one_for_each_block_the_other(fast):
    layer = g_autoregressive(REGULAR, width=2, fast=fast)
    assert isinstance(layer, GInverseAutoregressive) == (fast == "sample")
    calls = []
    layer.network.register_forward_hook(lambda *_: calls.append(1))
    passes = {}
    for name, direction in {"sample": layer.call_and_ladj, "score": layer.inv_call_and_ladj}.items():
        calls.clear()
        direction(torch.zeros(12))
        passes[name] = len(calls)
    assert passes.pop(fast) == 1
    assert set(passes.values()) == {len(layer.split.parts)}


def test_starts_as_the_identity():
    layer = GAutoregressive(REGULAR, transformer=IrrepScale)
    x = torch.randn(3, 12)
    torch.testing.assert_close(layer.call_and_ladj(x)[0], x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GAutoregressive(ImageAction("D4", 1, size=4)), "slices of the event.*GCoupling"),
        (lambda: g_autoregressive(SPACE, split=CoordinateSplit(REGULAR)), "expected a split of .*got one of"),
        (lambda: g_autoregressive(REGULAR, fast="both"), "fast='score' .* or fast='sample' .* got 'both'"),
        (
            lambda: GAutoregressive(REGULAR, transformer=lambda part: IrrepScale(SPACE)),
            "expected a transformer of",
        ),
    ],
)
def test_bad_layers_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
