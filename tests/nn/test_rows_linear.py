"""Linear maps of rows against the space of all equivariant matrices, found from generators alone."""

import pytest
import torch

from pyro_gflows.actions import RowTables, VectorAction
from pyro_gflows.nn import LipschitzRowsLinear, RowsLinear, mean_over_rows
from pyro_gflows.testing import randomize_
from tests.nn.rows import features, flat, generators, numel, scalars, unflat

PLANE, SQUARE = VectorAction.plane("O(2)"), VectorAction.plane("C4")
# what the rows of the input and of the output consist of, and whether rows change signs
CASES = {
    "S3": (features([3], scalars(2)), features([3], scalars(3)), False),
    "S2 with a context of the set": (features([2], scalars(1), rest=scalars(2)), features([2], scalars(2)), False),
    "S3 to a rest": (features([3], scalars(2)), features([3], scalars(1), rest=scalars(2)), False),
    "signed S3": (features([3], scalars(2), scalars(1)), features([3], scalars(1), scalars(2)), True),
    "signed S3, odd only": (features([3], None, scalars(2)), features([3], scalars(1), scalars(1)), True),
    "blocks of 2 and 3": (features([2, 3], scalars(2), rest=scalars(1)), features([2, 3], scalars(1)), False),
    "signed blocks of 1 and 2": (
        features([1, 2], scalars(1), scalars(1)),
        features([1, 2], scalars(2), scalars(1)),
        True,
    ),
    "S3 x O(2)": (
        features([3], PLANE.direct_sum(scalars(1, "O(2)")), rest=PLANE),
        features([3], PLANE.copies(2), rest=scalars(1, "O(2)")),
        False,
    ),
    "signed S2 x C4": (features([2], SQUARE, SQUARE), features([2], SQUARE, scalars(1, "C4")), True),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def dense(layer, source):
    eye = torch.eye(numel(source), dtype=torch.float64)
    zero = flat(layer(unflat(torch.zeros(numel(source), dtype=torch.float64), source)))
    return (flat(layer(unflat(eye, source))) - zero).mT


def equivariant_maps(source, target, signed):
    """The number of linearly independent matrices W with W g = g W for all generators g, as a null space."""
    pairs = zip(generators(source, signed=signed), generators(target, signed=signed), strict=True)
    eyes = [torch.eye(numel(layer), dtype=torch.float64) for layer in (target, source)]
    rows = [torch.kron(eyes[0], g.mT.contiguous()) - torch.kron(h, eyes[1]) for g, h in pairs]
    return numel(source) * numel(target) - int((torch.linalg.svdvals(torch.cat(rows)) > 1e-9).sum())


def test_the_weights_are_coordinates_of_all_equivariant_maps(case):
    source, target, signed = case
    layer = RowsLinear(source, target, bias=False).double()
    weights = list(layer.parameters())
    count = sum(weight.numel() for weight in weights)
    assert count == equivariant_maps(source, target, signed)
    found = dense(layer, source)
    rows = [
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    entry, weights, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            ]
        )
        for entry in found.flatten()
    ]
    assert torch.linalg.matrix_rank(torch.stack(rows)) == count  # no two weights have the same effect
    for g, h in zip(generators(source, signed=signed), generators(target, signed=signed), strict=True):
        torch.testing.assert_close(found @ g, h @ found, rtol=0, atol=1e-12)


