"""The benchmark of particles: its continuous flows are exact, its figures are right, and none is below its floor."""

import dataclasses
import itertools
import json
import math

import pytest
import torch

pytest.importorskip("scipy", reason="pip install 'pyro-gflows[bench]'")
from benchmarks.harness import Store, main
from benchmarks.particles import benchmark, grids, timing
from benchmarks.particles.benchmark import BENCHMARK, ROWS, run
from benchmarks.particles.clock import Clock
from benchmarks.particles.cnf import ContinuousTransform, GraphField, RadialField
from benchmarks.particles.continuous import graph_cnf, radial_cnf
from benchmarks.particles.measure import BelowFloor, Model, check_floors, forward_ess, measure, own_weights
from benchmarks.particles.problems import Problem
from benchmarks.particles.table import table
from benchmarks.particles.training import ByLikelihood, FlowMatching, OnFinerGrids, aligned
from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, ParticleAction
from pyro_gflows.flows import g_augmented_particle_flow, g_placement_flow
from pyro_gflows.nn.placement_grids import PlacementGrids
from pyro_gflows.targets import DoubleWell, ParticleEnergy
from pyro_gflows.transforms import InCoordinates


def radial(n, d):
    return RadialField(n, d, reach=4.0, centers=12, times=4)


def graph(n, d):
    return GraphField(n, d, width=8, layers=2)


FIELDS = pytest.mark.parametrize("make", [radial, graph])


def random_field(make, n, d):
    torch.manual_seed(0)
    field = make(n, d).double()
    for weight in field.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return field


