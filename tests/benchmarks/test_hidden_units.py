"""The benchmark of hidden units: the log-joint is the model's, sums over the group agree, every guide runs."""

import pytest
import torch

pytest.importorskip("sklearn", reason="pip install 'pyro-gflows[data]'")
from benchmarks import hidden_units
from benchmarks.bayesian_networks import Network
from benchmarks.posterior_guides import Fitted, canonicalized_flow, plain_flow
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.guides.default_flow import identity_transforms

NETWORK = Network("few", 5, ("bmi", "s5"), rows=12)
SMALL = Network("smaller", 2, ("bmi", "s5"), rows=12)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_written_out_log_joint_is_that_of_the_model():
    arguments = NETWORK.data()[0]
    guide = AutoGFlow(
        NETWORK.model,
        NETWORK.sites,
        args=arguments,
        check="raise",
        base=InvariantNormal,
        transforms=identity_transforms,
    )
    assert guide.vector_action == NETWORK.action
    z, log_density = NETWORK.prior_draws(4), NETWORK.log_density()
    torch.testing.assert_close(log_density(z), guide.log_density(*arguments)(z))
    torch.testing.assert_close(log_density(NETWORK.random_images(z)), log_density(z))
    torch.testing.assert_close(log_density(NETWORK.near_images(z)[:, 1]), log_density(z)[1].expand(15))
    assert len(NETWORK.near_images(z)) == 10 + 5


def test_test_data_are_not_among_the_training_data():
    (x, _), (x_test, y_test) = Network("all", 3).data()
    assert len(x) == 342 and len(x_test) == len(y_test) == 100
    assert not (x[:, None] == x_test).all(-1).any()


def test_the_predictive_density_is_the_mean_over_draws():
    z = NETWORK.prior_draws(3)
    _, (x, y) = NETWORK.data()
    values = NETWORK.values(z)
    hidden = (torch.einsum("nhf,rf->nrh", values["in"], x) + values["bias"][:, None]).tanh()
    mean = torch.einsum("nrh,nh->nr", hidden, values["out"]) + values["offset"][:, None]
    density = torch.distributions.Normal(mean, values["noise"][:, None]).log_prob(y).exp().mean(0)
    torch.testing.assert_close(NETWORK.log_predictive(z), density.log())
    torch.testing.assert_close(NETWORK.log_predictive(NETWORK.random_images(z)), density.log())
    torch.testing.assert_close(NETWORK.unconstrained(values), z)


def test_sums_over_the_group():
    factor = 0.3 * torch.eye(SMALL.numel, dtype=torch.float64)
    fitted = Fitted(plain_flow(SMALL.prior_draws(1)[0], factor, steps=2).dist, {})
    z = fitted.draw(200)[0]
    assert SMALL.all_images(z).shape == (8, *z.shape)
    whole = torch.stack([fitted.log_prob(images) for images in SMALL.all_images(z)]).logsumexp(0) - SMALL.log_order
    joint = SMALL.log_density()
    bound = float((joint(z) - whole).mean())
    torch.manual_seed(1)
    found = hidden_units.symmetrized_bound(fitted, SMALL, draws=5000)
    assert found == pytest.approx(bound, abs=4 * float((joint(z) - whole).std()) / 200**0.5)
    gain = float((fitted.log_prob(z) - whole).mean())
    assert hidden_units.largest_gain(fitted, SMALL, draws=200) >= gain - 0.05


def test_the_invariant_guide_has_equal_scores_for_all_images():
    z, factor = NETWORK.prior_draws(1)[0], 0.1 * torch.eye(NETWORK.numel, dtype=torch.float64)
    fitted = Fitted(canonicalized_flow(NETWORK.action, z, factor, steps=2).dist, {})
    z, scores = fitted.draw(50)
    torch.testing.assert_close(fitted.log_prob(NETWORK.random_images(z)), scores)


@pytest.mark.long
@pytest.mark.parametrize("guide", hidden_units.GUIDES)
def test_every_guide_runs_and_the_table_has_its_row(guide):
    row = hidden_units.Row("h3", guide)
    figures = hidden_units.run(row, seed=0, quick=True)
    own = hidden_units.BENCHMARK
    table = own.table(own.rows, [{**own.labels(row, 0), **figures}])
    assert f"| 3 | {guide} |" in table
    assert ("mean over all elements" in table) == (guide == "plain flow")
