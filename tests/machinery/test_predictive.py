"""Predictive draws in parallel what it draws one by one.

(A site with event dimensions beside a plate cannot be drawn in parallel with any automatic guide of Pyro 1.9.2, whose
Predictive then takes an event dimension for the plate's: here the data are one event.)
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive

from pyro_gflows import SitesAction, VectorAction
from pyro_gflows.guides import AutoGFlow
from tests.machinery.conjugate import X, make_guide, model
from tests.machinery.models import small


def plated(x):
    """Its latent site is in a plate of components, which the group permutes."""
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.Normal(torch.zeros((), dtype=torch.float64), 2.0))
    pyro.sample("x", dist.Normal(means.sum(-1, keepdim=True).expand(*means.shape[:-1], 1), 1.0).to_event(1), obs=x[:1])


def guide_of_plated():
    return AutoGFlow(plated, SitesAction("S3", {"means": VectorAction.rows("S3")}), args=(X,), transforms=small)


@pytest.mark.parametrize(
    ("target", "guide", "sites"),
    [(model, lambda: make_guide(exact=True), {"rows": 3, "x": 6}), (plated, guide_of_plated, {"means": 3, "x": 1})],
    ids=["an event", "a plate"],
)
def test_shapes(target, guide, sites):
    guide = guide()
    for parallel in (False, True):
        draws = Predictive(target, guide=guide, num_samples=5, parallel=parallel)(X)
        moving = {name: value for name, value in draws.items() if name in sites}
        assert {name: value.reshape(5, -1).shape[1] for name, value in moving.items()} == sites
        drawn = next(name for name in sites if name != "x")
        assert len(draws[drawn].unique()) == 5 * sites[drawn]


def unseen():
    """The model, which now draws its data."""
    poutine.uncondition(model)(X)


@pytest.mark.long
def test_values_in_law():
    """Means, squares and products of the sites and of the data, within 4 standard errors."""
    guide = make_guide(exact=False)
    figures = []
    for parallel, count in ((False, 300), (True, 3000)):
        draws = Predictive(unseen, guide=guide, num_samples=count, parallel=parallel)()
        rows, x = draws["rows"].reshape(count, 3), draws["x"].reshape(count, len(X))
        both = torch.cat([rows, x, rows.square(), x.square(), rows * rows.roll(1, -1), x * rows[:, :1]], -1)
        figures.append((both.mean(0), both.var(0) / count))
    (first, first_error), (second, second_error) = figures
    assert ((first - second).abs() < 4 * (first_error + second_error).sqrt()).all()
