"""Internal coordinates: invariant, exact against the Jacobian of their sampling map, and symmetrized exactly."""

import copy
import itertools
import math

import pytest
import torch

from pyro_gflows.actions import ParticleAction
from pyro_gflows.flows import InternalCoordinates, symmetrized_internal_coordinates
from pyro_gflows.numerics.contrasts import contrasts
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import randomize_

SIZES = [(3, 2), (4, 2), (3, 3), (4, 3)]


def configurations(n, d, count=4):
    x = torch.randn(count, n, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x - x.mean(1, keepdim=True)


def random_weights(density):
    randomize_(density.module.double(), scale=0.2, generator=torch.Generator().manual_seed(1))
    return density


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_it_is_invariant_under_rotations_but_not_under_other_symmetries(n, d):
    density, x = random_weights(InternalCoordinates(n, d, layers=2, width=4)), configurations(n, d)
    score = density.log_prob(x)
    images = density.action.act_each(density.action.sample((len(x),)), x)
    torch.testing.assert_close(density.log_prob(images), score, rtol=0, atol=1e-10)
    assert (density.log_prob(x.flip(1)) - score).abs().max() > 1e-3
    mirror = torch.ones(d, dtype=torch.float64)
    mirror[0] = -1
    if n > d:  # fewer particles lie in a plane or on a line, where a rotation undoes a reflection
        assert (density.log_prob(x * mirror) - score).abs().max() > 1e-3


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_the_score_is_the_jacobian_of_the_map_from_coordinates_and_rotations(n, d):
    """With angles of the rotation in place of its volume: the density of u times that of the angles."""
    density = random_weights(InternalCoordinates(n, d, layers=1, width=4))
    x = configurations(n, d, 1)
    u, _ = density._coordinates(x)
    angles = torch.tensor([0.3, 0.9, -0.4][: d * (d - 1) // 2], dtype=torch.float64)

    def place(variables):
        turns, u = variables[: len(angles)], variables[len(angles) :]
        first = u[0].exp()
        zero = torch.zeros_like(first)
        known = [first, zero] if d == 2 else [zero, zero, first, u[1].exp(), zero, u[2]]
        vectors = torch.cat([torch.stack(known), u[1 if d == 2 else 3 :]]).view(n - 1, d)
        generators = []
        for i, j in itertools.combinations(range(d), 2):
            matrix = torch.zeros(d, d, dtype=torch.float64)
            matrix[i, j], matrix[j, i] = 1.0, -1.0
            generators.append(matrix)
        if d == 2:
            rotation = torch.linalg.matrix_exp(turns[0] * generators[0])
        else:  # Euler angles, whose uniform density is sin(middle) / (8 pi^2)
            parts = [torch.linalg.matrix_exp(t * generators[k]) for t, k in zip(turns, (0, 1, 0), strict=True)]
            rotation = parts[0] @ parts[1] @ parts[2]
        return (vectors @ rotation).flatten()

    variables = torch.cat([angles, u[0]])
    jacobian = torch.autograd.functional.jacobian(place, variables)
    log_angles = -math.log(2 * math.pi) if d == 2 else math.log(math.sin(0.9) / (8 * math.pi**2))
    expected = density.module.dist.log_prob(u[0]) + log_angles - torch.linalg.slogdet(jacobian)[1]
    vectors = place(variables).view(n - 1, d)
    position = density.action.from_coordinates(density.action.to_coordinates(x))  # Jacobi vectors are isometric
    torch.testing.assert_close(contrasts(position, -2).square().sum(), vectors.square().sum())
    torch.testing.assert_close(density.log_prob(x)[0], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_draws_have_the_coordinates_that_the_flow_drew(n, d):
    density = random_weights(InternalCoordinates(n, d, layers=1, width=4))
    torch.manual_seed(0)
    x = density.rsample((6,))
    torch.manual_seed(0)
    u = density.module.dist.rsample((6,))
    torch.testing.assert_close(density._coordinates(x)[0], u)
    assert x.requires_grad and x.sum(1).abs().max() < 1e-12


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_the_sum_is_invariant_under_everything_and_a_mean(n, d):
    density = random_weights(symmetrized_internal_coordinates(n, d, layers=1, width=4))
    whole, x = ParticleAction(n, d), configurations(n, d)
    score = density.log_prob(x)
    images = whole.act_each(whole.sample((len(x),)), x)
    torch.testing.assert_close(density.log_prob(images), score, rtol=0, atol=1e-10)
    mirror = torch.ones(d, dtype=torch.float64)
    mirror[0] = -1
    terms = [
        density.base.log_prob(x[:, list(order)] * sign)
        for order in itertools.permutations(range(n))
        for sign in (mirror, torch.ones(d, dtype=torch.float64))
    ]
    expected = torch.stack(terms).logsumexp(0) - math.log(len(terms))
    torch.testing.assert_close(score, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("d", [2, 3])
def test_scores_and_gradients_are_finite_at_close_particles(d):
    density = random_weights(symmetrized_internal_coordinates(4, d, layers=1, width=4))
    x = configurations(4, d)
    x[:, 1] = x[:, 0]
    x[:, 1, 0] += 1e-3
    x = (x - x.mean(1, keepdim=True)).requires_grad_()
    score = density.log_prob(x)
    assert score.isfinite().all() and torch.autograd.grad(score.sum(), x)[0].isfinite().all()


def test_it_starts_at_the_scale_of_data_and_is_rebuilt():
    density = InternalCoordinates(4, 2, layers=1, width=4)
    density.module.double()
    x = 5 * configurations(4, 2, 200)
    density.initialize(x)
    u = density.module.transform.inv(density._coordinates(x)[0])
    assert u.mean(0).abs().max() < 1e-6 and (u.std(0) - 1).abs().max() < 0.02
    twin = build(describe(density))
    twin.module.double().load_state_dict(density.module.state_dict())
    assert torch.equal(twin.log_prob(x), density.log_prob(x))
    assert torch.equal(copy.deepcopy(density).log_prob(x), density.log_prob(x))
    assert density.expand((3,)).sample((2,)).shape == (2, 3, 4, 2)


def test_what_is_refused():
    with pytest.raises(ValueError, match="at least 3 particles"):
        InternalCoordinates(2, 2)
    with pytest.raises(ValueError, match="2 or 3 dimensions"):
        InternalCoordinates(3, 4)
    with pytest.raises(ValueError, match="SequentialPlacement"):
        symmetrized_internal_coordinates(6, 2)
