"""Autoregressive layers: the structure of the Jacobian, both directions, and how many passes each takes."""

import copy

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
def test_one_pass_one_way_and_one_step_for_each_block_the_other(fast):
    layer = g_autoregressive(REGULAR, width=2, fast=fast)
    assert isinstance(layer, GInverseAutoregressive) == (fast == "sample")
    sizes = []
    layer.network.activations[-1].register_forward_hook(lambda _, inputs, output: sizes.append(output.shape[-1]))
    found = {}
    for name, direction in {"sample": layer.call_and_ladj, "score": layer.inv_call_and_ladj}.items():
        sizes.clear()
        direction(torch.zeros(12))
        found[name] = tuple(sizes)
    one_pass = found.pop(fast)
    (steps,) = found.values()
    assert len(one_pass) == 1
    assert len(steps) == len(layer.split.parts) - 1  # the first block reads nothing
    assert sum(steps) == sum(one_pass)  # no hidden feature is computed twice


def without_shortcuts(layer):
    """The same layer, which passes through its whole network for each block."""
    other = copy.deepcopy(layer)
    other._together, other._is_plain = None, False
    return other


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("context", [None, VectorAction.regular("C4", copies=2)], ids=["plain", "with a context"])
def test_all_blocks_at_once_and_block_after_block_are_the_passes_of_the_network(depth, context):
    action = VectorAction.regular("C4", copies=3).direct_sum(VectorAction.trivial("C4"))
    split = CoordinateSplit(action, [range(4, 8), [*range(4), 12], range(8, 12)])  # blocks of two sizes, out of order
    layer = GAutoregressive(action, split=split, width=2, depth=depth, context_action=context).double()
    randomize_(layer, generator=torch.Generator().manual_seed(0))
    plain = without_shortcuts(layer)
    x = torch.randn(5, action.numel, dtype=torch.float64)
    c = None if context is None else torch.randn(5, context.numel, dtype=torch.float64)
    for fast, slow in ((layer.call_and_ladj, plain.call_and_ladj), (layer.inv_call_and_ladj, plain.inv_call_and_ladj)):
        torch.testing.assert_close(fast(x, c), slow(x, c), rtol=0, atol=1e-12)


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
