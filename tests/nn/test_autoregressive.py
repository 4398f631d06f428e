"""Autoregressive networks: block j's parameters depend on the blocks before j, and on nothing else."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import AutoregressiveNetwork
from pyro_gflows.testing import randomize_

PLANE, REGULAR = VectorAction.plane("D3"), VectorAction.regular("D3")
SPACE, NUMBER = VectorAction.space("O(3)"), VectorAction.trivial("O(3)")
IMAGE = ImageAction("C4", 1, size=3)
CASES = {
    "regular": ([REGULAR] * 3, [REGULAR.copies(2)] * 3),
    "mixed fields": ([PLANE, REGULAR, PLANE], [PLANE, REGULAR.trivial_fields(2), PLANE.direct_sum(REGULAR)]),
    "continuous": ([SPACE] * 3, [NUMBER.direct_sum(SPACE)] * 3),
    "continuous, with numbers": ([NUMBER, SPACE, NUMBER.direct_sum(SPACE)], [NUMBER.direct_sum(SPACE)] * 3),
    "images": ([IMAGE] * 3, [IMAGE.copies(2)] * 3),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_jacobian_is_strictly_block_triangular(case, depth):
    blocks, outputs = case
    network = randomize_(AutoregressiveNetwork(blocks, outputs, width=2, depth=depth).double())
    dim = -blocks[0].event_dim
    sizes = [sum(block.field_sizes) for block in blocks]
    event = torch.randn(sum(sizes), *blocks[0].event_shape[1:], dtype=torch.float64)
    jacobians = torch.autograd.functional.jacobian(network, event)
    for j, jacobian in enumerate(jacobians):
        reads = [part.abs().max().item() for part in jacobian.split(sizes, dim)]
        assert all(read == 0 for read in reads[j:]), (j, reads)
        if depth and j and "mixed" not in str(case):
            assert any(read > 0 for read in reads[:j]), (j, reads)


def test_is_equivariant(case):
    blocks, outputs = case
    network = randomize_(AutoregressiveNetwork(blocks, outputs, width=2).double())
    event = blocks[0].direct_sum(*blocks[1:])
    elements = event.sample((6,))
    x = torch.randn(6, *event.event_shape, dtype=torch.float64)
    image = network(event.act_each(elements, x))
    for action, value, found in zip(outputs, network(x), image, strict=True):
        torch.testing.assert_close(found, action.act_each(elements, value), rtol=0, atol=1e-11)


@pytest.mark.parametrize("count", [0, 1])
def test_needs_two_blocks(count):
    with pytest.raises(ValueError, match=f"k >= 2 blocks and as many outputs, got {count} and {count}"):
        AutoregressiveNetwork([PLANE] * count, [PLANE] * count)


SIGNS, SINGLE = VectorAction.signs(2), VectorAction.trivial("C1", copies=2)


@pytest.mark.parametrize("block", [REGULAR, SIGNS, SINGLE, PLANE], ids=["regular", "signs", "free", "of irreps"])
def test_a_kept_order_changes_neither_values_nor_gradients(block):
    network = randomize_(AutoregressiveNetwork([block] * 3, [block.copies(2)] * 3, width=2).double())
    x = torch.randn(7, 3 * block.numel, dtype=torch.float64)
    places = torch.randperm(6 * block.numel)
    expected = torch.cat(network(x), -1)[:, places]
    gradients = torch.autograd.grad(expected.square().sum(), list(network.parameters()))
    names = network.state_dict().keys()

    network.keep_order(places)
    found = network.in_order(x, places)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    again = torch.autograd.grad(found.square().sum(), list(network.parameters()))
    torch.testing.assert_close(again, gradients, rtol=1e-10, atol=1e-12)
    assert network.state_dict().keys() == names  # files have no tables
    torch.testing.assert_close(torch.cat(network(x), -1)[:, places], expected)
