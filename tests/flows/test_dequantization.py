"""Noise of images that turns with them: equivariance, bounds against quadrature, training together."""

import math

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    ImageAction,
    InvariantNormal,
    VectorAction,
    g_coupling_image_flow,
    g_residual_image_flow,
)
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.evaluation import nll
from pyro_gflows.flows import DequantizedFlow, VariationalDequantizer, g_dequantizer
from pyro_gflows.serialization.registry import build
from pyro_gflows.testing import assert_conditionally_invariant, randomize_
from pyro_gflows.training import Adam, FitSettings, Validation, fit

SCALING = GrayLevels(5, center=0.4, gain=3.0)
ACTION = ImageAction("D4", size=4)


def levels_of(action=ACTION, n=4):
    return torch.randint(5, (n, *action.event_shape), generator=torch.Generator().manual_seed(0))


def dequantizer_of(action=ACTION, *, scale=0.1, **size):
    torch.manual_seed(0)
    made = g_dequantizer(action, SCALING, **{"width": 2, **size}).double()
    return randomize_(made, scale=scale, generator=torch.Generator().manual_seed(1)) if scale else made


def both_of(*, scale=0.1, family=g_coupling_image_flow):
    torch.manual_seed(0)
    flow = family(ACTION, scales=1, blocks=1, width=1).double()
    randomize_(flow, scale=0.1, generator=torch.Generator().manual_seed(2))
    return DequantizedFlow(flow, dequantizer_of(scale=scale)).eval()


ACTIONS = [
    ACTION,
    ImageAction("C4", 3, size=3),
    ImageAction("C1", 1, size=4),
    ImageAction.translations(1, size=4, step=2),
]


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_the_noise_turns_with_the_image(action):
    """q(g y | g k) = q(y | k), float64 and float32."""
    dequantizer, levels = dequantizer_of(action), levels_of(action)
    for dtype, tol in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        dequantizer.to(dtype)
        torch.manual_seed(2)
        y = dequantizer.condition(levels).sample()
        noise = (y - SCALING.to_real(levels)) / SCALING.step
        assert y.dtype == dtype and noise.min() > -1e-5 and noise.max() < 1 + 1e-5
        z = torch.randn(len(levels), *action.event_shape, dtype=dtype)
        context = levels.to(dtype)
        for element in action.elements()[1:5]:  # draws move, with noise that moves
            moved = dequantizer.noise.transform.call_and_ladj(action.act(element, z), action.act(element, context))
            still = dequantizer.noise.transform.call_and_ladj(z, context)
            torch.testing.assert_close(moved[0], action.act(element, still[0]), rtol=0, atol=tol)
            torch.testing.assert_close(moved[1], still[1], rtol=tol, atol=tol * action.numel)
    dequantizer.double()
    score = lambda y, levels: dequantizer.condition(levels).log_prob(y)  # noqa: E731
    inner = SCALING.to_real(levels + 0.1 + 0.8 * torch.rand(levels.shape, dtype=torch.float64))
    assert_conditionally_invariant(score, action, action, inner, levels.double(), tol=1e-9)


def test_the_bound_is_that_of_the_turned_image_under_turned_noise():
    both, levels = both_of(), levels_of()
    torch.manual_seed(2)
    y = both.dequantizer.condition(levels).sample()
    score = lambda y, levels: both.flow(y) - both.dequantizer.condition(levels).log_prob(y)  # noqa: E731
    assert_conditionally_invariant(score, ACTION, ACTION, y, levels.double(), tol=1e-9)


@pytest.mark.long
def test_it_starts_as_uniform_noise_exactly():
    dequantizer, levels = dequantizer_of(scale=0.0), levels_of(n=200)
    y = dequantizer.condition(levels).sample()
    log_q = dequantizer.condition(levels).log_prob(y)
    torch.testing.assert_close(log_q, torch.full_like(log_q, -16 * math.log(SCALING.step)), rtol=1e-9, atol=1e-9)
    noise = (y - SCALING.to_real(levels)) / SCALING.step
    assert noise.mean() == pytest.approx(0.5, abs=0.03) and noise.var() == pytest.approx(1 / 12, abs=0.01)
    both = both_of(scale=0.0)
    torch.manual_seed(0)
    x = both.dequantizer.condition(levels).sample()
    bits = SCALING.bits_per_dim(nll(both.flow, x), pixels=16)  # what uniform dequantization reports
    torch.manual_seed(0)
    assert nll(both, x) / 16 / math.log(2) == pytest.approx(bits, abs=1e-10)


