"""A result that was computed with old weights is never returned (contracts 1, 2, 3)."""

import copy

import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam

from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.transforms import Compose
from tests.constructors import CONSTRUCTORS, events, make, make_flow, names


def _optimizer_step(flow, kind, **settings):
    optimizer = kind(flow.parameters(), lr=0.05, **settings)
    generator = torch.Generator().manual_seed(7)
    for parameter in flow.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    optimizer.step()


def _write_data(flow):
    for parameter in flow.parameters():
        parameter.data += 0.05


def _write_in_inference_mode(flow):
    with torch.inference_mode():
        for parameter in flow.parameters():
            parameter.add_(0.05)


CHANGES = {
    "Adam": lambda flow: _optimizer_step(flow, torch.optim.Adam),
    "fused Adam": lambda flow: _optimizer_step(flow, torch.optim.Adam, fused=True),
    "ClippedAdam": lambda flow: _optimizer_step(flow, ClippedAdam),
    ".data": _write_data,
    "inference mode": _write_in_inference_mode,
}


def afresh(flow, x):
    """Return the log-prob of an object without a memory."""
    with torch.no_grad():
        return copy.deepcopy(flow)(x.clone())


@pytest.mark.parametrize("change", CHANGES)
def test_sample_step_score(name, change):
    """A draw is scored in the same mode of gradients, since only such a draw is remembered."""
    for mode in (torch.no_grad, torch.enable_grad):
        flow = make_flow(name)
        density = flow.dist  # this object remembers its last draw
        with mode():
            y = density.rsample((3,))
        CHANGES[change](flow)
        with mode():
            after = density.log_prob(y).detach()
        torch.testing.assert_close(after, afresh(flow, y.detach()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("change", CHANGES)
def test_score_step_score(name, change):
    flow = make_flow(name)
    x = events(flow, 3)
    distribution = flow.dist
    before = distribution.log_prob(x).detach()
    CHANGES[change](flow)
    after = distribution.log_prob(x).detach()
    torch.testing.assert_close(after, afresh(flow, x), rtol=1e-9, atol=1e-9)
    assert (after != before).all()


def test_inference_tensors(flow):
    """Draws are scored in inference mode, in which tensors have no version counter."""
    density = flow.dist
    with torch.inference_mode():
        y = density.sample((3,))
        first = flow.dist.log_prob(y).clone()
        _write_data(flow)
        second = density.log_prob(y).clone()  # the draw is still remembered, with other weights
    torch.testing.assert_close(second, afresh(flow, y), rtol=1e-9, atol=1e-9)
    assert (first != second).all()


def test_functional_call(flow):
    """The weights of a functional call are used in this call, and not afterwards."""
    y = flow.dist.sample((3,))
    other = {key: value + 0.05 for key, value in flow.named_parameters()}
    swapped = torch.func.functional_call(flow, other, (y,)).detach()
    back = flow(y).detach()
    torch.testing.assert_close(back, afresh(flow, y), rtol=1e-9, atol=1e-9)
    _write_data(flow)
    torch.testing.assert_close(swapped, afresh(flow, y), rtol=1e-9, atol=1e-9)


def test_sample_then_score_is_right(flow):
    """The memory serves the score of the last draw, which needs no inversion."""
    density = flow.dist
    y = density.rsample((3,))
    torch.testing.assert_close(density.log_prob(y).detach(), afresh(flow, y), rtol=1e-7, atol=1e-7)


@pytest.mark.long
def test_three_steps_on_one_tensor_through_a_composition(name):
    """Contract 2: autograd would go through a remembered graph twice."""
    transform = make(name)
    flow = EquivariantFlow(
        make_flow(name).base, [Compose([transform, make(name).inv]), Compose([Compose([make(name)])])]
    ).train()
    x = events(flow, 3)
    distribution = flow.dist
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (-distribution.log_prob(x).mean()).backward()
        optimizer.step()
    flow.eval()
    torch.testing.assert_close(distribution.log_prob(x).detach(), afresh(flow, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", names(CONSTRUCTORS, estimated=False))
def test_a_value_drawn_without_gradient_is_scored_with_one(name):
    """Contract 3."""
    flow = make_flow(name)
    density = flow.dist
    y = density.sample((3,))
    log_prob = density.log_prob(y)
    assert log_prob.requires_grad
    twin = make_flow(name)
    gradient = torch.autograd.grad(log_prob.sum(), list(flow.parameters()), allow_unused=True)
    expected = torch.autograd.grad(twin(y.clone()).sum(), list(twin.parameters()), allow_unused=True)
    for one, other in zip(gradient, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
