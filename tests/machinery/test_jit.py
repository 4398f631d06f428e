"""JIT versions agree with the others at weights that the trace never saw; what cannot be traced says so.

(Pyro's own AutoIAFNormal and AutoNormalizingFlow do not run under JitTrace_ELBO in Pyro 1.9.2; guides written by hand
with Pyro's transforms do.)
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    MCMC,
    NUTS,
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.reparam import NeuTraReparam

from pyro_gflows import EquivariantFlow, InvariantNormal, IrrepSplit, VectorAction
from pyro_gflows.numerics import KrylovLogDet, RouletteLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GActNorm, MatrixScale, g_autoregressive, g_coupling, g_radial, g_residual
from tests.machinery.models import CASES, DATA, labeled_mixture, loss_and_gradient, mixture, nudge

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

PAIRS = {
    "Trace": (JitTrace_ELBO, Trace_ELBO, mixture),
    "TraceMeanField": (JitTraceMeanField_ELBO, TraceMeanField_ELBO, mixture),
    "TraceGraph": (JitTraceGraph_ELBO, TraceGraph_ELBO, mixture),
    "TraceEnum": (JitTraceEnum_ELBO, TraceEnum_ELBO, labeled_mixture),
}
ROWS = VectorAction.rows("S3")
SPLIT = IrrepSplit(ROWS)
FAMILIES = {
    "actnorm": lambda: GActNorm(ROWS),
    "autoregressive": lambda: g_autoregressive(ROWS, split=SPLIT, width=2, fast="sample"),
    "autoregressive, to score": lambda: g_autoregressive(ROWS, split=SPLIT, width=2),
    "coupling": lambda: g_coupling(ROWS, split=SPLIT, width=2),
    "matrix exponential": lambda: g_coupling(ROWS, split=SPLIT, width=2, transformer=MatrixScale),
    "radial": lambda: g_radial(ROWS, bins=4),
    "residual": lambda: g_residual(ROWS, fast="sample"),
}


def assert_agree(elbos, model, guide, parameters):
    jit, eager = (elbo(num_particles=3, vectorize_particles=True, max_plate_nesting=1) for elbo in elbos)
    jit.ignore_jit_warnings = True

    def evaluate(elbo):
        if elbo is eager and isinstance(elbo, TraceMeanField_ELBO):
            for _ in range(2):  # the JIT version looks for parameters and traces in every call, and each draws too
                elbo.loss(model, guide, DATA)
        return elbo.loss_and_grads(model, guide, DATA)

    jit.loss_and_grads(model, guide, DATA)  # the trace
    for seed in range(2):
        nudge(parameters)
        received, expected = (
            loss_and_gradient(lambda elbo=elbo: evaluate(elbo), parameters, seed) for elbo in (jit, eager)
        )
        # the optimized graph of a second run has formulas of its own, good to about 1e-7
        torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-6)
        assert expected[1].abs().max() > 0.1


@pytest.mark.parametrize(
    ("kind", "name"),
    [("AutoGFlow", name) for name in PAIRS] + [("by hand", "Trace")],
)
@pytest.mark.long
def test_every_elbo(kind, name):
    *elbos, model = PAIRS[name]
    case = CASES[kind](model)
    assert_agree(elbos, model, case.guide, case.parameters)


def model_of_rows(x):
    rows = pyro.sample("rows", dist.Normal(torch.zeros(3, dtype=torch.float64), 2.0).to_event(1))
    pyro.sample("x", dist.Normal(rows.square().sum(-1), 1.0), obs=x.sum())


def guide_of(layer):
    flow = randomize_(EquivariantFlow(InvariantNormal(ROWS), [layer]).double(), scale=0.2)

    def guide(x):
        pyro.module("flow", flow)
        pyro.sample("rows", flow.dist)

    return guide, list(flow.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.long
def test_every_family(family):
    assert_agree((JitTrace_ELBO, Trace_ELBO), model_of_rows, *guide_of(FAMILIES[family]()))


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (lambda: g_residual(ROWS), "the inverse of a residual layer"),
        (lambda: g_residual(ROWS, fast="sample", log_det=RouletteLogDet()), "the roulette log-det, in training,"),
        (lambda: g_residual(ROWS, fast="sample", log_det=KrylovLogDet()), "the Krylov log-det"),
    ],
    ids=["an iteration", "a random length", "an observed length"],
)
def test_what_depends_on_the_data_is_refused(layer, what):
    """A trace would keep one call's number of steps, and give wrong values and gradients without a word."""
    guide, _ = guide_of(layer())
    elbo = JitTrace_ELBO(ignore_jit_warnings=True)
    with pytest.raises(RuntimeError, match=f"{what} cannot be traced: .* fast='sample' .*, or leave out the JIT"):
        elbo.loss_and_grads(model_of_rows, guide, DATA)
    assert torch.isfinite(torch.tensor(Trace_ELBO().loss_and_grads(model_of_rows, guide, DATA)))


@pytest.mark.long
def test_nuts_in_neutra_coordinates():
    """The same draws, with the potential traced or not."""
    guide = CASES["AutoGFlow"](mixture).guide.eval().requires_grad_(False)
    draws = []
    for jit in (False, True):
        torch.manual_seed(3)
        neutra = NeuTraReparam(guide)
        options = {"step_size": 0.1, "adapt_step_size": False, "max_tree_depth": 2}
        kernel = NUTS(neutra.reparam(mixture), jit_compile=jit, ignore_jit_warnings=True, **options)
        mcmc = MCMC(kernel, num_samples=4, warmup_steps=0, disable_progbar=True)
        mcmc.run(DATA)
        draws.append(next(iter(mcmc.get_samples().values())))
    torch.testing.assert_close(*draws, rtol=0, atol=1e-6)
    assert draws[0].unique(dim=0).shape[0] > 1
