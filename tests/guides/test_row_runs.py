"""Models that do not run in one additional plate: the same values by vmap, or for one vector after the other."""

import copy
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.nn import PyroModule, PyroSample
from pyro.ops.indexing import Vindex
from torch import nn

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.distributions import OrbitMixture
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow, LogRatioReparam, find_mode
from pyro_gflows.guides.minibatch import Minibatch
from pyro_gflows.guides.row_runs import ByVmap, InAPlate, OneByOne
from pyro_gflows.training import FitSettings, fit_energy
from pyro_gflows.transforms import GActNorm
from tests.guides.models import FACTORS, LABELS, factor_data, factor_model, mixture, mixture_data

ROWS = VectorAction.rows("S3")
X = torch.tensor([-2.1, 0.3, 2.4, 2.0, -1.7], dtype=torch.float64)
ZERO = torch.zeros((), dtype=torch.float64)
ONES = torch.ones(3, dtype=torch.float64)
NOTE = "ignore:(the model does not run inside one additional plate|the discrete sites)"


def plain(x):
    """The mixture as tutorials write it: components in a plate, data in another."""
    weights = pyro.sample("weights", dist.Dirichlet(ONES))
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.Normal(ZERO, 2.0))
        scales = pyro.sample("scales", dist.LogNormal(ZERO, 0.3))
    with pyro.plate("data", len(x)):
        components = dist.Normal(means, scales)
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), components), obs=x)


def enumerated(x, index=lambda means, label: means[label]):
    """The same with its labels as sites."""
    weights = pyro.sample("weights", dist.Dirichlet(ONES))
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.Normal(ZERO, 2.0))
        scales = pyro.sample("scales", dist.LogNormal(ZERO, 0.3))
    with pyro.plate("data", len(x)):
        label = pyro.sample("label", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(index(means, label), index(scales, label)), obs=x)


def enumerated_well(x):
    enumerated(x, lambda means, label: Vindex(means)[..., label])


def unmarked(x):
    weights = pyro.sample("weights", dist.Dirichlet(ONES))
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.Normal(ZERO, 2.0))
        scales = pyro.sample("scales", dist.LogNormal(ZERO, 0.3))
    with pyro.plate("data", len(x)):
        label = pyro.sample("label", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(means[label], scales[label]), obs=x)


def in_log_ratios(model):
    return poutine.reparam(model, config={"weights": LogRatioReparam()})


def normal(location, scale):
    return torch.distributions.Normal(location, torch.as_tensor(scale, dtype=torch.float64))


def mixture_by_hand(guide, z, x):
    """log p and log-det of each row, from torch's own distributions."""
    total = []
    for row in z:
        parts = {site["name"]: (site, free) for site, free in guide._unpack_latent(row)}
        weights = torch.distributions.biject_to(parts["weights"][0]["fn"].support)
        value = weights(parts["weights"][1])
        means, log_scales = parts["means"][1], parts["scales"][1]
        density = torch.distributions.Dirichlet(ONES).log_prob(value) + weights.log_abs_det_jacobian(
            parts["weights"][1], value
        )
        density = density + normal(0.0, 2.0).log_prob(means).sum()
        density = density + normal(0.0, 0.3).log_prob(log_scales).sum()
        each = normal(means, log_scales.exp()).log_prob(x[:, None]) + value.log()
        total.append(density + each.logsumexp(-1).sum())
    return torch.stack(total)


MIXTURES = {
    "components in a plate": (in_log_ratios(plain), None),
    "enumerated": (poutine.block(in_log_ratios(enumerated), hide=["label"]), in_log_ratios(enumerated)),
    "enumerated, Vindex": (poutine.block(in_log_ratios(enumerated_well), hide=["label"]), in_log_ratios(enumerated)),
    "config_enumerate": (
        poutine.block(in_log_ratios(unmarked), hide=["label"]),
        config_enumerate(in_log_ratios(unmarked)),
    ),
}


def guide_of(model, action, *args, **options):
    return AutoGFlow(model, action, args=args, **{"transforms": lambda a: [GActNorm(a)], "check": "raise", **options})


