"""Inside Pyro: stores, plates, handlers, guides (contracts 4, 7, 10, 17, 18, 19)."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_gflows.spaces import MeanFree
from tests.constructors import CONSTRUCTORS, events, make_flow, names


def model_of(flow):
    def model(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            return pyro.sample("x", flow.dist, obs=x)

    return model


def spread(flow, count):
    """Return events of many sizes, so that every bin of every spline has one."""
    return events(flow, count) * torch.linspace(0.1, 2.5, count, dtype=torch.float64).reshape(
        -1, *[1] * flow.action.event_dim
    )


def assert_all_changed(flow, before):
    unchanged = [key for key, value in flow.named_parameters() if value.numel() and torch.equal(value, before[key])]
    assert not unchanged


def test_pyro_module_finds_every_parameter_and_svi_trains_each(flow):
    """Contract 4, through the inverse, a composition and the base."""
    flow.train()
    before = {key: value.detach().clone() for key, value in flow.named_parameters()}
    svi = SVI(model_of(flow), lambda x: None, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step(spread(flow, 48))
    assert {key.removeprefix("flow$$$") for key in pyro.get_param_store()} == set(before)
    assert_all_changed(flow, before)


def test_a_guide_trains_every_parameter(flow):
    """A guide samples from the flow and then scores the sample."""
    flow.train()
    before = {key: value.detach().clone() for key, value in flow.named_parameters()}

    def model():
        pyro.sample(
            "z", dist.Laplace(torch.ones(flow.action.event_shape).double(), 2.0).to_event(flow.action.event_dim)
        )

    def guide():
        pyro.module("flow", flow)
        pyro.sample("z", flow.dist)

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO(num_particles=32, vectorize_particles=True))
    assert torch.isfinite(torch.tensor(svi.step()))
    assert_all_changed(flow, before)


def test_plates_and_trace_shapes(flow):
    """Contract 10."""
    x = events(flow, 2, 3)

    def model():
        with pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 3, dim=-1):
            pyro.sample("x", flow.dist, obs=x)

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (2, 3)
    torch.testing.assert_close(trace.log_prob_sum(), flow(x).sum())
    drawn = poutine.trace(poutine.uncondition(model)).get_trace().nodes["x"]["value"]
    assert drawn.shape == x.shape and (drawn[0, 0] != drawn[1, 1]).any()


def test_subsampled_plates_scale(flow):
    x = events(flow, 6)

    def model(index):
        with pyro.plate("data", 6, subsample=index):
            pyro.sample("x", flow.dist, obs=x[index])

    index = torch.tensor([0, 4])
    torch.testing.assert_close(poutine.trace(model).get_trace(index).log_prob_sum(), 3 * flow(x[index]).sum())


def test_mask_and_scale(flow):
    x = events(flow, 4)
    mask = torch.tensor([True, False, False, True])
    weight = torch.tensor([0.5, 2.0, 3.0, 0.1], dtype=torch.float64)

    def model():
        with pyro.plate("data", 4), poutine.mask(mask=mask), poutine.scale(scale=weight):
            pyro.sample("x", flow.dist, obs=x)

    torch.testing.assert_close(poutine.trace(model).get_trace().log_prob_sum(), (flow(x) * weight * mask).sum())


def test_vectorized_particles(flow):
    """Contract 10: the ELBO with vectorized particles equals the ELBO of a loop over the particles."""
    x = events(flow, 4)

    def model():
        pyro.module("flow", flow)
        shift = pyro.sample("shift", dist.Normal(torch.zeros((), dtype=torch.float64), 0.1))
        with pyro.plate("data", 4):
            shifts = shift.reshape(shift.shape + (1,) * flow.action.event_dim)
            # a shift of all particles would leave the space
            pyro.sample("x", flow.dist, obs=x * (1 + shifts) if isinstance(flow.action.space, MeanFree) else x + shifts)

    def guide():
        pyro.sample("shift", dist.Delta(torch.full((), 0.05, dtype=torch.float64)))

    losses = [
        Trace_ELBO(num_particles=3, vectorize_particles=vectorized, max_plate_nesting=1).loss(model, guide)
        for vectorized in (True, False)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_gradient_of_weighted_log_probs(flow):
    """The gradient of a weighted sum is the weighted sum of the rows' gradients (contract 17)."""
    x, weights = events(flow, 5), torch.arange(5.0, dtype=torch.float64)
    parameters = list(flow.parameters())

    def gradient(value):
        parts = torch.autograd.grad(value, parameters, allow_unused=True)
        return torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for p, g in zip(parameters, parts, strict=True)
            ]
        )

    rows = torch.stack([gradient(flow(x)[i]) for i in range(5)])
    together = gradient((weights * flow(x)).sum())
    torch.testing.assert_close(together, weights @ rows, rtol=1e-7, atol=1e-8)
    assert together.abs().max() > 0


def test_evaluation_is_deterministic_and_needs_no_grad(flow):
    """Contract 7: HMC, NUTS and evaluation get one value for one event."""
    x = events(flow, 3)
    first = flow(x).detach()
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            torch.manual_seed(123)
            value = flow(x).detach().clone()
            torch.manual_seed(321)
            assert torch.equal(flow(x).detach(), value)
        torch.testing.assert_close(value, first, rtol=1e-13, atol=1e-13)  # other kernels, other last bits


def test_the_torch_seed_decides_everything_random(flow):
    """Contract 19."""
    flow.train()
    x = events(flow, 3)
    results = []
    for _ in range(2):
        torch.manual_seed(11)
        results.append((flow.dist.sample((2,)), flow(x).detach()))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("name", names(CONSTRUCTORS, estimated=False))
def test_an_exact_log_det_is_the_same_in_training(name):
    """Contract 18, for layers whose log-det is not random."""
    flow = make_flow(name)
    x = events(flow, 3)
    torch.testing.assert_close(flow(x), flow.train()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", names(CONSTRUCTORS, estimated=True))
@pytest.mark.long
def test_a_random_log_det_is_unbiased_in_value_and_gradient(name):
    """Contract 18: value, and gradient along 8 fixed directions, within 4 standard errors of the exact ones."""
    flow = make_flow(name).train()
    x = events(flow, 1)
    parameters = list(flow.transform.parameters())
    generator = torch.Generator().manual_seed(4)
    directions = [torch.randn(8, *p.shape, generator=generator, dtype=torch.float64).flatten(1) for p in parameters]

    def value_and_slopes(value):
        gradient = torch.autograd.grad(value, parameters, allow_unused=True)  # no Jacobian sees the last bias
        slopes = sum(d @ g.flatten() for d, g in zip(directions, gradient, strict=True) if g is not None)
        return torch.cat([value.detach()[None], slopes])

    # all rows are the same point, so that the rows are independent draws of its log-det
    rows = [
        value_and_slopes(flow.transform.inv_call_and_ladj(x.expand(100, *x.shape[1:]))[1].mean()) for _ in range(60)
    ]
    draws = torch.stack(rows)
    jacobian = torch.autograd.functional.jacobian(
        lambda y: flow.transform.inv_call_and_ladj(y)[0], x, create_graph=True
    ).reshape(x.numel(), x.numel())
    exact = value_and_slopes(torch.linalg.slogdet(jacobian).logabsdet)
    error = (draws.mean(0) - exact).abs() / (draws.std(0) / len(draws) ** 0.5)
    assert (error < 4).all(), error
