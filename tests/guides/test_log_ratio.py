"""Simplex sites in log-ratio coordinates."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch.distributions import biject_to

from pyro_gflows.guides.log_ratio import IsometricLogRatio, LogRatioReparam, log_ratio_basis
from pyro_gflows.testing import assert_bijective


@pytest.mark.parametrize("categories", [2, 3, 5])
def test_is_a_bijection_onto_the_simplex_with_the_density_of_its_first_coordinates(categories):
    transform = IsometricLogRatio()
    y = 2 * torch.randn(4, categories - 1, dtype=torch.float64)
    x = transform(y)
    assert transform.codomain.check(x).all() and transform.forward_shape(y.shape) == x.shape
    assert transform.inverse_shape(x.shape) == y.shape
    assert_bijective(transform, y, y=x)
    jacobians = torch.stack([torch.autograd.functional.jacobian(transform, row)[:-1] for row in y])
    torch.testing.assert_close(transform.log_abs_det_jacobian(y, x), torch.linalg.slogdet(jacobians).logabsdet)


def test_permutations_of_the_categories_are_orthogonal_maps():
    transform, basis = IsometricLogRatio(), log_ratio_basis(4)
    y = torch.randn(5, 3, dtype=torch.float64)
    for permutation in itertools.permutations(range(4)):
        matrix = basis[:, list(permutation)] @ basis.T
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
        image = transform.inv(transform(y)[:, list(permutation)])
        torch.testing.assert_close(image, y @ (basis @ basis[:, list(permutation)].T).T)


def test_values_near_the_border_stay_finite():
    transform = IsometricLogRatio()
    y = torch.tensor([300.0, -200.0], requires_grad=True)
    x = transform(y)
    ladj = transform.log_abs_det_jacobian(y, x)
    ladj.backward()
    assert torch.isfinite(ladj) and torch.isfinite(y.grad).all() and torch.isfinite(transform.inv(x)).all()


def model():
    weights = pyro.sample("weights", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0])))
    with pyro.plate("rows", 2):
        rows = pyro.sample("rows_weights", dist.Dirichlet(torch.ones(2, 3)))
    both = pyro.sample("both", dist.Dirichlet(torch.ones(2, 3)).to_event(1))
    return weights, rows, both


SITES = ["weights", "rows_weights", "both"]


def test_the_handler_changes_coordinates_and_nothing_else():
    changed = poutine.reparam(model, config={name: LogRatioReparam() for name in SITES})
    before = poutine.trace(model).get_trace()
    after = poutine.trace(poutine.condition(changed, {name: before.nodes[name]["value"] for name in SITES})).get_trace()
    torch.testing.assert_close(after.log_prob_sum(), before.log_prob_sum())
    drawn = poutine.trace(changed).get_trace()
    for name in SITES:
        old, new = before.nodes[name]["fn"], drawn.nodes[name]["fn"]
        assert (new.batch_shape, new.event_shape, new.event_dim) == (old.batch_shape, old.event_shape, old.event_dim)
        assert drawn.nodes[name]["value"].shape == before.nodes[name]["value"].shape
        assert biject_to(new.support).inv(drawn.nodes[name]["value"]).shape[-1] == 2
    assert biject_to(drawn.nodes["weights"]["fn"].support)(torch.zeros(2)).shape == (3,)
    assert Predictive(changed, num_samples=4, parallel=True)()["rows_weights"].shape == (4, 2, 3)


def test_densities_in_its_coordinates_have_mass_1_and_the_same_mean():
    """What HMC and guides work with: the density of the site times the Jacobian."""
    transform, density = IsometricLogRatio(), dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64))
    step = 0.05
    axis = torch.arange(-12, 12, step, dtype=torch.float64)
    y = torch.cartesian_prod(axis, axis)
    x = transform(y)
    mass = (density.log_prob(x) + transform.log_abs_det_jacobian(y, x)).exp() * step**2
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close((mass[:, None] * x).sum(0), density.mean, rtol=0, atol=1e-6)


def test_other_supports_are_refused():
    def positive():
        pyro.sample("scale", dist.Gamma(1.0, 1.0))

    with pytest.raises(ValueError, match=r"site 'scale': log-ratios are for sites on the simplex, .* got Gamma"):
        poutine.reparam(positive, config={"scale": LogRatioReparam()})()