@pytest.mark.filterwarnings(NOTE)
@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.long
def test_mixtures_have_the_density_written_out_by_hand(name, count):
    model, joint = MIXTURES[name]
    x = X[:count]
    guide = guide_of(model, LABELS, x, joint=joint)
    energy = guide.log_density(x)
    for rows in (0, 1, 3, 4):
        z = torch.randn(rows, guide.latent_dim, dtype=torch.float64)
        expected = mixture_by_hand(guide, z, x) if rows else torch.zeros(0, dtype=torch.float64)
        torch.testing.assert_close(energy(z), expected, rtol=1e-9, atol=1e-9)  # also where shapes fit by chance


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.long
def test_one_note_says_what_it_costs(name):
    model, joint = MIXTURES[name]
    guide = guide_of(model, LABELS, X, joint=joint)
    with pytest.warns(UserWarning, match=r"is evaluated by torch.func.vmap, which costs") as notes:
        guide.log_density(X)
    assert len(notes) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guide.log_density(X)
        copy.deepcopy(guide).log_density(X)


@pytest.mark.long
@pytest.mark.filterwarnings(NOTE)
def test_an_orbit_flow_starts_at_a_mode_of_them_and_trains():
    torch.manual_seed(0)
    model, joint = MIXTURES["components in a plate"]
    guide = guide_of(model, LABELS, X, joint=joint, base=lambda a: OrbitFlow(a, steps=2, width=8))
    energy = guide.log_density(X)
    center = guide.flow.base._placed.center.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(center[None]).sum(), center)
    assert slope.abs().max() < 0.1
    report = fit_energy(guide.flow, energy, settings=FitSettings(steps=5, batch_size=16), progress=False)
    assert report.reverse_kl < 4.0


@pytest.mark.long
@pytest.mark.filterwarnings(NOTE)
@pytest.mark.parametrize("name", ["components in a plate", "enumerated"])
def test_find_mode_climbs_to_a_mode_of_them(name):
    torch.manual_seed(0)
    model, joint = MIXTURES[name]
    guide = guide_of(model, LABELS, X, joint=joint)
    starts = torch.randn(4, guide.latent_dim, dtype=torch.float64)
    location, _ = find_mode(guide.log_density(X), starts, steps=100)
    location.requires_grad_()
    (slope,) = torch.autograd.grad(mixture_by_hand(guide, location[None], X).sum(), location)
    assert slope.abs().max() < 0.1


class Network(PyroModule):
    """A Bayesian network with one hidden layer, as Pyro's tutorial writes it."""

    def __init__(self):
        super().__init__()
        self.one, self.two = PyroModule[nn.Linear](2, 3), PyroModule[nn.Linear](3, 1)
        for name, shape in (("one", (3, 2)), ("two", (1, 3))):
            layer = getattr(self, name)
            layer.weight = PyroSample(dist.Normal(ZERO, 1.0).expand(shape).to_event(2))
            layer.bias = PyroSample(dist.Normal(ZERO, 1.0).expand(shape[:1]).to_event(1))

    def forward(self, x, y=None):
        mean = self.two(torch.tanh(self.one(x))).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.3), obs=y)
        return mean


UNITS = SitesAction("S3", {"one.weight": VectorAction.rows("S3", features=2), "one.bias": ROWS, "two.weight": ROWS})


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 3])
def test_a_bayesian_network_of_pyro_modules(count):
    torch.manual_seed(0)
    x = torch.randn(count, 2, dtype=torch.float64)
    y = x[:, 0].sin()
    guide = guide_of(Network(), UNITS, x, y)
    with pytest.warns(UserWarning, match="does not run inside one additional plate"):
        energy = guide.log_density(x, y)
    z = torch.randn(4, guide.latent_dim, dtype=torch.float64)
    expected = []
    for row in z:
        values = {site["name"]: free for site, free in guide._unpack_latent(row)}
        hidden = torch.tanh(x @ values["one.weight"].T + values["one.bias"])
        mean = (hidden @ values["two.weight"].T + values["two.bias"])[:, 0]
        likelihood = normal(mean, 0.3).log_prob(y).sum()
        expected.append(likelihood + normal(0.0, 1.0).log_prob(row).sum())
    torch.testing.assert_close(energy(z), torch.stack(expected))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        started = guide_of(Network(), UNITS, x, y, base=OrbitMixture, check="skip")
    assert energy(started.flow.base.sample((50,))).mean() > energy(guide.flow.dist.sample((50,))).mean()


