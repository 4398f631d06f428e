"""Log-joints that are -inf at some points: hard constraints and least distances."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.distributions import OrbitMixture
from pyro_gflows.evaluation.energies import energy_report
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow, find_mode, log_joint_invariance
from pyro_gflows.guides.row_check import alike, finite_rows
from pyro_gflows.training import FitDiverged, FitSettings, OwnDraws, fit, fit_energy
from pyro_gflows.transforms import GActNorm

ROWS = VectorAction.rows("S3")
PAIR = SitesAction("S3", {"means": ROWS})
INF = math.inf


def prior():
    zero = torch.zeros((), dtype=torch.float64)
    return pyro.sample("means", dist.Normal(zero.expand(3), 2.0).to_event(1))


def apart(means):
    gaps = (means[..., :, None] - means[..., None, :]).abs() + 100 * torch.eye(3)
    return gaps.amin((-1, -2)) > 1.0


def least_distance():
    means = prior()
    pyro.factor("apart", torch.where(apart(means), 0.0, -INF))
    pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=torch.tensor(2.0, dtype=torch.float64))


def logs_of_truth_values():
    means = prior()
    pyro.factor("apart", apart(means).to(means.dtype).log())
    pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=torch.tensor(2.0, dtype=torch.float64))


def unvalidated_support():
    means = prior()
    width = 1.0 + means.square().sum(-1)
    pyro.sample("x", dist.Uniform(0.0, width, validate_args=False), obs=torch.tensor(6.0, dtype=torch.float64))


def validated_support():
    """The same; Pyro's validation would raise for data outside of the interval."""
    means = prior()
    pyro.sample("x", dist.Uniform(0.0, 1.0 + means.square().sum(-1)), obs=torch.tensor(6.0, dtype=torch.float64))


def shifted_exponential():
    """Without validation its log-probability is a number for any data."""
    means = prior()
    delay = torch.tensor(1.5, dtype=torch.float64) - means.square().sum(-1)
    pyro.sample("x", dist.Exponential(torch.ones((), dtype=torch.float64)), obs=delay)


def shifted_in_plates():
    """As above, where only vmap will do."""
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.Normal(torch.zeros((), dtype=torch.float64), 2.0))
    with pyro.plate("data", 2):
        delay = torch.tensor([1.5, 30.0], dtype=torch.float64) - means.square().sum()
        pyro.sample("x", dist.Exponential(torch.ones((), dtype=torch.float64)), obs=delay)


def branching():
    """Runs for one vector at a time only."""
    means = prior()
    if not bool(apart(means).all()):
        pyro.factor("apart", torch.tensor(-INF, dtype=torch.float64))
    pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=torch.tensor(2.0, dtype=torch.float64))


SUPPORTS = [unvalidated_support, validated_support, shifted_exponential, shifted_in_plates]


def normal(location, scale):
    return torch.distributions.Normal(location, torch.tensor(scale, dtype=torch.float64))


def by_hand(model, z):
    density = normal(0.0, 2.0).log_prob(z).sum(-1)
    if model in (shifted_exponential, shifted_in_plates):
        delay = 1.5 - z.square().sum(-1)
        last = 28.5 + delay if model is shifted_in_plates else 0.0
        return density + torch.where(delay > 0.0, -delay - last, -INF)
    if model in (unvalidated_support, validated_support):
        width = 1.0 + z.square().sum(-1)
        return density + torch.where(width > 6.0, -width.log(), -INF)
    density = density + normal(z.sum(-1), 1.0).log_prob(torch.tensor(2.0))
    return torch.where(apart(z), density, -INF)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "base"),
    [(least_distance, OrbitFlow), (logs_of_truth_values, OrbitMixture), (validated_support, OrbitMixture)],
)
def test_guides_start_where_there_is_density(model, base):
    torch.manual_seed(0)
    guide = AutoGFlow(model, PAIR, base=base, check="raise", transforms=lambda action: [GActNorm(action)])
    z = 2.0 * torch.randn(50, 3, dtype=torch.float64)
    expected = by_hand(model, z)
    assert expected.isinf().any() and expected.isfinite().any()
    torch.testing.assert_close(guide.log_density()(z), expected)
    draws = guide.flow.base.sample((500,))
    assert (by_hand(model, draws) > -INF).double().mean() > 0.3


@pytest.mark.filterwarnings("ignore:the model does not run inside one additional plate")
@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("model", SUPPORTS)
def test_data_outside_of_a_support_have_no_density(model, validation):
    with pyro.validation_enabled(validation):
        guide = AutoGFlow(model, PAIR, check="raise", transforms=lambda action: [GActNorm(action)])
        z = 1.2 * torch.randn(30, 3, dtype=torch.float64)
        expected = by_hand(model, z)
        assert expected.isinf().any() and expected.isfinite().any()
        torch.testing.assert_close(guide.log_density()(z), expected)


@pytest.mark.parametrize("inside", [False, True])
def test_missing_data_may_be_anything(inside):
    seen = torch.tensor([True, False])
    data = torch.tensor([2.0, -1.0], dtype=torch.float64)

    def missing():
        means = prior()
        rate = dist.Exponential(means.exp().sum(-1))
        with pyro.plate("data", 2, dim=-1):
            if inside:
                pyro.sample("x", rate.mask(seen), obs=data)
            else:
                with poutine.mask(mask=seen):
                    pyro.sample("x", rate, obs=data)

    with pyro.validation_enabled(False):
        guide = AutoGFlow(missing, PAIR, check="raise", transforms=lambda action: [GActNorm(action)])
        z = torch.randn(4, 3, dtype=torch.float64)
        rates = z.exp().sum(-1)
        expected = normal(0.0, 2.0).log_prob(z).sum(-1) + rates.log() - 2.0 * rates
        torch.testing.assert_close(guide.log_density()(z), expected)


