"""OrbitFlow: all images of one flow, and a guide that starts from it at a mode."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm
from pyro_gflows.actions import ImageAction, SitesAction, VectorAction
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.serialization import load, save
from pyro_gflows.testing import assert_invariant, randomize_
from pyro_gflows.training import Adam, FitSettings, fit_energy
from pyro_gflows.transforms.data_dependent import leaving_alone_what_is_set
from tests.guides.models import LABELS, mixture, mixture_data

ACTION = VectorAction.rows("S3", features=2)


@pytest.fixture
def base(dtype):
    base = OrbitFlow(ACTION, steps=3, width=4)
    randomize_(base.module.to(dtype), scale=0.5)
    return base


def test_is_the_mean_over_all_images_of_its_flow(base, dtype):
    x = base.sample((5, 2))
    assert x.shape == (5, 2, 6) and x.dtype == dtype
    by_hand = torch.stack([base.base.log_prob(image) for image in ACTION.act_all(x)]).exp().mean(0).log()
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(base.log_prob(x), by_hand, rtol=0, atol=tolerance)
    assert_invariant(base, ACTION, x)


def test_starts_as_the_normal_that_it_is_placed_at():
    base = OrbitFlow(ACTION, steps=4, width=4)
    base.module.double()
    location = 10.0 * torch.arange(6, dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.eye(6, dtype=torch.float64) + 0.5)
    base.start_at(location, factor)
    x = location + torch.randn(20, 6, dtype=torch.float64)
    expected = dist.MultivariateNormal(location, scale_tril=factor).log_prob(x)
    torch.testing.assert_close(base.base.log_prob(x), expected)
    assert base.base.transforms[0].inv(base.base.transforms[0](x)).sub(x).abs().max() < 1e-9


def test_is_rebuilt_from_its_description_and_its_weights():
    flow = EquivariantFlow(OrbitFlow(ACTION, steps=2, width=4), [GActNorm(ACTION)])
    randomize_(flow, scale=0.5)
    again = EquivariantFlow.from_config(flow.config())
    again.load_state_dict(flow.state_dict())
    x = torch.randn(5, 6)
    assert torch.equal(again(x), flow(x)) and torch.equal(copy.deepcopy(flow)(x), flow(x))


def test_bad_input_says_what_was_expected():
    with pytest.raises(TypeError, match="expected a VectorAction .* got ImageAction"):
        OrbitFlow(ImageAction("C4", size=2))
    with pytest.raises(ValueError, match="infinitely many elements"):
        OrbitFlow(VectorAction.plane("O(2)"))
    with pytest.raises(ValueError, match="a vector of one component cannot be split .* OrbitMixture"):
        OrbitFlow(VectorAction.signs(1))


@pytest.mark.long
def test_a_guide_for_a_mixture_is_trained_and_exactly_invariant():
    """Label switching: a mode is found at the start, and no relabeling changes the trained density."""
    pyro.set_rng_seed(0)
    data = mixture_data(torch.float64)
    guide = AutoGFlow(
        mixture, LABELS, args=(data,), base=lambda action: OrbitFlow(action, steps=2, width=8), check="raise"
    )
    report = fit_energy(
        guide.flow,
        guide.log_density(data),
        settings=FitSettings(steps=20, batch_size=32, optimizer=Adam(lr=5e-3)),
        progress=False,
    )
    assert report.reverse_kl < 1.0
    z = guide.flow.dist.sample((100,)).clone()
    images = torch.stack([guide.flow(guide.vector_action.act(g, z)) for g in LABELS.elements()])
    assert (images - images[0]).abs().max() < 1e-10
    means = guide.orbit_representative({"means": guide._values(z)["means"]})["means"]
    assert (means.mean(0) - torch.tensor([-3.0, 0.0, 3.0])).abs().max() < 0.5


MEANS = SitesAction("S3", {"means": VectorAction.rows("S3")})


def placed_guide():
    return AutoGFlow(scaled_sum, MEANS, base=lambda action: OrbitFlow(action, steps=2, width=4), check="skip")


def scaled_sum():
    means = pyro.sample("means", dist.Normal(torch.zeros(3, dtype=torch.float64), 5.0).to_event(1))
    pyro.sample("x", dist.Normal(means.square().sum(-1), 1.0), obs=torch.tensor(80.0, dtype=torch.float64))


def events_and_scores(flow):
    z = 3.0 + torch.randn(20, 3, dtype=torch.float64)
    return z, flow.dist.log_prob(z).detach()


@pytest.mark.long
def test_the_identity_behind_a_placed_base_is_not_set_from_data():
    """A scale there would move the base away from the mode at which it was placed."""
    flow = placed_guide().flow
    z, before = events_and_scores(flow)
    flow.initialize(10 * z)
    torch.testing.assert_close(flow.dist.log_prob(z), before)


@pytest.mark.long
def test_a_saved_flow_of_a_guide_is_not_set_from_data(tmp_path):
    flow = placed_guide().flow
    z, before = events_and_scores(flow)
    save(flow, tmp_path)
    loaded = load(tmp_path)
    with leaving_alone_what_is_set(loaded):
        loaded.initialize(10 * z)
    torch.testing.assert_close(loaded.dist.log_prob(z), before)


@pytest.mark.long
def test_weights_of_a_guide_from_before_it_was_known_what_is_set():
    guide, other = placed_guide(), placed_guide()
    state = {name: value for name, value in guide.state_dict().items() if not name.endswith("initialized")}
    other.load_state_dict(state)
    z, before = events_and_scores(guide.flow)
    torch.testing.assert_close(other.flow.dist.log_prob(z), before)