def test_the_bias_is_invariant_and_all_there_is(case):
    _, target, signed = case
    layer = randomize_(RowsLinear(target, target).double())
    shift = flat(layer(unflat(torch.zeros(numel(target), dtype=torch.float64), target)))
    rows = [h - torch.eye(len(h)) for h in generators(target, signed=signed)]
    invariants = numel(target) - int((torch.linalg.svdvals(torch.cat(rows)) > 1e-9).sum())
    assert layer.shift.bias.numel() == invariants
    for h in generators(target, signed=signed):
        torch.testing.assert_close(h @ shift, shift, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_the_certified_norm_is_that_of_the_dense_matrix(case, scale):
    source, target, signed = case
    layer = randomize_(LipschitzRowsLinear(source, target, bound=0.7).double(), scale=scale)
    found = dense(layer, source)
    norm = torch.linalg.matrix_norm(found, 2)
    torch.testing.assert_close(layer.lipschitz_bound(), norm, rtol=1e-9, atol=1e-12)
    assert norm <= 0.7 + 1e-9
    for g, h in zip(generators(source, signed=signed), generators(target, signed=signed), strict=True):
        torch.testing.assert_close(found @ g, h @ found, rtol=0, atol=1e-12)


def test_the_norm_is_the_same_at_any_number_of_rows():
    few, many = (
        features([3], scalars(2), scalars(1), rest=scalars(2)),
        features([50], scalars(2), scalars(1), rest=scalars(2)),
    )
    layer = randomize_(LipschitzRowsLinear(few, few).double())
    larger = LipschitzRowsLinear(many, many).double()
    larger.load_state_dict(layer.state_dict())
    torch.testing.assert_close(larger.lipschitz_bound(), layer.lipschitz_bound())
    torch.testing.assert_close(torch.linalg.matrix_norm(dense(larger, many), 2), layer.lipschitz_bound())


def test_means_of_mean_free_features_are_neither_read_nor_made():
    source = features([3], scalars(2), mean_free=[True, False])
    layer = randomize_(RowsLinear(source, source).double())
    assert layer.pooled.kernel().shape == (1, 1)
    projection = torch.block_diag(torch.eye(6, dtype=torch.float64))
    projection -= torch.kron(torch.ones(3, 3, dtype=torch.float64) / 3, torch.diag(torch.tensor([1.0, 0.0])).double())
    # among projected maps, W1 has four weights and the mean of the one feature that has a mean has one
    found = projection @ dense(layer, source) @ projection
    weights = list(layer.parameters())[:-1]
    rows = [
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    entry, weights, retain_graph=True, allow_unused=True, materialize_grads=True
                )
            ]
        )
        for entry in found.flatten()
    ]
    assert torch.linalg.matrix_rank(torch.stack(rows)) == sum(weight.numel() for weight in weights) == 5


def test_a_mask_leaves_rows_out_of_the_mean():
    x, mask = torch.randn(2, 5, 3, dtype=torch.float64), torch.zeros(2, 5, dtype=torch.bool)
    mask[1, 1:4] = True
    found = mean_over_rows(x, mask)
    assert not found[0].any()
    torch.testing.assert_close(found[1], x[1, 1:4].mean(0))
    torch.testing.assert_close(mean_over_rows(x, torch.ones_like(mask)), mean_over_rows(x))


@pytest.mark.parametrize("kind", [RowsLinear, LipschitzRowsLinear])
def test_rows_that_a_mask_leaves_out_change_nothing(kind):
    few, many = (features([n], scalars(2), scalars(1), rest=scalars(2)) for n in (3, 5))
    layer = randomize_(kind(few, few).double())
    larger = kind(many, many).double()
    larger.load_state_dict(layer.state_dict())
    rows, mask = unflat(torch.randn(4, numel(few), dtype=torch.float64), few), torch.arange(5).expand(4, 5) < 3
    padded = [torch.cat([x, torch.randn(4, 2, x.shape[-1])], -2) for x in (rows.even[0], rows.odd[0])]
    found, expected = larger(RowTables((padded[0],), (padded[1],), rows.rest), mask), layer(rows)
    torch.testing.assert_close(found.even[0][:, :3], expected.even[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.odd[0][:, :3], expected.odd[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.rest, expected.rest, rtol=0, atol=1e-12)


def test_other_blocks_are_refused():
    with pytest.raises(ValueError, match=r"the same blocks of rows, got \(3,\) and \(2, 1\) rows"):
        RowsLinear(features([3], scalars(1)), features([2, 1], scalars(1)))
