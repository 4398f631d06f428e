"""ParticleAction: the group, the coordinates, and the bases on configurations, against explicit matrices."""

import itertools
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, InvariantStudentT, ParticleAction, VectorAction
from pyro_gflows.distributions import InvariantUniformBall
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.spaces import Euclidean, MeanFree
from pyro_gflows.testing import assert_invariant, randomize_
from pyro_gflows.transforms import InCoordinates

ACTIONS = {
    "four in the plane": lambda: ParticleAction(4, 2),
    "two species": lambda: ParticleAction((2, 3), 3),
    "three species, one alone": lambda: ParticleAction((2, 1, 2), 2, group="SO(2)"),
    "on a line": lambda: ParticleAction(3, 1),
    "free center": lambda: ParticleAction((2, 2), 2, group="D6", center="free"),
    "no symmetry": lambda: ParticleAction(4, 2).without_symmetry(),
    "own group": lambda: ParticleAction(3, 4, group=VectorAction.signs(4)),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]()


def configurations(action, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, *action.event_shape, dtype=torch.float64, generator=generator)
    return action.space.project(x)


def test_the_coordinates_are_an_isometry_that_commutes_with_the_group(action):
    x, y = configurations(action, 6), configurations(action, 6, seed=1)
    z, w = action.to_coordinates(x), action.to_coordinates(y)
    assert z.shape == (6, action.space.dimension) == (6, action.coordinates.numel)
    torch.testing.assert_close(action.from_coordinates(z), x, rtol=0, atol=1e-12)
    torch.testing.assert_close((z * w).sum(-1), (x * y).sum((-2, -1)), rtol=0, atol=1e-12)
    g = action.sample(6, torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        action.to_coordinates(action.act_each(g, x)), action.coordinates.act_each(g, z), rtol=0, atol=1e-12
    )


def test_only_like_particles_are_exchanged():
    action = ParticleAction((2, 3), 2, group="C1")
    x = configurations(action)
    images = torch.stack([action.act(g, x) for g in action.sample(400, torch.Generator().manual_seed(0))])
    rows = {tuple(map(tuple, image.tolist())) for image in images}
    expected = {
        tuple(map(tuple, x[[*first, *second]].tolist()))
        for first in itertools.permutations(range(2))
        for second in itertools.permutations(range(2, 5))
    }
    assert rows == expected


