"""A guide of a part of a model: what poutine.block hides is found, named, and cured by ``joint=``."""

import threading
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.infer.autoguide.guides import AutoContinuous
from pyro.poutine.block_messenger import BlockMessenger

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow, log_joint_invariance
from pyro_gflows.guides.hidden_sites import visible_and_hidden
from pyro_gflows.training import FitSettings, fit_energy
from pyro_gflows.transforms import GActNorm

ROWS = VectorAction.rows("S3")
LABELS = SitesAction("S3", {"means": ROWS})
DATA = torch.tensor([-2.1, -1.9, 0.1, 0.3, 2.0, 2.4], dtype=torch.float64)


def model(x=DATA):
    zero = torch.zeros((), dtype=torch.float64)
    scale = pyro.sample("scale", dist.LogNormal(zero, 0.3))
    means = pyro.sample("means", dist.Normal(zero.expand(3), 2.0).to_event(1))
    components = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(3, dtype=torch.float64)), dist.Normal(means, scale[..., None])
    )
    with pyro.plate("data", len(x)):
        pyro.sample("x", components, obs=x)


def blocked_inside(x=DATA):
    """Hidden by a handler in the middle of the model, which no wrapper shows."""
    means = pyro.sample("means", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    with poutine.block(hide=["x"]), pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=x)


def with_a_hidden_factor():
    means = pyro.sample("means", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    pyro.factor("x", -means.square().sum(-1))
    pyro.sample("y", dist.Normal(means.sum(-1), 1.0), obs=torch.tensor(1.0))


def skip(*args, **kwargs):
    return poutine.block(model, expose=["means"])(*args, **kwargs)


BLIND = {
    "expose": poutine.block(model, expose=["means"]),
    "expose a function": skip,
    "expose, reparametrized": poutine.block(poutine.reparam(model, config={}), expose=["means"]),
    "hide": poutine.block(model, hide=["x", "scale"]),
    "hide observed alone": poutine.block(model, hide=["x"]),
    "hide types": poutine.block(model, hide_types=["observe"]),
    "hide function": poutine.block(model, hide_fn=lambda site: site["name"] == "x"),
    "expose function": poutine.block(model, expose_fn=lambda site: site["name"] == "means"),
    "inside the model": blocked_inside,
    "one factor of two terms": poutine.block(with_a_hidden_factor, hide=["x"]),
}


def guide_of(part, **options):
    return AutoGFlow(part, LABELS, **{"transforms": lambda action: [GActNorm(action)], **options})


@pytest.mark.parametrize("name", BLIND)
def test_hidden_data_are_named_and_no_density_is_made_of_the_rest(name):
    part = BLIND[name]
    with pytest.warns(UserWarning, match=r"could not be checked .*observed sites \['x'\].*joint="):
        guide_of(part)
    with pytest.raises(ValueError, match=r"could not be checked .*observed sites \['x'\].*joint="):
        guide_of(part, check="raise")
    guide = guide_of(part, check="skip")
    with pytest.raises(ValueError, match=r"observed sites \['x'\].*joint="):
        guide.log_density()
    with pytest.raises(ValueError, match=r"observed sites \['x'\].*joint="):
        guide_of(part, check="skip", base=OrbitFlow)
    report = log_joint_invariance(part, LABELS, [{"means": torch.randn(3), "scale": torch.ones(())}])
    assert not report.is_invariant and "['x']" in str(report)


def test_a_hidden_latent_site_is_named():
    part = poutine.block(model, hide=["scale"])
    with pytest.warns(UserWarning, match=r"could not be checked .*\['scale'\].*joint="):
        guide = guide_of(part)
    with pytest.raises(ValueError, match=r"changes from run to run.*\['scale'\].*joint="):
        guide.log_density()


def test_a_hidden_latent_site_that_seldom_matters_is_named_too():
    def outliers():
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        odd = pyro.sample("odd", dist.Bernoulli(1e-6))
        pyro.sample("x", dist.Normal(means.sum(-1), 1.0 + 9.0 * odd), obs=torch.tensor(1.0))

    guide = guide_of(poutine.block(outliers, hide=["odd"]), check="raise")
    with pytest.warns(UserWarning, match=r"hides the latent sites \['odd'\].*joint="):
        guide.log_density()


@pytest.mark.long
def test_the_whole_model_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guide = guide_of(model, check="raise")
        guide_of(poutine.block(model, hide=["nothing"]), check="raise").log_density()
        guide.log_density()


def prior_free(means, scale):
    """log p(means, x | scale), by hand."""
    likelihood = torch.distributions.Normal(means[:, None, :], scale).log_prob(DATA[None, :, None]).logsumexp(-1)
    prior = torch.distributions.Normal(0.0, 2.0).log_prob(means).sum(-1)
    return prior + (likelihood - torch.log(torch.tensor(3.0, dtype=torch.float64))).sum(-1)


@pytest.mark.long
@pytest.mark.parametrize("part", [BLIND["expose"], poutine.block(model, hide=["scale"])], ids=["expose", "hide"])
def test_joint_with_the_other_sites_held_fixed_is_the_right_call(part):
    torch.manual_seed(0)
    scale = torch.tensor(0.5, dtype=torch.float64)
    joint = poutine.condition(model, data={"scale": scale})
    guide = guide_of(part, joint=joint, check="raise", base=OrbitFlow)
    z = torch.randn(4, 3, dtype=torch.float64)
    difference = guide.log_density()(z) - prior_free(z, scale)
    torch.testing.assert_close(difference, difference[:1].expand(4))  # the prior of the fixed scale
    # the mode search saw the data: the components are at the three clusters, not at the prior's mode 0
    center = guide.flow.base._placed.center.sort().values
    torch.testing.assert_close(center, torch.tensor([-2.0, 0.2, 2.2], dtype=torch.float64), rtol=0, atol=0.2)
    settings = FitSettings(steps=5, batch_size=16)
    report = fit_energy(guide.flow, guide.log_density(), settings=settings, progress=False)
    assert report.ess > 0.1


@pytest.mark.long
@pytest.mark.parametrize("expose", [True, False])
def test_the_recipe_of_a_list_of_guides(expose):
    guide = AutoGuideList(model)
    part = poutine.block(model, expose=["means"]) if expose else poutine.block(model, hide=["scale"])
    joint = poutine.condition(model, data={"scale": torch.ones((), dtype=torch.float64)})
    guide.append(AutoNormal(poutine.block(model, expose=["scale"])))
    guide.append(guide_of(part, joint=joint, check="raise", base=OrbitFlow, args=(DATA,)))
    guide[1].flow.eval()
    guide(DATA)
    guide.double()
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [svi.step(DATA) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_what_blocks_is_put_back_also_from_threads():
    process = BlockMessenger._process_message

    def failing():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        visible_and_hidden(failing, (), {})
    errors = []

    def look():
        try:
            lock_free = poutine.block(lambda: None, hide=["x"])
            visible_and_hidden(lock_free, (), {})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and BlockMessenger._process_message is process


def test_only_sites_with_a_density_count_as_hidden():
    def plain():
        pyro.deterministic("d", torch.tensor(1.0))
        with pyro.plate("data", 4, subsample_size=2):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.zeros(2))

    trace, hidden = visible_and_hidden(poutine.block(plain), (), {})
    assert list(hidden) == ["x"] and "x" not in trace.nodes
    assert isinstance(guide_of(model, check="skip"), AutoContinuous)