def test_other_errors_of_validation_are_not_swallowed():
    def wrong():
        means = prior()
        pyro.sample("x", dist.Normal(means.sum(-1), -1.0), obs=torch.tensor(0.0))

    with pytest.raises(ValueError, match="scale"):
        AutoGFlow(wrong, PAIR, transforms=lambda action: [GActNorm(action)])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:transform.parts.0.* was not registered")  # the frozen identity after an OrbitFlow
@pytest.mark.parametrize("model", [least_distance, validated_support])
def test_own_draws_fit_them(model):
    torch.manual_seed(0)
    guide = AutoGFlow(model, PAIR, base=lambda a: OrbitFlow(a, steps=2, width=8), check="raise")
    guide.flow.eval()
    energy = guide.log_density()
    before = energy_report(guide.flow, energy, draws=4000).ess
    settings = FitSettings(steps=150, batch_size=256)
    fit(guide.flow, OwnDraws(guide.flow, energy, pool=2000), settings=settings, progress=False)
    report = energy_report(guide.flow, energy, draws=4000)
    assert report.noise == 0 and report.ess > max(before, 0.3)
    # the evidence, from a million draws of the prior
    draws = 2.0 * torch.randn(1_000_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    likelihood = by_hand(model, draws) - normal(0.0, 2.0).log_prob(draws).sum(-1)
    evidence = float(likelihood.logsumexp(0)) - math.log(len(draws))
    assert report.log_normalizer == pytest.approx(evidence, abs=0.15)


def test_a_reverse_divergence_says_what_to_do():
    torch.manual_seed(0)
    guide = AutoGFlow(least_distance, PAIR, check="skip", transforms=lambda action: [GActNorm(action)])
    with pytest.raises(FitDiverged, match=r"-inf at some draws .*OwnDraws"):
        fit_energy(guide.flow, guide.log_density(), settings=FitSettings(steps=2), progress=False)


def test_a_model_that_branches_runs_row_by_row():
    guide = AutoGFlow(branching, PAIR, check="raise", transforms=lambda action: [GActNorm(action)])
    with pytest.warns(UserWarning, match="one by one"):
        energy = guide.log_density()
    z = 2.0 * torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(energy(z), by_hand(branching, z))


def test_equal_values_are_alike_infinities_included():
    def values(*numbers):
        return torch.tensor(numbers, dtype=torch.float64)

    assert alike(values(1.0, -INF, INF), values(1.0, -INF, INF)) and alike(values(-INF), values(-INF))
    assert alike(values(math.nan, 1.0), values(math.nan, 1.0))
    assert not alike(values(1.0, -INF), values(2.0, -INF))  # one infinity does not excuse the others
    assert not alike(values(-INF), values(INF)) and not alike(values(-INF), values(0.0))
    assert not alike(values(0.0, 1.0), values(0.0))


def test_rows_are_looked_for_where_the_density_is_finite():
    def ring(z):
        radius = z.norm(dim=-1)
        return torch.where((radius > 1.5) & (radius < 4.0), -radius, -INF)

    rows = finite_rows(ring, torch.zeros(3, dtype=torch.float64), 4)
    assert ring(rows).isfinite().any() and rows.shape == (4, 3)

    def thin(z):
        return torch.where((z - 1.0).norm(dim=-1) < 0.01, 0.0, -INF)

    assert thin(finite_rows(thin, torch.ones(3, dtype=torch.float64))).isfinite().all()


@pytest.mark.long
def test_the_check_says_where_it_compared_nothing():
    def nowhere():
        means = prior()
        pyro.factor("never", torch.where(means.sum(-1) > 1e6, 0.0, -INF))

    report = log_joint_invariance(nowhere, PAIR, [{"means": torch.randn(3)}])
    assert not report.is_invariant and "-inf" in str(report) and "init_loc_fn" in str(report)
    with pytest.warns(UserWarning, match="could not be checked .*-inf.*init_loc_fn="):
        AutoGFlow(nowhere, PAIR)
    with pytest.raises(ValueError, match="finite at none of the points.*init_loc_fn="):
        AutoGFlow(nowhere, PAIR, check="skip", base=OrbitFlow)


def test_the_best_normal_is_that_of_the_restricted_bound():
    """A half-normal: most of the narrow normal at its edge is outside, and the wide mode holds the mass."""
    torch.manual_seed(0)

    def target(z):
        narrow = torch.where(z[:, 0] < -4.0, 1e3 * (z[:, 0] + 4.0), -INF) + 1.0
        wide = torch.where(z[:, 0] > 0.0, -0.5 * (z[:, 0] - 1.0).square(), -INF) + 4.0
        return torch.logaddexp(narrow, wide) - 0.5 * z[:, 1].square()

    starts = torch.tensor([[-4.01, 0.0], [2.0, 0.5]], dtype=torch.float64)
    location, factor = find_mode(target, starts, steps=150)
    torch.testing.assert_close(location, torch.tensor([1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-2)
    assert 0.2 < factor[0, 0] < 1.5