@pytest.mark.parametrize(
    ("model", "action", "data"), [(mixture, LABELS, mixture_data()), (factor_model, FACTORS, factor_data())]
)
def test_all_ways_agree_where_all_work_and_the_cheapest_is_chosen(model, action, data):
    data = data.double()
    guide = guide_of(model, action, data)
    energy = guide.log_density(data)
    assert energy.note == "" and isinstance(energy._ways[0], InAPlate)
    z = torch.randn(6, guide.latent_dim, dtype=torch.float64, requires_grad=True)
    results = []
    for way in (InAPlate, ByVmap, OneByOne):
        values = way(guide, energy._joint)(z, Minibatch())
        results.append((values, torch.autograd.grad(values.sum(), z)[0]))
    for values, slope in results[1:]:
        torch.testing.assert_close(values, results[0][0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(slope, results[0][1], rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings(NOTE)
@pytest.mark.long
def test_discrete_sites_of_a_chain_are_summed_out():
    """A hidden Markov model, against the sum over all its paths."""
    transition = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], dtype=torch.float64)

    def chain(x):
        with pyro.plate("components", 3):
            means = pyro.sample("means", dist.Normal(ZERO, 2.0))
        state = None
        for t in pyro.markov(range(len(x))):
            chances = ONES / 3 if state is None else Vindex(transition)[state]
            state = pyro.sample(f"z{t}", dist.Categorical(chances), infer={"enumerate": "parallel"})
            pyro.sample(f"x{t}", dist.Normal(means[state], 1.0), obs=x[t])

    x = X[:3]
    seen = poutine.block(chain, hide=["z0", "z1", "z2"])
    guide = guide_of(seen, SitesAction("S3", {"means": ROWS}), x, joint=chain)
    z = torch.randn(4, 3, dtype=torch.float64)
    paths = torch.cartesian_prod(*[torch.arange(3)] * 3)
    chance = (transition[paths[:, 0], paths[:, 1]] * transition[paths[:, 1], paths[:, 2]] / 3).log()
    each = normal(z[:, paths], 1.0).log_prob(x).sum(-1) + chance
    expected = each.logsumexp(-1) + normal(0.0, 2.0).log_prob(z).sum(-1)
    torch.testing.assert_close(guide.log_density(x)(z), expected)


def test_discrete_sites_beside_minibatches_are_refused():
    def batched(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            label = pyro.sample("label", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(means[label], 1.0), obs=x[rows])

    guide = AutoGFlow(
        poutine.block(batched, hide=["label"]),
        SitesAction("S3", {"means": ROWS}),
        args=(X,),
        joint=batched,
        check="skip",
    )
    with pytest.raises(ValueError, match=r"discrete sites \['label'\] cannot be summed out together with minibatches"):
        guide.log_density(X)


def test_a_way_that_fails_for_other_numbers_of_rows_gives_way():
    def picky(x):
        means = pyro.sample("means", dist.Normal(ZERO.expand(3), 2.0).to_event(1))
        if means.shape[:-1].numel() > 6:
            raise RuntimeError("too many")
        pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=x)

    x = torch.tensor(1.0, dtype=torch.float64)
    guide = guide_of(picky, SitesAction("S3", {"means": ROWS}), x)
    energy = guide.log_density(x)
    z = torch.randn(12, 3, dtype=torch.float64)
    with pytest.warns(UserWarning, match="RuntimeError for 12 rows"):
        values = energy(z)
    expected = normal(0.0, 2.0).log_prob(z).sum(-1) + normal(z.sum(-1), 1.0).log_prob(x)
    torch.testing.assert_close(values, expected)


def test_an_error_of_the_model_itself_is_its_own():
    def broken(x):
        pyro.sample("means", dist.Normal(ZERO.expand(3), 2.0).to_event(1))
        raise ZeroDivisionError("the model's own")

    def later(x):
        means = pyro.sample("means", dist.Normal(ZERO.expand(3), 2.0).to_event(1))
        if bool((means > 100).any()):
            raise ZeroDivisionError("the model's own")
        pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=x)

    action = SitesAction("S3", {"means": ROWS})
    with pytest.raises(ZeroDivisionError, match="the model's own"):
        guide_of(broken, action, ZERO)
    guide = guide_of(later, action, ZERO)
    with pytest.raises(ZeroDivisionError, match="the model's own"):
        guide.log_density(ZERO)(torch.full((2, 3), 101.0, dtype=torch.float64))
