"""Recompute: the same numbers and gradients as the layer it wraps, random log-dets included, and less memory."""

import pytest
import torch

from pyro_gflows import Compose, EquivariantFlow, InvariantNormal, VectorAction, g_residual
from pyro_gflows.transforms import Recompute
from tests.constructors import CONDITIONAL, CONSTRUCTORS, events, make, make_conditional


def gradients(layer, x, context=None):
    """Of a scalar that sees value and log-det, both directions, from one seed."""
    found = []
    with torch.no_grad():
        y = layer.call_and_ladj(x, context)[0]
    for call, start in ((layer.call_and_ladj, x), (layer.inv_call_and_ladj, y)):
        torch.manual_seed(3)
        points = start.clone().requires_grad_()
        given = None if context is None else context.clone().requires_grad_()
        value, ladj = call(points, given)
        loss = (value * value.detach().cos()).sum() + (ladj * torch.arange(1.0, 1 + len(ladj))).sum()
        wanted = [points, *([] if given is None else [given]), *layer.parameters()]
        found += [loss.detach(), *torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)]
    return found


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_values_and_gradients_are_those_of_the_layer(name):
    layer = make(name).train()
    x = events(layer, 3)
    for own, plain in zip(gradients(Recompute(layer), x), gradients(layer, x), strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_contexts_too(name):
    layer = make_conditional(name)
    x, context = (torch.randn(3, *a.event_shape).double() for a in (layer.action_in, layer.context_action))
    for own, plain in zip(gradients(Recompute(layer), x, context), gradients(layer, x, context), strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-12, atol=1e-12)


def stored_bytes(flow, x):
    """What autograd keeps for the backward pass, each storage once, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in flow.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = flow(x).mean()
    assert loss.requires_grad
    return sum(kept.values())


def test_a_deeper_stack_stores_hardly_more():
    action = VectorAction.regular("C4", copies=2)
    x = torch.randn(200, 8)

    def stored(blocks, wrap):
        layers = [wrap(g_residual(action)) for _ in range(blocks)]
        return stored_bytes(EquivariantFlow(InvariantNormal(action), layers), x)

    plain, sparing = (stored(8, wrap) - stored(4, wrap) for wrap in (lambda layer: layer, Recompute))
    assert sparing <= 4 * x.numel() * 4 * 2  # four layers: an event each, and rounding
    assert plain > 10 * sparing


def test_it_composes_describes_itself_and_refuses_second_derivatives():
    layer = g_residual(VectorAction.plane("D4"))
    flow = EquivariantFlow(InvariantNormal(layer.action_in), [Compose([Recompute(layer)])])
    again = EquivariantFlow.from_config(flow.config())
    again.load_state_dict(flow.state_dict())
    x = torch.randn(3, 2, requires_grad=True)
    assert torch.equal(again(x), flow(x))
    with pytest.raises(RuntimeError, match="expected a first derivative"):
        torch.autograd.grad(flow(x).sum(), x, create_graph=True)
