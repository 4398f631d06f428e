"""A sequential placement: invariant, normalized, exact against its own sampling map, and finite at close particles."""

import copy
import math

import pytest
import torch

from pyro_gflows.actions import ParticleAction
from pyro_gflows.distributions import SequentialPlacement
from pyro_gflows.distributions.particle_order import in_frame
from pyro_gflows.evaluation import energy_report
from pyro_gflows.nn.placement_grids import Coarser, PlacementGrids
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.targets import DoubleWell
from pyro_gflows.testing import randomize_
from pyro_gflows.training import Adam, FitSettings, fit_energy

SMALL = PlacementGrids(radii=9, angles=24, ring=16, polar=9, cosines=4)
SIZES = [(3, 2), (4, 2), (5, 2), (3, 3), (4, 3), (5, 3)]


def placement(n, d, **options):
    torch.manual_seed(0)
    density = SequentialPlacement(ParticleAction(n, d), shortest=0.3, longest=4.0, grids=SMALL, width=4, **options)
    randomize_(density.module.double(), scale=0.05, generator=torch.Generator().manual_seed(1))
    for network in (density.module.ahead.hidden, density.module.ahead.out):
        randomize_(network, scale=1.0, generator=torch.Generator().manual_seed(2))
    return density


def configurations(n, d, count=4):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, n, d, generator=generator, dtype=torch.float64)
    return x - x.mean(1, keepdim=True)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_it_is_invariant_under_rotations_reflections_permutations_and_translations(n, d):
    density, x = placement(n, d), configurations(n, d)
    score = density.log_prob(x)
    mirror = torch.ones(d, dtype=torch.float64)
    mirror[0] = -1
    shifted = x + 5.0
    for image in (
        density.action.act_each(density.action.sample((len(x),)), x),
        x * mirror,
        x.flip(1),
        shifted - shifted.mean(1, keepdim=True),
    ):
        torch.testing.assert_close(density.log_prob(image), score, rtol=0, atol=1e-10)
    assert score.unique().numel() == len(x)


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_the_score_is_the_jacobian_of_the_sampling_map(n, d):
    """Uniform variables and Euler angles make a draw of the density around the first particle; its order is known."""
    density = placement(n, d).around_first
    uniforms = torch.rand(n - 1, d, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    # those that count: a radius for each, one direction fewer, and in space one azimuth fewer still
    counts = torch.ones(n - 1, d, dtype=torch.bool)
    counts[0, 1:] = False
    if d == 3:
        counts[1, 2] = False
    turns = torch.tensor([0.3, 0.4, 0.2][: 1 if d == 2 else 3], dtype=torch.float64)

    def draw(variables):
        u = uniforms.clone()
        u[counts] = variables[len(turns) :]
        x = density.in_frame(u[None])[0]
        return density.action.to_coordinates(x @ rotation(variables[: len(turns)], d))

    variables = torch.cat([turns, uniforms[counts]])
    jacobian = torch.autograd.functional.jacobian(draw, variables)
    assert jacobian.shape == ((n - 1) * d, (n - 1) * d)
    x = density.action.from_coordinates(draw(variables))
    expected = -torch.linalg.slogdet(jacobian)[1] - math.lgamma(n)  # the others come in any of (n - 1)! orders
    torch.testing.assert_close(density.log_prob(x), expected, rtol=0, atol=1e-8)


def rotation(variables, d):
    """A uniform rotation, as a function of uniform variables."""
    angles = 2 * math.pi * variables
    if d == 2:
        c, s = angles[0].cos(), angles[0].sin()
        return torch.stack([torch.stack([c, s]), torch.stack([-s, c])])
    cosine = 2 * variables[1] - 1

    def about(axis, c, s):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        matrix = torch.zeros(3, 3, dtype=torch.float64)
        matrix[axis, axis] = 1.0
        rows = torch.tensor([i, i, j, j]), torch.tensor([i, j, i, j])
        return matrix.index_put(rows, torch.stack([c, -s, s, c]))

    middle = about(1, cosine, (1 - cosine.square()).sqrt())
    return about(2, angles[0].cos(), angles[0].sin()) @ middle @ about(2, angles[2].cos(), angles[2].sin())


def test_it_is_the_mean_over_the_centers():
    density = placement(4, 2)
    x = configurations(4, 2)
    scores = [density.around_first.log_prob(x.roll(k, 1)) for k in range(4)]
    torch.testing.assert_close(density.log_prob(x), torch.stack(scores).logsumexp(0) - math.log(4), rtol=0, atol=1e-12)


def test_it_integrates_to_one():
    """In the plane, three particles have two distances from the center and an angle; the density jumps at r1 = r2."""
    density = placement(3, 2).around_first
    s = (torch.arange(24, dtype=torch.float64) + 0.5) / 24
    angle = 2 * math.pi * (torch.arange(36, dtype=torch.float64) + 0.5) / 36
    s1, s2, a = torch.meshgrid(s, s, angle, indexing="ij")
    r1 = 3 * s1 / (1 - s1)
    r2 = r1 + 3 * s2 / (1 - s2)
    others = torch.stack([torch.stack([r1, 0 * a], -1), torch.stack([r2 * a.cos(), r2 * a.sin()], -1)], -2)
    x = torch.cat([torch.zeros_like(others[..., :1, :]), others], -2).flatten(0, 2)
    with torch.no_grad():
        scores = density.log_prob(x - x.mean(1, keepdim=True)).view_as(a)
    slopes = 9 / (1 - s1).square() / (1 - s2).square() / 24**2
    volume = 2 * math.pi * r1 * r2 * slopes * (2 * math.pi / 36) / 3  # orthonormal coordinates
    assert float((2 * scores.exp() * volume).sum()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("n", "d"), [(4, 2), (4, 3)])
def test_draws_follow_the_density(n, d):
    """The mean of p1/p over draws of p is 1 for any density p1 with the same support, here one with other weights."""
    density, other = placement(n, d), placement(n, d)
    randomize_(other.module.pair, scale=0.02, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(1)
    with torch.no_grad():
        x = density.sample((2000,))
        ratio = (other.log_prob(x) - density.log_prob(x)).exp()
    assert ratio.std() > 0.05
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(len(x))


def test_paths_of_draws_have_the_gradient_of_finite_differences():
    density = placement(4, 3)
    u = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    weights = list(density.module.parameters())
    directions = [
        torch.randn(w.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64) for w in weights
    ]
    gradients = torch.autograd.grad(density.in_frame(u).square()[..., 1].sum(), weights, allow_unused=True)
    slope = sum((g * v).sum() for g, v in zip(gradients, directions, strict=True) if g is not None)

    def value(step):
        moved = copy.deepcopy(density)
        with torch.no_grad():
            for weight, v in zip(moved.module.parameters(), directions, strict=True):
                weight.add_(step * v)
            return moved.in_frame(u).square()[..., 1].sum()

    torch.testing.assert_close(slope, (value(1e-6) - value(-1e-6)) / 2e-6, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("distance", [1e-3, 0.0])
def test_scores_and_gradients_are_finite_at_close_particles(d, distance):
    density = placement(4, d)
    x = configurations(4, d)
    x[:, 1] = x[:, 0]
    x[:, 1, 0] += distance
    x = (x - x.mean(1, keepdim=True)).requires_grad_()
    score = density.log_prob(x)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    assert score.isfinite().all() and gradient.isfinite().all()


def test_particles_on_a_line_have_finite_scores():
    density = placement(4, 3)
    x = torch.zeros(1, 4, 3, dtype=torch.float64)
    x[0, :, 2] = torch.tensor([-1.5, -0.5, 0.5, 1.5])
    assert density.log_prob(x).isfinite().all()


def test_it_is_rebuilt_from_its_description():
    density = placement(4, 2)
    x = configurations(4, 2)
    for each in (density, density.around_first, density.most_central(2), density.around_first.most_central(1)):
        twin = build(describe(each))
        twin.module.double().load_state_dict(each.module.state_dict())
        assert torch.equal(twin.log_prob(x), each.log_prob(x)) and repr(twin) == repr(each)
    assert density.around_first.module is density.module
    assert density.expand((3,)).sample((2,)).shape == (2, 3, 4, 2)


def test_it_starts_at_an_energy_of_pairs():
    """The last of three particles then has its exact density, up to the grid: a ratio of scores at fixed r1."""
    density = SequentialPlacement(ParticleAction(3, 2), shortest=1.0, longest=9.0)
    density.module.double()
    target = DoubleWell(3)
    density.start_at(target.pair_energy)
    first = torch.tensor([2.6, 0.0], dtype=torch.float64)
    last = torch.tensor([[5.0, 1.0], [-2.6, 0.8], [2.0, 5.2], [-1.0, 5.0]], dtype=torch.float64)
    x = torch.stack([torch.zeros_like(last), first.expand_as(last), last], 1)
    x = x - x.mean(1, keepdim=True)
    difference = density.around_first.log_prob(x).detach() + target.energy(x)
    assert target.energy(x).std() > 1 and difference.std() < 0.05


def test_a_coarser_grid_is_exact_for_cubic_functions():
    points = torch.linspace(-1, 1, 17, dtype=torch.float64)
    coarser = Coarser.interval(17, 4)
    torch.testing.assert_close(coarser(coarser.some(points, 0) ** 3, 0), points**3)
    circle = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    around = Coarser.circle(32, 2)
    torch.testing.assert_close(around(around.some(circle.sin(), 0), 0), circle.sin(), atol=1e-3, rtol=0)


def test_a_frame_is_orthonormal():
    y = configurations(5, 3)[:, 1:]
    lengths, units = in_frame(y)
    frame = lengths[..., None] * units
    torch.testing.assert_close(frame @ frame.mT, y @ y.mT)
    assert (units[:, 0, 2] > 0.999999).all() and units[:, 1, 1].abs().max() < 1e-12 and (units[:, 1, 0] > 0).all()


@pytest.mark.parametrize(
    ("action", "distances", "message"),
    [
        (ParticleAction(2, 3), (1.0, 2.0), "n >= 3"),
        (ParticleAction((2, 2), 3), (1.0, 2.0), "species"),
        (ParticleAction(4, 3, center="free"), (1.0, 2.0), "mean-free"),
        (ParticleAction(4, 3), (2.0, 1.0), "0 < shortest < longest"),
    ],
)
def test_what_it_refuses(action, distances, message):
    with pytest.raises(ValueError, match=message):
        SequentialPlacement(action, shortest=distances[0], longest=distances[1])
    with pytest.raises(TypeError, match="ParticleAction"):
        SequentialPlacement(action.rows, shortest=0.1, longest=1.0)
    with pytest.raises(ValueError, match="multiple of 4"):
        PlacementGrids(ring=30)
    with pytest.raises(ValueError, match="positive number of centers"):
        SequentialPlacement(ParticleAction(3, 2), shortest=0.1, longest=1.0, centers=0)


@pytest.mark.parametrize(("n", "d"), [(4, 2), (5, 3)])
def test_the_sum_over_central_particles_is_a_bound(n, d):
    density, x = placement(n, d), configurations(n, d)
    whole = density.log_prob(x)
    bounds = torch.stack([density.most_central(count).log_prob(x) for count in range(1, n + 1)])
    assert (bounds.diff(dim=0) > 0).all()  # every particle has a term
    torch.testing.assert_close(bounds[-1], whole, rtol=0, atol=1e-12)
    nearest = x.norm(dim=-1).argmin(1)
    first = torch.stack(
        [row[[c, *(k for k in range(n) if k != c)]] for row, c in zip(x, nearest.tolist(), strict=True)]
    )
    one = density.around_first.log_prob(first) - math.log(n)
    torch.testing.assert_close(bounds[0], one, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="positive number of centers"):
        density.most_central(0)


def test_training_by_energy_raises_the_sample_size_and_stays_above_the_floor():
    """Of three particles, by the public tools; the mean log-weight never exceeds the log of the mean weight."""
    target, grids = DoubleWell(3), PlacementGrids(radii=17, angles=24, ring=64)
    torch.manual_seed(0)
    density = SequentialPlacement(target.action, shortest=1.0, longest=9.0, width=4, grids=grids)
    before = energy_report(density, target.log_density, draws=500)
    density.start_at(target.pair_energy)
    fit_energy(
        density.around_first,
        target.softened(above=50.0),
        settings=FitSettings(steps=60, batch_size=48, seed=0, optimizer=Adam(lr=2e-2)),
        progress=False,
    )
    after = energy_report(density, target.log_density, draws=500)
    assert before.ess < 0.1 and after.ess > 0.8 and after.reverse_kl > -1e-3


def test_the_same_weights_on_other_grids():
    """Weights are copies; on the same grids the density is the same, and finer grids change it little but do."""
    density, x = placement(4, 3), configurations(4, 3)
    same = density.on_grids(SMALL)
    torch.testing.assert_close(same.log_prob(x), density.log_prob(x), rtol=0, atol=1e-12)
    finer = density.on_grids(PlacementGrids(radii=33, angles=48, ring=64, polar=81, cosines=8))
    difference = (finer.log_prob(x) - density.log_prob(x)).abs()
    assert (difference > 1e-6).any() and difference.max() < 0.5
    with torch.no_grad():
        next(same.module.parameters())[:3] += 1.0
    assert not torch.allclose(same.log_prob(x), density.log_prob(x))


def test_other_grids_keep_all_else():
    density, x = placement(4, 3), configurations(4, 3)
    density.module.eval().pair.requires_grad_(False)
    for each in (density.around_first, density.most_central(2)):
        same = each.on_grids(SMALL)
        torch.testing.assert_close(same.log_prob(x), each.log_prob(x), rtol=0, atol=1e-12)
        assert repr(same) == repr(each) and not same.module.training
        assert not same.module.pair.coefficients.requires_grad and same.module.ahead.out.weight.requires_grad
    assert density.expand((2,)).on_grids(SMALL).batch_shape == (2,)


@pytest.mark.parametrize("angle", [1e-3, 1e-6, 1e-7, 3e-8, 0.0])
def test_neighbors_almost_on_a_line_have_the_same_score_in_all_rotations(angle):
    """In single precision, where rounding is as large as the angle: a frame is orthonormal all the same."""
    torch.manual_seed(0)
    y = torch.tensor([[0.0, 0.0, 1.0], [math.sin(angle), 0.0, 1.2 * math.cos(angle)], [0.3, 1.5, -0.4]])
    rotations = torch.linalg.qr(torch.randn(50, 3, 3, dtype=torch.float64)).Q
    images = (y.double() @ rotations.mT).float()
    lengths, units = in_frame(images)
    found = (lengths[..., None] * units).double()
    torch.testing.assert_close(found @ found.mT, (y @ y.mT).double().expand(50, -1, -1), rtol=0, atol=2e-6)
    density = placement(4, 3)
    density.module.float()
    x = torch.cat([torch.zeros(50, 1, 3), images], 1)
    scores = density.log_prob(x - x.mean(1, keepdim=True))
    assert scores.max() - scores.min() < 0.02  # of the grid of azimuths, where the frame has no second axis


def test_what_is_no_number_stays_none():
    """Scores of NaN, and draws of weights that are NaN, as after a step that was too long: no index error."""
    density, x = placement(4, 3), configurations(4, 3)
    x[1] = math.nan
    density._validate_args = False
    scores = density.log_prob(x)
    assert scores[1].isnan() and scores[[0, 2, 3]].isfinite().all()
    with torch.no_grad():
        density.module.pair.coefficients.fill_(math.nan)
    assert density.sample((5,)).isnan().any() and density.log_prob(configurations(4, 3)).isnan().all()