class Pair(nn.Module):
    """Two pixels with a sharp density, correlated."""

    def __init__(self):
        super().__init__()
        action = ImageAction("C1", 2, size=1)
        self.flow = EquivariantFlow(InvariantNormal(action, covariance="full"), [GActNorm(action)]).double()
        randomize_(self.flow, scale=0.4, generator=torch.Generator().manual_seed(3))

    def log_probs(self, levels, points=60):
        """log P(k) by the midpoint rule."""
        line = (torch.arange(points, dtype=torch.float64) + 0.5) / points
        noise = torch.cartesian_prod(line, line).reshape(-1, 1, 2, 1, 1)
        y = SCALING.to_real(levels + noise)
        with torch.no_grad():
            return self.flow(y).logsumexp(0) - 2 * math.log(points) + 2 * math.log(SCALING.step)


@pytest.mark.long
def test_bounds_against_quadrature():
    """The ELBO lies below log P(k), the importance-weighted bound between, and gets there; fitting closes the gap."""
    pair, levels = Pair(), torch.cartesian_prod(torch.arange(5), torch.arange(5)).reshape(25, 2, 1, 1)
    truth = pair.log_probs(levels)
    torch.manual_seed(0)
    both = DequantizedFlow(pair.flow, g_dequantizer(pair.flow.action, SCALING, width=4).double()).eval()
    x = SCALING.to_real(levels + 0.5).double()
    with torch.no_grad():
        weights = both.log_weights(x, 1000)
    elbo, error = weights.mean(0), weights.std(0) / 1000**0.5
    assert (elbo < truth + 4 * error).all() and (elbo - truth).mean() < -0.08
    few = (weights.unflatten(0, (250, 4)).logsumexp(1) - math.log(4)).mean(0)
    many = both.importance_bound(x, draws=1000, batch_size=500)
    assert (elbo.mean() < few.mean() - 0.03) and (few.mean() < many.mean() - 0.01)
    torch.testing.assert_close(many, truth, rtol=0, atol=0.2)
    assert float((many - truth).mean()) == pytest.approx(0, abs=0.03)
    before = float((elbo - truth).mean())
    optimizer = torch.optim.Adam(both.dequantizer.parameters(), lr=2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        (-both.log_weights(x, 4).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        after = both.log_weights(x, 1000)
    assert ((after.mean(0) - truth) < 4 * after.std(0) / 1000**0.5).all()
    assert before / 4 < float((after.mean(0) - truth).mean()) < 0.01


def stripes(n, seed=0):
    """Images of one of two levels in the rows, turned."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(2, (n, 1, 4, 1), generator=generator).expand(n, 1, 4, 4) * 3
    levels = ACTION.act_each(ACTION.sample((n,), generator), levels.double())
    return SCALING.dequantize(levels, generator).double()


SETTINGS = FitSettings(steps=60, batch_size=32, optimizer=Adam(lr=2e-2), validation=Validation(20), ema_decay=0.9)


@pytest.mark.long
def test_fitting_both_beats_uniform_noise():
    results = {}
    for noise in ("uniform", "variational"):
        torch.manual_seed(0)
        flow = g_coupling_image_flow(ACTION, scales=1, blocks=1, width=2, depth=1).double()
        dequantizer = dequantizer_of(scale=0.0, blocks=1) if noise == "variational" else None
        result = fit(
            flow,
            stripes(300),
            settings=SETTINGS,
            validation=stripes(300, seed=1),
            augment=SCALING.redequantize,
            dequantize=dequantizer,
            progress=False,
        )
        nats = result.validation_nll
        results[noise] = nats / 16 / math.log(2) if dequantizer else SCALING.bits_per_dim(nats, pixels=16)
    assert results["variational"] < results["uniform"] - 0.05


@pytest.mark.long
def test_a_run_that_was_cut_off_ends_in_the_weights_of_an_unbroken_one(tmp_path):
    def run(folder, steps_before_the_cut=None):
        both = both_of(scale=0.0, family=g_residual_image_flow)
        calls = 0

        def augment(x, generator):
            nonlocal calls
            calls += 1
            if calls == steps_before_the_cut:
                raise InterruptedError
            return SCALING.redequantize(x, generator)

        def go(resume):
            settings = FitSettings(steps=8, batch_size=16, checkpoint_every=2, ema_decay=0.9, validation=Validation(3))
            fit(
                both.flow,
                stripes(60),
                settings=settings,
                validation=stripes(20, seed=1),
                augment=augment,
                dequantize=both.dequantizer,
                folder=folder,
                resume=resume,
                progress=False,
            )

        if steps_before_the_cut:
            with pytest.raises(InterruptedError):
                go(False)
        go(bool(steps_before_the_cut))
        return both.state_dict()

    whole, cut = run(tmp_path / "whole"), run(tmp_path / "cut", 6)
    assert any(name.startswith("dequantizer") for name in whole)
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name


def test_model_and_guide_are_those_of_the_bound():
    pyro.clear_param_store()
    both, x = both_of(), stripes(6)
    torch.manual_seed(1)
    bound = float(both(x).detach().sum())
    torch.manual_seed(1)
    assert -Trace_ELBO().loss(both.model, both.guide, x) == pytest.approx(bound)
    both.train()
    before = {name: p.detach().clone() for name, p in both.named_parameters()}
    SVI(both.model, both.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(x)
    still = [name for name, p in both.named_parameters() if p.numel() and torch.equal(p, before[name])]
    assert not still
    pyro.clear_param_store()


def test_both_are_described_and_rebuilt():
    both, x = both_of(), stripes(3)
    again = build(both.config()).double().eval()
    again.load_state_dict(both.state_dict())
    for module in (both, again):
        torch.manual_seed(0)
        module.value = module.importance_bound(x, draws=3, batch_size=4)
    assert torch.equal(both.value, again.value)
    assert again.dequantizer.scaling == SCALING


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: VariationalDequantizer(nn.Linear(1, 1), SCALING), TypeError, "expected the flow of the noise"),
        (lambda: VariationalDequantizer(both_of().flow, SCALING), ValueError, "takes an image of its own shape"),
        (lambda: g_dequantizer(ImageAction.translations(size=3), SCALING), ValueError, "blocks=0"),
        (lambda: g_dequantizer(ACTION, SCALING, blocks=-1), ValueError, "blocks >= 0"),
        (
            lambda: DequantizedFlow(both_of().flow, dequantizer_of(ACTIONS[1])),
            ValueError,
            "a dequantizer of the flow's images",
        ),
        (lambda: both_of().importance_bound(stripes(2), draws=0), ValueError, "draws >= 1"),
        (lambda: fit(both_of().flow, stripes(2), dequantize=3), TypeError, "dequantize=g_dequantizer"),
        (lambda: fit(both_of().flow.float(), stripes(2), dequantize=dequantizer_of()), ValueError, "float32 on cpu"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_vectors_can_be_quantized_too():
    """Only the usual dequantizer is made for images; any conditional flow over (0, 1) will do."""
    from pyro_gflows import GAffine, GNormalCdf

    action = VectorAction.rows("S3")
    layers = [GAffine(action, context_action=action, width=2), GNormalCdf(action, alpha=0.0)]
    dequantizer = VariationalDequantizer(EquivariantFlow(InvariantNormal(action), layers), SCALING)
    levels = torch.tensor([[0, 2, 4], [1, 1, 3]])
    assert torch.equal(SCALING.quantize(dequantizer.condition(levels).sample()), levels)