def test_species_have_a_scale_each_and_centers_a_covariance():
    """Two scales of differences, and a covariance of the two differences of centers: 2 + 3 parameters."""
    base = InvariantNormal(ParticleAction((2, 1, 2), 3), covariance="full")
    assert sum(parameter.numel() for parameter in base.module.parameters()) == 2 + 3
    base.module.double()
    randomize_(base.module, generator=torch.Generator().manual_seed(0))
    covariance = base.covariance_matrix.unflatten(1, (5, 3)).unflatten(0, (5, 3)).transpose(1, 2)
    identity = torch.eye(3, dtype=torch.float64)
    blocks = covariance[..., 0, 0]  # as H acts irreducibly, each block is a multiple of the identity
    torch.testing.assert_close(covariance, blocks[..., None, None] * identity, rtol=0, atol=1e-12)
    torch.testing.assert_close(blocks.sum(-1), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (blocks[0, 0] - blocks[0, 1] - blocks[3, 3] + blocks[3, 4]).abs() > 1e-3


@pytest.mark.parametrize("covariance", ["isotropic", "isotypic", "full"])
@pytest.mark.parametrize("family", [InvariantNormal, InvariantStudentT])
def test_bases_are_invariant_and_have_the_constant_of_the_space(action, family, covariance):
    base = family(action, covariance=covariance)
    base.module.double()
    randomize_(base.module, generator=torch.Generator().manual_seed(3))
    x = configurations(action, 5)
    assert_invariant(base.log_prob, action, x, tol=1e-10)
    draws = base.sample((20_000,))
    assert draws.shape == (20_000, *action.event_shape) and action.space.constraint.check(draws).all()
    if family is InvariantNormal:
        basis = action.space.tangent_basis(x[0])
        dense = torch.distributions.MultivariateNormal(
            torch.zeros(len(basis), dtype=torch.float64), basis @ base.covariance_matrix @ basis.mT
        )
        torch.testing.assert_close(base.log_prob(x), dense.log_prob(x.flatten(1) @ basis.mT), rtol=0, atol=1e-10)
        torch.testing.assert_close(base.entropy(), dense.entropy(), rtol=0, atol=1e-10)
        torch.testing.assert_close(base.variance, draws.var(0), rtol=0.1, atol=0.02)


def test_the_standard_normal_on_mean_free_configurations():
    base = InvariantNormal(ParticleAction(4, 2))
    assert base.log_prob(torch.zeros(4, 2)).item() == pytest.approx(-3 * math.log(2 * math.pi))
    torch.testing.assert_close(base.variance, torch.full((4, 2), 0.75))
    with pytest.raises(ValueError, match="center of mass 0"):
        InvariantNormal(ParticleAction(4, 2), validate_args=True).log_prob(torch.ones(4, 2))


def test_a_ball_is_of_the_dimension_of_the_space():
    base = InvariantUniformBall(ParticleAction(3, 2))
    torch.manual_seed(0)
    draws = base.sample((20_000,))
    assert base.log_prob(draws).isfinite().all()
    volume = math.pi**2 / 2 * 6**2  # of a ball in four dimensions whose radius is the root of 6
    assert base.log_prob(draws[0]).item() == pytest.approx(-math.log(volume), rel=1e-5)
    assert float(draws.square().sum((1, 2)).mean()) == pytest.approx(4.0, rel=0.02)


def test_an_action_of_particles_is_a_value(action):
    again = build(describe(action))
    assert again == action == pickle.loads(pickle.dumps(action)) and hash(again) == hash(action)
    assert isinstance(action.space, Euclidean if action.center == "free" else MeanFree)
    assert "particles in R" in repr(action)


def test_different_actions_differ():
    four = ParticleAction(4, 2)
    for other in (
        ParticleAction(4, 2, group="SO(2)"),
        ParticleAction(4, 2, center="free"),
        ParticleAction((2, 2), 2),
        ParticleAction(4, 3),
    ):
        assert other != four


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((4, 2), {"center": "fixed"}, "center to be one of"),
        ((1, 2), {}, "at least 2 particles"),
        ((4, 0), {}, "positive whole number of dimensions"),
        ((4, 2.0), {}, "positive whole number of dimensions"),
        ((0, 2), {}, "at least one row"),
        ((4, 2), {"group": "O(3)"}, "acts on R\\^2"),
        ((4, 3), {"group": VectorAction.plane("D4")}, "one position in R\\^3"),
        ((4, 5), {}, "'C1'"),
    ],
)
def test_wrong_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        ParticleAction(*arguments, **options)


def test_a_layer_in_coordinates_fits_its_action():
    action = ParticleAction(4, 2)
    with pytest.raises(ValueError, match="expected a layer from RowsAction"):
        InCoordinates(GActNorm(VectorAction.plane("O(2)")), action)
    with pytest.raises(TypeError, match="expected a ParticleAction"):
        InCoordinates(GActNorm(action.coordinates), action.coordinates)
    with pytest.raises(ValueError, match="InCoordinates"):  # the error of a layer for vectors names the way
        GActNorm(action)


def test_a_latent_configuration_in_pyro():
    """A guide of Pyro itself on a latent configuration, which needs the way from R^6 to the space."""
    action = ParticleAction(4, 2)
    flow = EquivariantFlow(InvariantNormal(action), [InCoordinates(GActNorm(action.coordinates), action)])

    def model():
        pyro.module("flow", flow)
        x = pyro.sample("x", flow.dist)
        pyro.sample("spread", dist.Normal(x.square().sum((-2, -1)), 0.5), obs=torch.tensor(9.0))

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    losses = [svi.step() for _ in range(200)]
    assert sum(losses[-20:]) < sum(losses[:20])
    x = guide()["x"]
    assert x.shape == (4, 2) and action.space.constraint.check(x)
