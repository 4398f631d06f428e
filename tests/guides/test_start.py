"""Where guides with separate modes start."""

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import OrbitMixture
from pyro_gflows.guides import AutoGFlow, find_mode
from pyro_gflows.transforms import GActNorm
from tests.guides.models import LABELS, mixture, mixture_data


def test_a_normal_is_found_exactly():
    target = dist.MultivariateNormal(
        torch.tensor([3.0, -1.0], dtype=torch.float64),
        torch.tensor([[2.0, 0.9], [0.9, 0.5]], dtype=torch.float64),
    )
    location, factor = find_mode(target.log_prob, torch.randn(4, 2, dtype=torch.float64), steps=50)
    torch.testing.assert_close(location, target.mean)
    torch.testing.assert_close(factor, target.scale_tril)


@pytest.mark.parametrize(("size", "dtype"), [(140, torch.float64), (140, torch.float32)])
def test_the_covariance_of_many_coordinates_is_found_by_differences_of_gradients(size, dtype):
    generator = torch.Generator().manual_seed(0)
    root = torch.eye(size) + 0.3 * torch.randn(size, size, generator=generator) / size**0.5
    covariance = (root @ root.T).to(dtype)
    target = dist.MultivariateNormal(torch.linspace(-3.0, 3.0, size).to(dtype), covariance)
    location, factor = find_mode(target.log_prob, torch.zeros(2, size, dtype=dtype), steps=40)
    tolerance = 1e-6 if dtype == torch.float64 else 2e-2
    torch.testing.assert_close(location, target.mean, rtol=0, atol=tolerance)
    torch.testing.assert_close(factor, target.scale_tril, rtol=0, atol=tolerance)


class OneByOne:
    """The density of a model that runs once for each point."""

    is_one_by_one = True

    def __call__(self, z):
        return -2.0 * z.square().sum(-1)


def test_where_a_model_runs_once_for_each_point_many_coordinates_are_isotropic():
    _, factor = find_mode(OneByOne(), torch.ones(2, 140), steps=5)
    torch.testing.assert_close(factor, factor[0, 0] * torch.eye(140))


def test_the_mode_with_the_greatest_mass_wins_not_the_highest():
    """A thin peak is 2 nats higher, and holds a thousandth of the mass."""
    torch.manual_seed(0)
    parts = dist.Normal(torch.tensor([[-4.0, -4.0], [4.0, 4.0]]), torch.tensor([[0.01, 0.01], [1.0, 1.0]])).to_event(1)
    target = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.001, 0.999])), parts)
    assert target.log_prob(torch.tensor([-4.0, -4.0])) > target.log_prob(torch.tensor([4.0, 4.0])) + 2
    location, factor = find_mode(target.log_prob, torch.tensor([[-4.0, -4.01], [3.0, 3.0], [2.0, 4.0]]))
    torch.testing.assert_close(location, torch.tensor([4.0, 4.0]), rtol=0, atol=0.01)
    torch.testing.assert_close(factor, torch.eye(2), rtol=0, atol=0.05)


def test_starts_without_a_finite_density_are_skipped_and_named_if_there_is_no_other():
    def half(z):
        return torch.where(z[:, 0] > 0, -0.5 * (z - 1.0).square().sum(-1), -torch.inf)

    location, _ = find_mode(half, torch.tensor([[-1.0, 0.0], [2.0, 2.0]]), steps=100)
    assert (location - 1.0).abs().max() < 0.01
    with pytest.raises(ValueError, match="finite at none of the points"):
        find_mode(half, -torch.ones(3, 2), steps=5)


@pytest.mark.long
def test_a_mixture_of_orbits_starts_at_a_mode_of_the_posterior():
    torch.manual_seed(0)
    data = mixture_data(torch.float64)
    guide = AutoGFlow(mixture, LABELS, args=(data,), base=OrbitMixture, transforms=lambda a: [GActNorm(a)])
    normal = guide.flow.base.base
    z = normal.mean.detach().clone().requires_grad_()
    (slope,) = torch.autograd.grad(guide.log_density(data)(z[None]).sum(), z)
    assert slope.abs().max() < 0.1
    curvature = torch.autograd.functional.hessian(lambda z: -guide.log_density(data)(z[None])[0], z.detach())
    ratio = torch.linalg.eigvals(normal.covariance_matrix.detach() @ curvature).real
    assert ratio.max() / ratio.min() < 1.01  # Laplace's covariance, narrowed perhaps


@pytest.mark.parametrize("covariance", ["isotropic", "isotypic", "full"])
def test_bases_take_a_covariance_so_far_as_they_can(covariance):
    base = OrbitMixture(VectorAction.rows("S3"), covariance=covariance)
    factor = torch.linalg.cholesky(torch.tensor([[2.0, 0.5, 0.1], [0.5, 1.0, -0.2], [0.1, -0.2, 3.0]]))
    base.start_at(torch.tensor([1.0, 2.0, 3.0]), factor)
    torch.testing.assert_close(base.base.mean, torch.tensor([1.0, 2.0, 3.0]))
    expected = {"isotropic": torch.eye(3), "isotypic": 2 * torch.eye(3), "full": factor @ factor.T}[covariance]
    torch.testing.assert_close(base.base.covariance_matrix, expected)
