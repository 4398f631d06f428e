"""Every family in its conditional form: T(g x | g c) = g T(x | c), views, batch shapes, gradients (contract 8)."""

import copy
import pickle

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_gflows import EquivariantFlow
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_bijective, assert_conditionally_equivariant, assert_log_det
from tests.constructors import CONDITIONAL, make_conditional, plain_base_for


@pytest.fixture(params=CONDITIONAL)
def layer(request):
    return make_conditional(request.param)


def events_of(action, *batch, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, *action.event_shape, dtype=torch.float64, generator=generator)


def pairs(layer, *batch):
    return events_of(layer.action_in, *batch), events_of(layer.context_action, *batch, seed=6)


def flow_of(layer):
    return EquivariantFlow(plain_base_for(layer.action_in), [layer]).double().eval()


def train(layer, steps=20):
    """Train a flow on fixed pairs that are not symmetric, so that every step changes every weight."""
    flow = flow_of(layer).train()
    x, context = pairs(layer, 16)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (-flow(x + 0.3, context).mean()).backward()
        optimizer.step()
    return flow.eval()


@pytest.mark.long
def test_it_is_equivariant_jointly_before_and_after_training(layer):
    x, context = pairs(layer, 3)
    assert_conditionally_equivariant(layer, x, context)
    train(layer)
    assert_conditionally_equivariant(layer, x, context)


def test_the_check_would_see_a_break(layer):
    x, context = pairs(layer, 3)
    broken = copy.deepcopy(layer)
    call = broken.call_and_ladj
    broken.call_and_ladj = lambda x, context: call(
        x, context + 0.1 * torch.arange(context.numel()).reshape(context.shape)
    )
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_conditionally_equivariant(broken, x, context)


def test_a_view_stores_the_weights_of_its_layer_alone(layer):
    """The context is no weight, so that a view of another context loads the weights."""
    _, context = pairs(layer, 2)
    view = layer.condition(context)
    assert {name.removeprefix("transform.") for name in view.state_dict()} == set(layer.state_dict())
    layer.condition(context[:1]).load_state_dict(view.state_dict())


def test_the_context_matters_and_rows_do_not_mix(layer):
    x, context = pairs(layer, 4)
    view = layer.condition(context)
    y = view(x.clone())
    assert (view(x[:1].expand_as(x)).diff(dim=0).abs().amax() > 1e-6).all()
    for row in range(4):
        torch.testing.assert_close(layer.condition(context[row])(x[row].clone()), y[row], rtol=1e-10, atol=1e-10)


def test_bijective_with_the_log_det_of_autograd(layer):
    view = layer.condition(events_of(layer.context_action, seed=6))
    points = events_of(layer.action_in, 2)
    assert_bijective(view, points)
    assert_log_det(view, points)


@pytest.mark.parametrize("batch, contexts, joined", [((), (4,), (4,)), ((4,), (), (4,)), ((3, 1), (4,), (3, 4))])
def test_the_batch_shape_is_joined_with_that_of_the_contexts(layer, batch, contexts, joined):
    x, context = events_of(layer.action_in, *batch), events_of(layer.context_action, *contexts)
    view = layer.condition(context)
    y = view(x)
    ladj = view.log_abs_det_jacobian(x, y)
    assert y.shape == joined + layer.action_out.event_shape and ladj.shape == joined
    assert view.forward_shape(x.shape) == y.shape
    density = flow_of(layer).condition(context)
    assert density.batch_shape == contexts
    assert density.log_prob(x.expand(y.shape) if batch else x).shape == joined


def test_a_draw_for_each_context(layer):
    """Contract 8: base draws are not shared between rows."""
    flow = flow_of(layer)
    density = flow.condition(events_of(layer.context_action).expand(3, *layer.context_action.event_shape))
    draws = density.sample()
    assert draws.shape == density.shape() and (draws[0] != draws[1]).any()
    expanded = density.expand([2, 3]).sample()
    assert expanded.shape == (2, 3, *layer.action_out.event_shape)


