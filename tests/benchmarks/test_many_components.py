"""The benchmark of mixtures in the plane: the written-out log-joint is the model's, and every guide runs."""

import pytest
import torch

pytest.importorskip("sklearn", reason="pip install 'pyro-gflows[data]'")
from benchmarks import many_components
from benchmarks.planar_mixtures import PlanarMixture
from benchmarks.posterior_guides import Fitted, canonicalized_flow, plain_flow
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.guides.default_flow import identity_transforms

MIXTURE = PlanarMixture("few", 7, 4.0, points=3)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_the_written_out_log_joint_is_that_of_the_model():
    x = MIXTURE.data()
    guide = AutoGFlow(
        MIXTURE.model, MIXTURE.sites, args=(x,), check="raise", base=InvariantNormal, transforms=identity_transforms
    )
    assert guide.vector_action == MIXTURE.action
    z = MIXTURE.prior_draws(4)
    log_density = MIXTURE.log_density(x)
    torch.testing.assert_close(log_density(z), guide.log_density(x)(z))
    torch.testing.assert_close(log_density(MIXTURE.relabeled(z)), log_density(z))


@pytest.mark.long
def test_the_hand_written_gradients_of_the_log_likelihood():
    z, log_likelihood = MIXTURE.prior_draws(2).requires_grad_(), MIXTURE.log_likelihood(MIXTURE.data()[:4])
    assert torch.autograd.gradcheck(log_likelihood, z)
    assert torch.autograd.gradgradcheck(log_likelihood, z)


def test_forms_and_figures_do_not_depend_on_the_labels():
    z = MIXTURE.prior_draws(5)
    image = MIXTURE.relabeled(z)
    assert not torch.allclose(image, z)
    for form in (MIXTURE.canonical, MIXTURE.matched, MIXTURE.label_free):
        torch.testing.assert_close(form(image), form(z))


def test_only_the_invariant_guide_has_equal_scores_for_all_images():
    z, factor = MIXTURE.prior_draws(1)[0], 0.1 * torch.eye(MIXTURE.numel, dtype=torch.float64)
    flows = [canonicalized_flow(MIXTURE.action, z, factor, steps=2), plain_flow(z, factor, steps=2)]
    changes = [
        many_components.asymmetry(fitted, MIXTURE, fitted.draw(10)[0], elements=100)
        for fitted in (Fitted(flow.dist, {}) for flow in flows)
    ]
    assert changes[0] < 1e-9 and changes[1] > 1


def test_doubled_variances_are_wider_canonical_forms():
    center = MIXTURE.join(torch.zeros(7), MIXTURE.truth()[0], torch.zeros(7)).double()
    z = MIXTURE.relabeled(center + 0.01 * torch.randn(1000, MIXTURE.numel, dtype=torch.float64))
    ratio = many_components.widened(MIXTURE, z).var(0) / MIXTURE.canonical(z).var(0)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0), rtol=0.01, atol=0)


@pytest.mark.long
@pytest.mark.parametrize("guide", [guide for guide in many_components.GUIDES if guide != "OrbitFlow"])
def test_every_guide_runs_and_the_table_has_its_row(guide):
    row = many_components.Row("k5-separated", guide)
    figures = many_components.run(row, seed=0, quick=True)
    own = many_components.BENCHMARK
    table = own.table([row], [{**own.labels(row, 0), **figures}])
    assert f"| k5-separated | {guide} | 1 |" in table and "reported only" in table
    assert ("c2st_doubled" in figures) == (guide == "Canonicalized")
