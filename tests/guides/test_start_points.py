"""Where guides start: ``init_loc_fn=``, and priors that cannot be drawn from."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide.initialization import (
    init_to_feasible,
    init_to_generated,
    init_to_mean,
    init_to_median,
    init_to_sample,
    init_to_uniform,
    init_to_value,
)
from torch.distributions import constraints

from pyro_gflows import InvariantNormal
from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow, LogRatioReparam
from pyro_gflows.guides.start_points import mode_starts
from pyro_gflows.transforms import GActNorm

ROWS = VectorAction.rows("S3")
ACTION = SitesAction("S3", {"means": ROWS})
X = torch.tensor([-2.1, 0.3, 2.4])


def improper(x=X):
    scale = pyro.sample("scale", dist.ImproperUniform(constraints.positive, (), ()))
    means = pyro.sample("means", dist.ImproperUniform(constraints.real_vector, (), (3,)))
    pyro.factor("wide", -0.5 * (means / 10).square().sum(-1) - scale)
    labels = dist.Categorical(torch.ones(3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(labels, dist.Normal(means, scale[..., None])), obs=x)


def improper_in_plates(x=X):
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.ImproperUniform(constraints.real, (), ()))
        pyro.factor("wide", -0.5 * (means / 10).square())
    pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=x[0])


def proper(x=X):
    means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
    pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=x[0])


def guide_of(model, **options):
    return AutoGFlow(
        model, ACTION, **{"args": (X,), "transforms": lambda action: [GActNorm(action)], "check": "raise", **options}
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "base"),
    [(improper, InvariantNormal), (improper_in_plates, InvariantNormal), (improper_in_plates, OrbitFlow)],
)
@pytest.mark.filterwarnings("ignore:the model does not run inside one additional plate")
def test_priors_that_cannot_be_drawn_from(model, base):
    torch.manual_seed(0)
    guide = guide_of(model, base=base)
    z = torch.randn(4, guide.latent_dim)
    assert guide.log_density(X)(z).isfinite().all()
    guide.eval()
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(X)


@pytest.mark.parametrize(
    "init",
    [
        init_to_feasible,
        init_to_sample,
        init_to_median,
        init_to_median(num_samples=3),
        init_to_mean,
        init_to_uniform,
        init_to_uniform(radius=0.1),
        init_to_value(values={"means": torch.tensor([1.0, 2.0, 3.0])}),
        init_to_generated(generate=lambda: init_to_value(values={"means": torch.tensor([1.0, 2.0, 3.0])})),
        lambda site: torch.ones(3),
    ],
)
def test_takes_what_the_guides_of_pyro_take(init):
    for model in (proper, poutine.block(poutine.reparam(proper, config={}), hide=[])):
        guide_of(model, init_loc_fn=init)
    if not callable(getattr(init, "__wrapped__", None)):
        AutoGFlow(improper_in_plates, ACTION, args=(X,), init_loc_fn=init, check="raise")


def test_the_start_is_the_one_given_in_constrained_values():
    weights = torch.tensor([0.2, 0.3, 0.5])

    def simplex():
        pyro.sample("means", dist.Dirichlet(torch.ones(3)))

    model = poutine.reparam(simplex, config={"means": LogRatioReparam()})
    guide = AutoGFlow(model, ACTION, init_loc_fn=init_to_value(values={"means": weights}))
    torch.testing.assert_close(guide._values(guide._init_loc())["means"], weights)


@pytest.mark.long
def test_modes_are_looked_for_from_there():
    """A thin peak far away that no draw of the prior comes near."""
    far = torch.tensor([40.0, 42.0, 44.0])

    def needle():
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        gap = (means.sort(-1).values - far).square().sum(-1)
        pyro.factor("needle", torch.where(gap < 1.0, 5e3 - 50 * gap, -torch.inf))

    torch.manual_seed(0)
    with pytest.raises(ValueError, match="init_loc_fn="):
        AutoGFlow(needle, ACTION, base=OrbitFlow, check="skip")
    start = init_to_value(values={"means": far[[2, 0, 1]]})
    guide = AutoGFlow(needle, ACTION, base=OrbitFlow, check="raise", init_loc_fn=start)
    center = guide.flow.base._placed.center.sort().values
    assert (center - far).abs().max() < 0.5
    z = guide.flow.base.sample((200,))
    assert guide.log_density()(z).isfinite().double().mean() > 0.8


def test_the_first_start_is_the_given_one_and_the_rest_are_spread():
    start = torch.tensor([3.0, 4.0, 5.0])
    guide = guide_of(proper, init_loc_fn=init_to_value(values={"means": start}))
    energy = guide.log_density(X)
    options = {"log_density": energy, "args": (X,)}
    rows = mode_starts(guide, proper, count=16, about_start=True, **options)
    assert rows.shape == (16, 3) and torch.equal(rows[0], start)
    assert len(rows.unique(dim=0)) > 12 and (rows[:8] - start).norm(dim=-1).max() < 6
    assert (rows[8:] - start).norm(dim=-1).min() > 0
    torch.manual_seed(0)
    drawn = mode_starts(guide, proper, count=5, about_start=False, **options)
    torch.manual_seed(0)
    own = torch.stack([poutine.trace(proper).get_trace(X).nodes["means"]["value"] for _ in range(5)])
    torch.testing.assert_close(drawn, own)


def test_a_model_that_fails_at_its_own_draws_is_searched_about_its_start():
    def brittle(x=X):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 100.0).to_event(1))
        if bool((means.abs() > 20).any()):
            raise ValueError("not positive definite")
        pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=x[0])

    guide = guide_of(brittle)
    rows = mode_starts(guide, brittle, log_density=lambda z: torch.zeros(len(z)), count=6, about_start=False, args=(X,))
    assert rows.abs().max() < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "orbit"}, r"expected base= to be a function .*OrbitFlow.* got 'orbit'"),
        ({"base": InvariantNormal(ROWS)}, r"expected base= to be a function .* got InvariantNormal"),
        ({"base": 3}, r"expected base= to be a function .* got int"),
        ({"transforms": []}, r"expected transforms= to be a function .* got list"),
        ({"transforms": [GActNorm(ROWS)]}, r"expected transforms= to be a function .* got list"),
        ({"transforms": GActNorm(ROWS)}, r"expected transforms= to be a function .* got GActNorm"),
        ({"transforms": "coupling"}, r"expected transforms= to be a function .* got 'coupling'"),
        ({"transforms": lambda action: GActNorm(action)}, r"to return a list of layers, got GActNorm"),
        ({"transforms": lambda action: None}, r"to return a list of layers, got NoneType"),
        ({"init_loc_fn": {"means": X}}, r"expected init_loc_fn= to be a function .*init_to_value.* got dict"),
    ],
)
def test_an_argument_that_is_not_a_function_says_what_was_expected(options, message):
    with pytest.raises(TypeError, match=message):
        guide_of(proper, **options)
