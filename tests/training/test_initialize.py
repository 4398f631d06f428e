"""fit sets the data-dependent layers that are not set yet, and no other."""

import copy

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_gflows import (
    Compose,
    CoordinateSplit,
    EquivariantFlow,
    GActNorm,
    GSplit,
    ImageAction,
    InvariantNormal,
    Symmetrized,
    VectorAction,
    g_coupling_image_flow,
    g_residual,
    g_residual_image_flow,
)
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.flows import g_dequantizer
from pyro_gflows.serialization import load, save
from pyro_gflows.training import Adam, Constant, FitSettings, OwnDraws, fit, fit_energy
from pyro_gflows.transforms import DataDependentTransform, GCoupling, GOrbitNorm
from tests.small_flows import points, small_flow

pytestmark = pytest.mark.usefixtures("on_both_engines")

STILL = FitSettings(steps=1, batch_size=4096, optimizer=Adam(lr=1e-14), schedule=Constant())
MOVING = FitSettings(steps=2, batch_size=64, optimizer=Adam(lr=1e-2), schedule=Constant())


def _orbit_flow():
    action = VectorAction.regular("C2")
    return EquivariantFlow(InvariantNormal(action), [GOrbitNorm(action), g_residual(action), GOrbitNorm(action).inv])


def _split_flow():
    action = VectorAction.plane("D4", copies=2)
    split = CoordinateSplit(action)
    half = split.parts[0]
    inner = Compose([GActNorm(half), g_residual(half)])
    return EquivariantFlow(InvariantNormal(action), [GSplit(action, inner, split=split, width=2), GActNorm(action).inv])


IMAGE = ImageAction("C4", 2, size=4)
OF_IMAGES = {
    "images, coupling": lambda: g_coupling_image_flow(IMAGE, scales=2, blocks=1, width=1, depth=1),
    "images, residual": lambda: g_residual_image_flow(IMAGE, scales=2, blocks=1, width=1, memory="recompute"),
}
FLOWS = {"vectors": small_flow, "orbits, inverse": _orbit_flow, "split, inverse": _split_flow, **OF_IMAGES}


def make(name):
    torch.manual_seed(0)
    return FLOWS[name]().double()


def data_of(flow, rows=64, *, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, *flow.action.event_shape, generator=generator, dtype=torch.float64)
    return scale * (x + 0.3)


def log_density(x):
    return -0.5 * x.flatten(1).square().sum(-1)


def layers_of(flow):
    return [layer for layer in flow.modules() if isinstance(layer, DataDependentTransform)]


def values_of(flow):
    return [p.detach().clone() for layer in layers_of(flow) for p in layer.parameters(recurse=False)]


def by_fit(flow):
    fit(flow, data_of(flow), settings=MOVING, progress=False)


def by_energy(flow):
    fit_energy(flow, log_density, settings=MOVING, progress=False)


def by_a_symmetrized_flow(flow):
    fit_energy(Symmetrized(flow.dist, flow.action), log_density, settings=MOVING, progress=False)


