"""Models with minibatches: trained on them, reported on all data."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_gflows import InvariantNormal
from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.evaluation.energies import energy_report
from pyro_gflows.guides import AutoGFlow, find_mode
from pyro_gflows.training import Adam, FitSettings, OwnDraws, fit_energy
from pyro_gflows.transforms import GActNorm

PAIR = SitesAction("S3", {"means": VectorAction.rows("S3")})
X = torch.linspace(-4, 9, 7, dtype=torch.float64)
Y = torch.linspace(0, 3, 5, dtype=torch.float64)


def globals_():
    zero = torch.zeros((), dtype=torch.float64)
    return pyro.sample("means", dist.Normal(zero.expand(3), 3.0).to_event(1))


def one_plate(batch=None):
    means = globals_()
    with pyro.plate("data", len(X), subsample_size=batch, dim=-1) as rows:
        pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=X[rows])


def two_plates(batch=None):
    """Two separate plates and one crossed pair, of odd sizes."""
    means = globals_()
    total = means.sum(-1)
    with pyro.plate("rows", len(X), subsample_size=batch and 3, dim=-2) as i:
        pyro.sample("a", dist.Normal(total, 2.0), obs=X[i, None])
        with pyro.plate("columns", len(Y), subsample_size=batch and 2, dim=-1) as j:
            pyro.sample("ab", dist.Normal(total, 1.0), obs=X[i, None] * Y[j])
    with pyro.plate("columns_alone", len(Y), subsample_size=batch and 2, dim=-1) as j:
        pyro.sample("b", dist.Normal(total, 1.5), obs=Y[j])
    pyro.factor("outside", -means.square().sum(-1))


def a_loop(batch=None):
    """A plate that the model loops over."""
    means = globals_()
    for i in pyro.plate("data", len(X), subsample_size=batch):
        pyro.sample(f"x_{i}", dist.Normal(means.sum(-1), 1.0), obs=X[i])


def not_batched(batch=None):
    """Runs by vmap."""
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.Normal(torch.zeros((), dtype=torch.float64), 3.0))
    with pyro.plate("data", len(X), subsample_size=batch) as rows:
        labels = dist.Categorical(torch.ones(3, dtype=torch.float64))
        pyro.sample("x", dist.MixtureSameFamily(labels, dist.Normal(means, 1.0)), obs=X[rows])


def guide_of(model, *args, **options):
    options = {"transforms": lambda action: [GActNorm(action)], "check": "raise", **options}
    return AutoGFlow(model, PAIR, args=args, **options)


@pytest.mark.filterwarnings("ignore:the model does not run inside one additional plate")
@pytest.mark.parametrize("batch", [2, 3, 6])
@pytest.mark.parametrize("model", [one_plate, two_plates, a_loop, not_batched])
@pytest.mark.long
def test_all_minibatches_together_are_the_model_without_them(model, batch):
    whole = guide_of(model, None).log_density(None)
    part = guide_of(model, batch).log_density(batch)
    z = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(part.on_full_plates(z), whole(z), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(whole.on_full_plates(z), whole(z))
    assert torch.equal(part.on_full_plates(z), part.on_full_plates(z))
    calls = torch.stack([part(z) for _ in range(300)])
    assert calls.std(0).min() > 1e-3
    assert ((calls.mean(0) - whole(z)).abs() < 5 * calls.std(0) / math.sqrt(300)).all()
    # one minibatch for all rows of a call
    assert torch.unique((calls - calls.mean(0))[:, 0]).numel() > 1
    same = part(z[:1].expand(4, 3))
    torch.testing.assert_close(same, same[:1].expand(4))


def test_the_log_det_of_constrained_sites_counts_once():
    def positive(batch=None):
        with pyro.plate("components", 3, dim=-1):
            scales = pyro.sample("means", dist.LogNormal(torch.zeros((), dtype=torch.float64), 1.0))
        with pyro.plate("data", len(X), subsample_size=batch, dim=-1) as rows:
            pyro.sample("x", dist.Normal(0.0, scales.sum(-1, keepdim=True)), obs=X[rows])

    z = torch.randn(5, 3, dtype=torch.float64)
    scales = z.exp()
    expected = dist.LogNormal(0.0, 1.0).log_prob(scales).sum(-1) + z.sum(-1)
    expected = expected + dist.Normal(0.0, scales.sum(-1, keepdim=True)).log_prob(X).sum(-1)
    torch.testing.assert_close(guide_of(positive, 3).log_density(3).on_full_plates(z), expected)


def evidence():
    """X is normal with mean 0 and covariance 27 + 1 on the diagonal, 27 off it."""
    ones = torch.ones(len(X), len(X), dtype=torch.float64)
    covariance = 27 * ones + torch.eye(len(X), dtype=torch.float64)
    return float(dist.MultivariateNormal(torch.zeros_like(X), covariance).log_prob(X))


@pytest.mark.long
def test_the_report_of_a_fit_is_that_of_all_data():
    torch.manual_seed(0)
    base = lambda action: InvariantNormal(action, covariance="isotypic", mean=True)  # noqa: E731  (the posterior's own)
    guide = guide_of(one_plate, 2, base=base)
    settings = FitSettings(steps=150, batch_size=64, optimizer=Adam(lr=0.05))
    report = fit_energy(guide.flow, guide.log_density(2), settings=settings, progress=False)
    assert report.noise == 0 and report.log_normalizer == pytest.approx(evidence(), abs=0.5), report
    again = energy_report(guide.flow, guide.log_density(2))
    assert again.log_normalizer == pytest.approx(report.log_normalizer, abs=1e-9)


def test_a_random_log_density_gets_no_figures():
    guide = guide_of(one_plate, 2)
    energy = guide.log_density(2)
    with pytest.warns(UserWarning, match="no report: log_density changes by .* nats from call to call"):
        report = energy_report(guide.flow, lambda z: energy(z))
    assert report.noise > 1 and math.isnan(report.log_normalizer) and math.isnan(report.ess)
    assert not report.importance.is_reliable and str(report).startswith("no report: log_density changes by")


@pytest.mark.long
def test_the_mode_is_that_of_all_data():
    torch.manual_seed(0)
    target = guide_of(one_plate, 2).log_density(2)
    location, factor = find_mode(target, torch.randn(8, 3, dtype=torch.float64))
    precision = torch.eye(3, dtype=torch.float64) / 9 + len(X)
    mode = torch.linalg.solve(precision, X.sum().expand(3))
    torch.testing.assert_close(location, mode, rtol=0, atol=1e-4)
    torch.testing.assert_close(factor @ factor.T, torch.linalg.inv(precision), rtol=0, atol=1e-6)


def test_importance_weights_of_own_draws_see_all_data():
    guide = guide_of(one_plate, 2)
    draws = OwnDraws(guide.flow, guide.log_density(2), pool=400)
    whole = OwnDraws(guide.flow, guide_of(one_plate, None).log_density(None), pool=400)
    powers = []
    for sampler in (draws, whole):
        torch.manual_seed(0)
        sampler(10, torch.Generator().manual_seed(0))
        powers.append(sampler.power)
    assert powers[0] == pytest.approx(powers[1], rel=1e-6)


def test_sites_of_the_guide_in_a_minibatch_have_no_log_joint():
    def local():
        means = globals_()
        with pyro.plate("data", len(X), subsample_size=2) as rows:
            own = pyro.sample("own", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            pyro.sample("x", dist.Normal(own + means.sum(-1), 1.0), obs=X[rows])

    guide = guide_of(local, check="skip")
    with pytest.raises(ValueError, match="site 'own' is inside a minibatch of plate 'data'"):
        guide.log_density()
