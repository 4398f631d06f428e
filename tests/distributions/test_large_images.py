"""Invariant normals on images that are too large for a dense basis, against the normal of their dense covariance."""

import copy
import pickle

import pytest
import torch
from torch.distributions import MultivariateNormal

from pyro_gflows.actions import ImageAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_invariant, randomize_

ACTIONS = {
    "D4": lambda: ImageAction("D4", 1, size=24),
    "C2, regular": lambda: ImageAction("C2", 1, size=(16, 18), fields="regular"),
    "shifts": lambda: ImageAction.translations(1, size=(24, 23)),
    "shifts by 2": lambda: ImageAction.translations(2, size=(16, 18), step=2),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]()


def random_normal(action):
    base = InvariantNormal(action, covariance="isotypic", mean=True)
    base.module.double()
    randomize_(base.module, scale=0.3, generator=torch.Generator().manual_seed(0))
    return base


def events_of(action, *batch):
    return torch.randn(*batch, *action.event_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_log_prob_is_that_of_the_dense_covariance(action):
    base, x = random_normal(action), events_of(action, 3)
    scales = base.module.factor.log_scale.detach()
    rows = [isotype.dense_basis().flatten(0, 1) for isotype in action.decomposition]
    covariance = sum(torch.exp(2 * s) * row.T @ row for s, row in zip(scales, rows, strict=True))
    mean = base.module.mean.coordinates.detach() @ rows[0]
    expected = MultivariateNormal(mean, covariance).log_prob(x.flatten(1))
    torch.testing.assert_close(base.log_prob(x), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(base.covariance_matrix, covariance, rtol=0, atol=1e-12)
    torch.testing.assert_close(base.mean.flatten(), mean, rtol=0, atol=1e-12)


def test_is_invariant_and_draws_what_it_scores(action):
    base = random_normal(action)
    assert_invariant(base, action, events_of(action, 2))
    torch.manual_seed(0)
    z = torch.randn(4, action.numel, dtype=torch.float64)
    torch.manual_seed(0)
    drawn = base.rsample((4,))
    log_det = base.module.factor.log_det()
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - log_det
    torch.testing.assert_close(base.log_prob(drawn), expected, rtol=1e-11, atol=0)


def test_every_scale_and_the_mean_have_gradients(action):
    base = random_normal(action)
    base.log_prob(events_of(action, 2)).sum().backward()
    for parameter in base.module.parameters():
        assert parameter.grad.abs().min() > 0


def test_scales_match_a_covariance(action):
    base, other = random_normal(action), random_normal(action)
    with torch.no_grad():
        other.module.factor.log_scale.zero_()
    other.module.factor.match_(base.covariance_matrix.detach())
    torch.testing.assert_close(other.module.factor.log_scale, base.module.factor.log_scale, rtol=0, atol=1e-11)


def test_what_is_saved_is_one_number_for_each_component_and_mean(action):
    base = random_normal(action)
    x = events_of(action, 2)
    expected = base.log_prob(x)
    state = base.module.state_dict()
    assert set(state) == {"factor.log_scale", "mean.coordinates"}
    fresh = build(describe(base))
    fresh.module.double().load_state_dict(state)
    for twin in (fresh, copy.deepcopy(base), pickle.loads(pickle.dumps(base))):
        torch.testing.assert_close(twin.log_prob(x), expected, rtol=1e-13, atol=0)


def test_every_covariance_asks_for_a_smaller_event():
    with pytest.raises(ValueError, match="at most 512 coordinates"):
        InvariantNormal(ImageAction("D4", 3, size=32), covariance="full")


def test_colored_images_of_32_pixels_score_in_a_moment():
    base = InvariantNormal(ImageAction("D4", 3, size=32), covariance="isotypic", mean=True)
    assert base.log_prob(torch.zeros(8, 3, 32, 32)).shape == (8,)