def test_views_have_caches_of_their_own_and_see_new_weights(layer):
    x, context = pairs(layer, 2)
    first, second = layer.condition(context), layer.condition(context.flip(0))
    y = first(x)
    assert not torch.equal(second(x), y)
    difference = layer.action_in.space.difference(first.inv(y), x)
    torch.testing.assert_close(difference, torch.zeros_like(x))
    draw = flow_of(layer).condition(context).rsample()
    fresh = flow_of(layer).condition(context)
    before = fresh.log_prob(draw)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.05)
    assert not torch.equal(fresh.log_prob(draw), before)


def test_gradients_reach_the_context_in_both_directions(layer):
    x, context = pairs(layer, 2)
    context.requires_grad_()
    direction = events_of(layer.context_action, 2, seed=9)
    for along in ("call_and_ladj", "inv_call_and_ladj"):

        def loss(context, along=along):
            value, ladj = getattr(layer, along)(x, context)
            return (value * x.cos()).sum() + ladj.sum()

        (slope,) = torch.autograd.grad(loss(context), context)
        step = 1e-5
        with torch.no_grad():
            difference = (loss(context + step * direction) - loss(context - step * direction)) / (2 * step)
        torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-5, atol=1e-7)


def test_a_guide_trains_every_weight_under_a_subsampled_plate(layer):
    """z_i ~ q(. | x_i), the context of each minibatch its own."""
    flow = flow_of(layer).train()
    data = events_of(layer.context_action, 12)
    shape = layer.action_out.event_shape
    pyro.clear_param_store()

    def model():
        with pyro.plate("rows", 12, subsample_size=4) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(shape).double(), 1.5).to_event(len(shape)))
            pyro.sample(
                "x", dist.Normal(z.flatten(z.ndim - len(shape)).sum(-1), 1.0), obs=data[index].flatten(1).sum(1)
            )

    def guide():
        pyro.module("flow", flow)
        with pyro.plate("rows", 12, subsample_size=4) as index:
            z = pyro.sample("z", flow.condition(data[index]))
            assert z.shape[-1 - len(shape)] == 4

    before = {key: value.detach().clone() for key, value in flow.named_parameters()}
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO(num_particles=8, vectorize_particles=True))
    for _ in range(2):
        assert torch.isfinite(torch.tensor(svi.step()))
    still = {key for key, value in flow.named_parameters() if value.numel() and torch.equal(value, before[key])}
    # what a network feeds to its last invariants is not read where its output has none
    assert not still - {"transform.parts.0.branch.encoder.activations.0.feed"}


def test_subsampled_rows_score_as_they_do_in_the_whole(layer):
    flow = flow_of(layer)
    z, context = events_of(layer.action_out, 6), events_of(layer.context_action, 6, seed=6)

    def guide(index):
        with pyro.plate("rows", 6, subsample=index):
            pyro.sample("z", flow.condition(context[index]), obs=z[index])

    index = torch.tensor([4, 1])
    score = poutine.trace(guide).get_trace(index).log_prob_sum()
    torch.testing.assert_close(score, 3 * flow(z, context)[index].sum())


def test_a_conditioned_view_claims_no_symmetry(layer):
    context = events_of(layer.context_action)
    view = layer.condition(context)
    assert str(view.action_in.group) == "C1" and "for contexts" in repr(view)
    with pytest.raises(ValueError, match="do not fit"):
        EquivariantFlow(plain_base_for(layer.action_in), [view])


def test_a_missing_or_wrong_context_is_named(layer):
    x = events_of(layer.action_in, 2)
    with pytest.raises(ValueError, match=r"expected a context.*condition\(context\)"):
        layer(x)
    flow = flow_of(layer)
    with pytest.raises(ValueError, match=r"flow\.condition\(context\)"):
        _ = flow.dist
    with pytest.raises(ValueError, match="expected context of shape"):
        flow.condition(torch.zeros(2, 1, 99))
    with pytest.raises(ValueError, match="do not broadcast"):
        layer.condition(events_of(layer.context_action, 3))(x)


def test_it_is_described_and_rebuilt_pickled_and_copied(layer):
    x, context = pairs(layer, 2)
    y = layer.condition(context)(x.clone())
    rebuilt = build(describe(layer)).double().eval()
    rebuilt.load_state_dict(layer.state_dict())
    for twin in (rebuilt, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin.condition(context)(x.clone()), y)