def configurations(action, rows, scale=1.0):
    x = torch.randn(rows, action.n, action.d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return action.space.project(scale * x)


def dense(map_of, x, action):
    """The Jacobian of a map of configurations at one of them, in the tangent basis."""
    jacobian = torch.autograd.functional.jacobian(map_of, x).reshape(x.numel(), x.numel())
    basis = action.space.tangent_basis(x)
    return basis @ jacobian @ basis.mT


def harmonic(*, log_z=0.0, floor=0.0):
    """A normal density of three particles in the plane; its constants may be changed by some nats."""
    target = ParticleEnergy(ParticleAction(3, 2), lambda x: x.square().sum((-2, -1)) / 2)
    target.log_z = 2 * math.log(2 * math.pi) + log_z
    target.floor = target.log_z + 2 + floor
    return target


def normal_flow(scale=1.0):
    action = ParticleAction(3, 2)
    layer = GActNorm(action.coordinates)
    torch.nn.init.constant_(layer.log_scale, math.log(scale))
    return EquivariantFlow(InvariantNormal(action), [InCoordinates(layer, action)])


# -- continuous flows -------------------------------------------------------------------------------------------------
@FIELDS
@pytest.mark.parametrize(("n", "d"), [(3, 2), (4, 3)])
def test_a_divergence_is_the_trace_of_the_dense_jacobian(make, n, d):
    action, field, t = ParticleAction(n, d), random_field(make, n, d), torch.tensor(0.3, dtype=torch.float64)
    x = configurations(action, 3)
    with torch.no_grad():
        velocity, divergence = field.velocity_and_divergence(t, x)
    assert velocity.mean(1).abs().max() < 1e-14
    for one, found in zip(x, divergence, strict=True):
        trace = dense(lambda y: field(t, y[None])[0], one, action).trace()
        assert abs(float(trace - found)) < 1e-10 * max(1.0, abs(float(trace)))


@FIELDS
def test_a_velocity_is_equivariant(make):
    action, field = ParticleAction(4, 3), random_field(make, 4, 3)
    x, t = configurations(action, 5), torch.tensor(0.6, dtype=torch.float64)
    g = action.sample((5,), generator=torch.Generator().manual_seed(2))
    assert (field(t, action.act_each(g, x)) - action.act_each(g, field(t, x))).abs().max() < 1e-12


@FIELDS
def test_the_log_det_of_a_continuous_flow_is_that_of_its_map(make):
    pytest.importorskip("torchdiffeq")
    action = ParticleAction(3, 2)
    layer = ContinuousTransform(random_field(make, 3, 2), action, scale=1.7, tolerance=1e-8).eval()
    x = configurations(action, 2)
    with torch.no_grad():
        y, ladj = layer.call_and_ladj(x)
        back, inverse = layer.inv_call_and_ladj(y)
        coarse = ContinuousTransform(layer.field, action, scale=1.7, tolerance=1e-5).eval().inv_call_and_ladj(y)[1]
    assert (back - x).abs().max() < 1e-5 and (inverse + ladj).abs().max() < 1e-5
    assert 0 < (coarse - inverse).abs().max() < 1e-3
    expected = dense(lambda z: layer(z[None])[0], x[0], action).slogdet()[1]
    assert abs(float(expected - ladj[0])) < 1e-5 and abs(float(expected)) > 0.5


@pytest.mark.parametrize("make", [radial_cnf, graph_cnf])
def test_a_continuous_density_has_the_mass_one(make):
    pytest.importorskip("torchdiffeq")
    target = ParticleEnergy(ParticleAction(2, 1), lambda x: x.square().sum((-2, -1)))
    size = {"centers": 8, "times": 4} if make is radial_cnf else {"width": 8, "layers": 2}
    flow = (
        make(Problem(target, *2 * [configurations(target.action, 50).float()]), tolerance=1e-7, **size).double().eval()
    )
    torch.manual_seed(3)
    for weight in flow.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    z = torch.linspace(-12, 12, 1501, dtype=torch.float64)
    with torch.no_grad():
        density = flow(target.action.from_coordinates(z[:, None])).exp()
    assert abs(float(torch.trapezoid(density, z)) - 1) < 1e-4


def test_aligned_configurations_are_closer():
    action = ParticleAction(5, 3)
    x, y = configurations(action, 20), configurations(action, 40)[20:]
    assert ((aligned(x, y) - y).square().sum((1, 2)) <= (x - y).square().sum((1, 2)) + 1e-12).all()
    assert (aligned(x[:, torch.randperm(5)], x) - x).abs().max() < 1e-12
    assert torch.allclose(torch.cdist(aligned(x, y), aligned(x, y)).sum((1, 2)), torch.cdist(x, x).sum((1, 2)))


# -- figures ----------------------------------------------------------------------------------------------------------
def figures_of(flow, target):
    return measure(Model(flow, at_once=700), target, configurations(target.action, 4000).float(), draws=4000, seed=0)


def test_the_exact_density_has_perfect_figures():
    target = harmonic()
    figures = figures_of(normal_flow(), target)
    assert abs(figures["gap"]) < 1e-5 and figures["gap_error"] < 1e-5
    assert figures["ess"] == pytest.approx(1) and figures["forward_ess"] == pytest.approx(1)
    assert figures["log_z"] == pytest.approx(target.log_z, abs=1e-5)
    assert figures["nll"] == pytest.approx(target.floor, abs=5 * figures["nll_error"])


def test_the_figures_of_a_wider_density_have_closed_forms():
    scale, dimension = 1.2, 4
    figures = figures_of(normal_flow(scale), harmonic())
    gap = dimension * (math.log(scale) + 0.5 / scale**2 - 0.5)
    reverse = dimension * (-math.log(scale) + 0.5 * scale**2 - 0.5)
    ess = (math.sqrt(2 / scale**2 - 1 / scale**4)) ** dimension  # (E_q w)^2 / E_q w^2 with w = p / q
    assert figures["gap"] == pytest.approx(gap, abs=5 * figures["gap_error"])
    assert figures["reverse_kl"] == pytest.approx(reverse, abs=5 * figures["reverse_kl_error"])
    assert figures["ess"] == pytest.approx(ess, abs=0.02) and figures["forward_ess"] == pytest.approx(ess, abs=0.02)


def test_figures_with_auxiliary_vectors_are_those_of_the_joint_density():
    target = harmonic()
    torch.manual_seed(0)
    flow = g_augmented_particle_flow(target.action, layers=2, width=4, depth=1)
    x = configurations(target.action, 100).float()
    figures = measure(Model(flow), target, x, draws=500, seed=0)
    assert figures["bound_draws"] > 0 and figures["gap"] > 0.01 and figures["ess"] < 0.999
    assert figures["log_z"] == pytest.approx(target.log_z, abs=5 * figures["log_z_error"])


def test_a_mode_that_is_missed_shows_in_the_forward_ess():
    weights = torch.zeros(1000, dtype=torch.float64)
    weights[:100] = 20.0
    assert forward_ess(weights) < 1e-6


@pytest.mark.parametrize("change", [{"log_z": 0.2}, {"log_z": -0.2}, {"floor": 0.5}])
def test_a_figure_below_its_floor_is_an_error(change):
    with pytest.raises(BelowFloor, match="no better than that of ParticleEnergy"):
        figures_of(normal_flow(), harmonic(**change))


@pytest.mark.parametrize("name", ["gap", "reverse_kl", "nll", "log_z", "ess", "forward_ess"])
def test_each_floor_is_checked(name):
    target = harmonic()
    figures = figures_of(normal_flow(1.2), target)
    better = {"gap": -1.0, "reverse_kl": -1.0, "nll": 0.0, "log_z": target.log_z + 1, "ess": 1.1, "forward_ess": 1.1}
    check_floors(figures, target)
    for wrong in (better[name], math.nan):
        with pytest.raises(BelowFloor, match=f"expected {name} "):
            check_floors({**figures, name: wrong}, target)


# -- the command ------------------------------------------------------------------------------------------------------
def test_schedules_follow_the_clock():
    now = iter([10.0, 25.0, 40.0, 40.0, 71.0, 71.0])
    clock = Clock(1.0, now=lambda: next(now))
    slope = clock.schedule(lambda done: 1 - done)
    assert slope(0.0) == 0.75 and slope(0.0) == 0.5 and not clock.stop()
    assert 0 < slope(0.0) < 1e-9 and clock.stop(1, {}, None)


def test_rows_have_names_of_their_own():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_run_is_stored_and_in_the_table_whatever_its_minutes(tmp_path):
    row = next(row for row in ROWS if row.target == "dw4" and "plain" in row.name)
    figures = run(row, seed=0, quick=True)
    assert figures["gap"] > 0 and figures["steps"] >= 1
    store, short = Store(tmp_path / "runs.jsonl"), dataclasses.replace(row, minutes=2.0)
    for one, seed in ((row, 0), (row, 1), (short, 0)):
        store.append({**BENCHMARK.labels(one, seed), **figures})
    again = Store(tmp_path / "runs.jsonl")
    assert BENCHMARK.is_done(row, 1, again.runs) and not BENCHMARK.is_done(short, 1, again.runs)
    text = table(ROWS, again.runs)
    assert text == table(ROWS, store.runs) and text.count(f"| {row.design.name} | likelihood |") == 2
    assert f"{figures['gap']:.3f} ± 0.000" in text


def test_a_continuous_flow_is_trained_by_likelihood_and_measured(capsys):
    pytest.importorskip("torchdiffeq")
    main(BENCHMARK, ["--quick", "--target", "dw4", "--design", "radial"])
    assert "| CNF, radial kernel | likelihood | 250 |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_trained_and_measured(row):
    if "CNF" in row.name:
        pytest.importorskip("torchdiffeq")
    figures = run(row, seed=0, quick=True)
    assert figures["steps"] >= 1 and figures["evaluations"] >= 1 and math.isfinite(figures["gap"])


def test_kept_weights_are_measured_again_in_place_of_a_training(tmp_path, monkeypatch):
    (row,) = (row for row in ROWS if row.name == "dw4, sequential placement, by likelihood")
    data = benchmark.problem("dw4", seed=0, folder=tmp_path, quick=True)
    monkeypatch.setattr(benchmark, "problem", lambda *_, **__: data)
    row = dataclasses.replace(row, folder=tmp_path, minutes=0.001, draws=100)
    first, resumed = (run(dataclasses.replace(row, resume=again), seed=0, quick=False) for again in (False, True))
    assert resumed["gap"] == first["gap"] and resumed["cpu_seconds"] == first["cpu_seconds"]
    run(dataclasses.replace(row, resume=True, minutes=0.002), seed=0, quick=False)  # another time is trained anew
    record = benchmark.weights_of(row, 0).with_suffix(".json")
    assert json.loads(record.read_text())["asked"]["minutes"] == 0.002


def test_interrupted_draws_go_on_as_if_they_had_not_been(tmp_path):
    target = harmonic()
    scale = InCoordinates(GActNorm(target.action.coordinates), target.action)
    model = Model(EquivariantFlow(InvariantNormal(target.action), [scale]), at_once=4)

    def weights(draws, kept, score=1.0):
        torch.manual_seed(0)
        return own_weights(model, target, draws, kept, torch.tensor([score]))

    kept = tmp_path / "kept.draws"
    first, whole = weights(8, kept), weights(20, None)
    assert torch.equal(weights(20, kept), whole) and torch.equal(first, whole[:8])
    assert torch.equal(weights(12, kept), whole[:12])  # more are kept than asked for
    torch.save({**torch.load(kept), "weights": torch.zeros(20, dtype=torch.float64)}, kept)
    assert torch.equal(weights(20, kept), torch.zeros(20, dtype=torch.float64))  # they are read
    assert torch.equal(weights(20, kept, score=2.0), whole)  # those of another density are not
    assert [path.name for path in tmp_path.iterdir()] == ["kept.draws"]


def test_the_weights_trained_on_finer_grids_are_those_of_the_flow():
    target = DoubleWell()
    x = configurations(target.action, 64).float()
    flow = g_placement_flow(target.action, shortest=0.5, longest=8.0, width=4)
    grids = PlacementGrids(radii=37, angles=24, ring=64)
    # the first training changes next to nothing
    training = OnFinerGrids(ByLikelihood(lr=1e-12, batch_size=32), ByLikelihood(batch_size=32), grids, share=0.5)
    clock = Clock(1.0, now=itertools.count(0.0, 2.0).__next__)
    before = flow(x).mean()
    steps = training(flow, Problem(target, x, x), clock, 0)
    assert steps > 4 and flow(x).mean() > before + 0.01 and flow.base.module.grids != grids


def test_the_timing_is_of_the_density_that_is_measured(tmp_path):
    data = benchmark.problem("lj13", seed=0, folder=tmp_path, quick=True)
    timed = timing.models(timing.Row("lj13", tmp_path), data, seed=0, untrained=True)
    grids = {name: model.fitted.base.module.grids for name, model in timed.items() if "placement" in name}
    wanted = {
        row.name.removeprefix("lj13, "): row.design.measured.keywords["grids"]
        for row in ROWS
        if row.target == "lj13" and row.design.measured is not None
    }
    assert len(wanted) == 2 and grids == wanted


@pytest.mark.long
def test_the_same_draws_are_scored_on_every_grid(tmp_path):
    coarse, finer = grids.Row(folder=tmp_path), grids.Row({"ring": 192}, tmp_path)
    runs = [{**row.labels(), "seed": 0, **grids.run(row, seed=0, quick=True)} for row in (coarse, finer)]
    changes = [mine - other for other, mine in zip(*(run["missing"] for run in runs), strict=True)]
    assert any(changes) and abs(sum(changes) / len(changes) - (runs[1]["gap"] - runs[0]["gap"])) < 1e-3
    first, second = grids.table([coarse, finer], runs).splitlines()[2:]
    assert first.startswith("| as in the table of designs |") and second.startswith("| ring 192 |")
    assert f"{sum(changes) / len(changes):+.3f} ±" in second and coarse.grids == grids.DESIGN.measured.keywords["grids"]


def test_flow_matching_lowers_its_loss():
    pytest.importorskip("torchdiffeq")
    target = ParticleEnergy(ParticleAction(3, 2), lambda x: x.square().sum((-2, -1)))
    x = torch.tensor([[0.0, 1.0], [0.9, -0.5], [-0.9, -0.5]]) + configurations(target.action, 200, 0.1).float()
    data, training = Problem(target, target.space.project(x), x), FlowMatching(lr=1e-2, batch_size=64)
    flow = graph_cnf(data, width=8, layers=1)

    def loss():
        return float(training._loss(flow.transforms[0], data, torch.Generator().manual_seed(0)).detach())

    clock = Clock(1.0, now=itertools.count(0.0, 0.2).__next__)  # read twice a step
    before, steps = loss(), training(flow, data, clock, 0)
    assert 140 < steps < 160 and loss() < 0.85 * before and not flow.training