def by_svi(flow):
    x = data_of(flow)

    def model(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("x", flow.dist, obs=x)

    svi = SVI(model, lambda x: None, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(2):
        svi.step(x)
    pyro.clear_param_store()


def by_a_loop(flow):
    optimizer = torch.optim.SGD(flow.parameters(), lr=1e-3)
    flow.train()
    for _ in range(2):
        optimizer.zero_grad()
        (-flow(data_of(flow)).mean()).backward()
        optimizer.step()


def by_hand(flow):
    with torch.no_grad():
        for layer in layers_of(flow):
            layer.log_scale.fill_(0.1)


def by_initialize(flow):
    flow.initialize(data_of(flow))


def by_weights_of_another(flow):
    other = copy.deepcopy(flow)
    by_initialize(other)
    flow.load_state_dict(other.state_dict())


def by_weights_of_an_older_version(flow):
    """No buffer says anything there, and a parameter that is 0 may well have been trained."""
    weights = {name: value for name, value in flow.state_dict().items() if not name.endswith("initialized")}
    flow.load_state_dict(weights)


SETTERS = [
    by_fit,
    by_energy,
    by_a_symmetrized_flow,
    by_svi,
    by_a_loop,
    by_hand,
    by_initialize,
    by_weights_of_another,
    by_weights_of_an_older_version,
]
SLOW = [by_energy, by_a_symmetrized_flow]  # their reports draw from images of many layers


QUICK = [(name, by) for name in FLOWS for by in SETTERS if by not in SLOW or name not in OF_IMAGES]


@pytest.mark.parametrize(("name", "by"), QUICK)
def test_a_layer_that_is_set_keeps_its_weights_unless_asked(name, by):
    flow = make(name)
    by(flow)
    before = values_of(flow)
    assert len(before) >= 2 and all(layer.is_set for layer in layers_of(flow))
    fit(flow, data_of(flow, scale=7.0, seed=1), settings=STILL, progress=False)
    torch.testing.assert_close(values_of(flow), before, rtol=0, atol=1e-12)
    twin = copy.deepcopy(flow)
    twin.initialize(data_of(flow, scale=7.0, seed=1))
    fit(flow, data_of(flow, scale=7.0, seed=1), settings=STILL, progress=False, initialize=True)
    torch.testing.assert_close(values_of(flow), values_of(twin), rtol=1e-9, atol=1e-9)
    assert max(float((one - other).abs().max()) for one, other in zip(values_of(flow), before, strict=True)) > 0.5


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.long
def test_a_new_flow_is_set(name):
    flow, twin = make(name), make(name)
    assert not any(layer.is_set for layer in layers_of(flow))
    twin.initialize(data_of(flow, scale=7.0))
    fit(flow, data_of(flow, scale=7.0), settings=STILL, progress=False)
    torch.testing.assert_close(values_of(flow), values_of(twin), rtol=1e-9, atol=1e-9)
    assert all(layer.is_set for layer in layers_of(flow))


def test_a_saved_flow(tmp_path):
    """What was set is set when it is loaded, and what was not is not."""
    flow = small_flow()
    save(flow, tmp_path / "new")
    new = load(tmp_path / "new")
    assert not any(layer.is_set for layer in layers_of(new))
    by_fit(flow)
    with torch.no_grad():  # a trained layer may well have come back to 0
        layers_of(flow)[0].log_scale.zero_()
    save(flow, tmp_path / "fitted")
    fitted = load(tmp_path / "fitted")
    assert all(layer.is_set for layer in layers_of(fitted))
    before = values_of(fitted)
    fit(fitted, 9 * points(), settings=STILL, progress=False)
    torch.testing.assert_close(values_of(fitted), before, rtol=0, atol=1e-12)


def test_new_layers_among_old_ones():
    """Each layer by itself: the new ones are set from what the old ones, as they are, make of the data."""
    old = small_flow()
    by_fit(old)
    new = GActNorm(old.action).double()
    flow = EquivariantFlow(old.base, [*old.transforms, new]).double()
    before = values_of(old)
    x = 7 * points()
    fit(flow, x, settings=STILL, progress=False)
    torch.testing.assert_close(values_of(old), before, rtol=0, atol=1e-12)
    power = new.inv_call_and_ladj(x)[0].square().mean()
    torch.testing.assert_close(power.detach(), torch.ones_like(power), rtol=1e-9, atol=1e-9)
    inner = GActNorm(old.action).double()
    flow = EquivariantFlow(old.base, [inner, *old.transforms]).double()
    fit(flow, x, settings=STILL, progress=False)
    torch.testing.assert_close(values_of(old), before, rtol=0, atol=1e-12)
    with torch.no_grad():
        power = inner.inv(Compose(old.transforms).inv(x)).square().mean()
    torch.testing.assert_close(power, torch.ones_like(power), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*not registered in the param store because requires_grad=False")
@pytest.mark.parametrize("kind", [GActNorm, GOrbitNorm])
@pytest.mark.parametrize("initialize", [False, True])
def test_a_frozen_layer_is_left_alone(kind, initialize):
    """And when it is thawed in the middle of the training as well."""
    action = VectorAction.regular("C2")
    layer, other = kind(action).requires_grad_(False), GActNorm(action)
    flow = EquivariantFlow(InvariantNormal(action), [layer, other]).double()
    fit(flow, data_of(flow, scale=7.0), settings=STILL, progress=False, initialize=initialize)
    assert not any(value.any() for value in layer.parameters())
    assert other.log_scale.detach().abs().min() > 1
    layer.requires_grad_(True)
    fit(flow, data_of(flow, scale=7.0), settings=STILL, progress=False)
    assert all(value.detach().abs().max() < 1e-12 for value in layer.parameters())


def test_a_layer_with_one_frozen_parameter_is_left_alone():
    layer = GOrbitNorm(VectorAction.regular("C2"))
    layer.shift.requires_grad_(False)
    layer.initialize(5 + torch.randn(9, 2))
    assert not layer.shift.any() and not layer.log_scale.any()


@pytest.mark.long
def test_layers_frozen_in_a_first_stage_by_energy_are_trained_at_their_values():
    flow = small_flow()
    for layer in layers_of(flow):
        layer.requires_grad_(False)
    by_energy(flow)
    flow.requires_grad_(True)
    fit(flow, 7 * points(), settings=STILL, progress=False)
    assert max(float(value.abs().max()) for value in values_of(flow)) < 1e-12


@pytest.mark.long
def test_a_flow_goes_on_from_its_own_draws():
    """fit_energy, then the forward divergence by the flow's own draws: it begins where the first stage ended."""
    flow = small_flow()
    target = torch.distributions.Normal(torch.zeros(2, dtype=torch.float64), 3.0)
    settings = FitSettings(steps=30, batch_size=64, optimizer=Adam(lr=1e-1))
    report = fit_energy(flow, lambda x: target.log_prob(x).sum(-1), settings=settings, progress=False)
    with torch.no_grad():
        before = flow(points())
    draws = OwnDraws(flow, lambda x: target.log_prob(x).sum(-1), pool=500)
    fit(flow, draws, settings=STILL, progress=False)
    assert report.ess > 0.5
    with torch.no_grad():
        torch.testing.assert_close(flow(points()), before, rtol=0, atol=1e-9)


def test_a_second_stage_with_trained_noise():
    action = ImageAction("C4", size=4)
    torch.manual_seed(0)
    flow = g_coupling_image_flow(action, scales=1, blocks=1, width=1, depth=1)
    scaling = GrayLevels(17)
    x = scaling.dequantize(torch.randint(17, (32, 1, 4, 4)))
    noise = g_dequantizer(action, scaling, blocks=1, width=1)
    fit(flow, x, settings=MOVING, dequantize=noise, progress=False)
    before = values_of(flow)
    settings = FitSettings(steps=1, batch_size=32, optimizer=Adam(lr=1e-12), schedule=Constant())
    fit(flow, x[:4], settings=settings, dequantize=noise, progress=False)
    torch.testing.assert_close(values_of(flow), before, rtol=0, atol=1e-6)


def test_flow_initialize_itself_always_sets():
    flow = small_flow()
    by_fit(flow)
    flow.initialize(7 * points())
    once = values_of(flow)
    flow.initialize(points())
    assert all(not torch.equal(one, other) for one, other in zip(once, values_of(flow), strict=True))


def test_flows_with_a_context():
    """Amortized flows are set by flow.initialize(x, context), and then left alone by whatever follows."""
    action = VectorAction.plane("D4", copies=2)
    corners = VectorAction.regular("D4")
    layers = [GActNorm(action), GCoupling(action, context_action=corners, width=2, depth=1)]
    flow = EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)]).double()
    flow.initialize(data_of(flow, scale=7.0), torch.zeros(64, 8, dtype=torch.float64))
    assert all(layer.is_set for layer in layers_of(flow)) and layers_of(flow)[1].log_scale.detach().min() > 1


@pytest.mark.parametrize("kind", [GActNorm, GOrbitNorm])
@pytest.mark.parametrize("inverse", [False, True])
def test_both_directions_standardize(kind, inverse):
    """Orbit means and scales of what comes out, against a direct computation."""
    action = VectorAction.regular("C2").direct_sum(VectorAction.regular("C2"))
    layer = kind(action).double()
    x = torch.tensor([1.0, 1.0, 5.0, 5.0]).double() + torch.tensor([2.0, 2.0, 0.5, 0.5]).double() * torch.randn(
        500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    out = (layer.initialize_inverse if inverse else layer.initialize)(x)
    assert layer.is_set
    again = (layer.inv if inverse else layer)(x)
    torch.testing.assert_close(out, again, rtol=0, atol=1e-12)
    for part in (out[:, :2], out[:, 2:]):
        assert float(part.mean().abs()) < 1e-9
        assert float(part.square().mean()) == pytest.approx(1.0, abs=1e-9)
