"""A FlowDistribution inside plates, masks, to_event, replays and other distributions: scored right, and in one pass."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import TransformedDistribution
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.reparam import TransformReparam

from pyro_gflows import (
    EquivariantFlow,
    EquivariantTransform,
    GActNorm,
    GSigmoid,
    InvariantNormal,
    VectorAction,
    g_coupling,
    g_residual,
)
from pyro_gflows.flows.distribution import FlowDistribution
from pyro_gflows.testing import randomize_

ACTION = VectorAction.regular("C2", copies=2)


class Counted(EquivariantTransform):
    """Another transform, which counts its passes in either direction."""

    def __init__(self, inner):
        super().__init__(inner.action_in)
        self.inner, self.there, self.back = inner, 0, 0

    def call_and_ladj(self, x, context=None):
        self.there += 1
        return self.inner.call_and_ladj(x, context)

    def inv_call_and_ladj(self, y, context=None):
        self.back += 1
        return self.inner.inv_call_and_ladj(y, context)


@pytest.fixture
def flow():
    layers = [Counted(g_coupling(ACTION, width=2, depth=1)), GActNorm(ACTION)]
    return randomize_(EquivariantFlow(InvariantNormal(ACTION), layers)).double().eval()


def passes(flow):
    return flow.transforms[0].there, flow.transforms[0].back


def by_hand(flow, y):
    """The log-density without a distribution."""
    z, ladj = flow.transform.inv_call_and_ladj(y.detach().clone())
    return flow.base.log_prob(z) + ladj


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_fresh_data_take_one_pass(flow):
    y = torch.randn(3, 4, dtype=torch.float64)
    score = flow.dist.log_prob(y)
    assert passes(flow) == (0, 1)
    close(score, by_hand(flow, y))


@pytest.mark.parametrize("subsample", [None, 2])
def test_plates(flow, subsample):
    def model():
        with pyro.plate("outer", 2, dim=-2), pyro.plate("inner", 3, subsample_size=subsample, dim=-1):
            return pyro.sample("z", flow.dist)

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    node = trace.nodes["z"]
    assert passes(flow) == (1, 0)
    assert node["value"].shape == (2, subsample or 3, 4) and node["log_prob"].shape == (2, subsample or 3)
    close(node["unscaled_log_prob"], by_hand(flow, node["value"]))
    close(node["log_prob"], by_hand(flow, node["value"]) * (3 / subsample if subsample else 1))
    replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace()
    replayed.compute_log_prob()
    close(replayed.nodes["z"]["log_prob"], node["log_prob"])


def test_to_event_and_mask(flow):
    mask = torch.tensor([True, False, True])
    y = torch.randn(3, 4, dtype=torch.float64)
    close(flow.dist.expand((3,)).to_event(1).log_prob(y), by_hand(flow, y).sum())
    close(flow.dist.mask(mask).log_prob(y), by_hand(flow, y) * mask)
    for density, reduce in (
        (flow.dist.expand((3,)).to_event(1), torch.sum),
        (flow.dist.expand((3,)).mask(mask), lambda score: score * mask),
    ):
        before = passes(flow)
        drawn = density.rsample()
        close(density.log_prob(drawn), reduce(by_hand(flow, drawn)))
        assert passes(flow) == (before[0] + 1, before[1] + 1)  # drawn, and by hand


def test_expanded_distributions_do_not_share_a_memory(flow):
    whole = flow.dist
    first, second = whole.expand((3,)), whole.expand((3,))
    assert type(first) is FlowDistribution and first.batch_shape == (3,) and first.transform is whole.transform
    y = first.rsample()
    second.rsample()
    close(first.log_prob(y), by_hand(flow, y))
    before = passes(flow)
    close(second.log_prob(y), by_hand(flow, y))
    assert passes(flow) == (before[0], before[1] + 2)
    with pytest.raises((RuntimeError, ValueError)):
        first.expand((2,))


def test_a_guide_draws_and_scores_in_one_pass(flow):
    def model():
        pyro.sample("z", dist.Normal(torch.zeros(4, dtype=torch.float64), 1.0).to_event(1))

    def guide():
        pyro.module("flow", flow)
        pyro.sample("z", flow.dist)

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO(num_particles=2, vectorize_particles=True))
    svi.step()  # the first one traces the guide once more, to see its plates
    before = passes(flow)
    for step in range(1, 4):
        svi.step()
        assert passes(flow) == (before[0] + step, 0)


def test_transform_reparam(flow):
    def model():
        with pyro.plate("rows", 5):
            return pyro.sample("z", flow.dist)

    trace = poutine.trace(poutine.reparam(model, config={"z": TransformReparam()})).get_trace()
    trace.compute_log_prob()
    base = trace.nodes["z_base"]
    close(base["log_prob"], flow.base.log_prob(base["value"]))
    close(trace.nodes["z"]["value"], flow.transform(base["value"]))


def test_nested_in_other_distributions(flow):
    """As the base of a TransformedDistribution, as its transform, as the components of a mixture."""
    scale = dist.transforms.AffineTransform(0.0, 2.0, event_dim=1)
    y = torch.randn(3, 4, dtype=torch.float64)
    expected = by_hand(flow, y / 2) - 4 * torch.tensor(2.0, dtype=torch.float64).log()
    for nested in (
        TransformedDistribution(flow.dist, [scale]),
        TransformedDistribution(flow.base, [flow.transform, scale]),
        TransformedDistribution(flow.base, [*flow.transforms, scale]),
        TransformedDistribution(TransformedDistribution(flow.base, [flow.transform]), [scale]),
    ):
        close(nested.log_prob(y), expected)
        drawn = nested.expand((3,)).rsample()
        close(nested.log_prob(drawn), by_hand(flow, drawn / 2) - 4 * torch.tensor(2.0, dtype=torch.float64).log())
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), flow.dist.expand((2,)))
    close(mixture.log_prob(y), by_hand(flow, y))


@pytest.mark.parametrize("fast", ["score", "sample"])
def test_a_raw_transform_is_right_after_a_step(fast):
    """In the user's own TransformedDistribution nothing is remembered: weights may change between draw and score."""
    action = VectorAction.plane("D4")
    layer = randomize_(g_residual(action, fast=fast)).double().eval()
    density = TransformedDistribution(InvariantNormal(action).expand((3,)), [layer])
    density.base_dist.module.double()
    y = density.rsample().detach()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.05
    z, ladj = layer.inv_call_and_ladj(y)
    score = density.log_prob(y)
    close(score, density.base_dist.log_prob(z) + ladj)
    gradient = torch.autograd.grad(score.sum(), list(layer.parameters()))
    expected = torch.autograd.grad((density.base_dist.log_prob(z) + ladj).sum(), list(layer.parameters()))
    for one, other in zip(gradient, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_predictive(flow):
    found = Predictive(lambda: pyro.sample("z", flow.dist), num_samples=7, parallel=True)()
    assert found["z"].shape == (7, 4)


def test_it_is_printed_as_its_flow(flow):
    text = repr(flow.dist.expand((2, 3)))
    assert "FlowDistribution" in text and "(2, 3)" in text and "InvariantNormal" in text and "GActNorm" in text
    assert all(line in text for line in repr(flow).splitlines()[1:])


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_compiled(whole):
    """Checks that depend on values are left out while torch.compile records; the scores are the same."""
    action = VectorAction.plane("D8" if whole else "D4", copies=1 if whole else 2)
    layers = [g_residual(action) if whole else g_coupling(action, width=2, depth=1), GActNorm(action)]
    flow = randomize_(EquivariantFlow(InvariantNormal(action), layers)).eval()
    x = torch.randn(5, action.numel)
    with pyro.validation_enabled(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about what it records
        density = flow.dist
        assert density._validate_args and density.base_dist._validate_args
        # fullgraph: nothing is left to Python, so that no value is looked at
        compiled = torch.compile(density.log_prob, backend="eager", fullgraph=whole)
        torch.testing.assert_close(compiled(x), density.log_prob(x), rtol=1e-5, atol=1e-5)


def test_supports_that_are_checked():
    action = VectorAction.regular("C2")
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action), GSigmoid(action, alpha=0.0)])
    with pyro.validation_enabled(True):
        for wrong in (torch.tensor([0.5, 2.0]), torch.tensor([0.5, float("nan")])):
            with pytest.raises(ValueError):
                flow.dist.log_prob(wrong)
        with pytest.raises(ValueError):
            FlowDistribution(InvariantNormal(action), GActNorm(action)).log_prob(torch.tensor([0.5, float("nan")]))
    assert flow.dist.log_prob(torch.tensor([0.5, 0.25])).isfinite()
