"""Flows of particles that are placed one after another, and the densities that are trained in their place."""

import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, ParticleAction, load, save
from pyro_gflows.flows import g_augmented_particle_flow, g_placement_flow, placement_on_grids, to_train
from pyro_gflows.nn.placement_grids import PlacementGrids
from pyro_gflows.testing import assert_invariant, randomize_
from pyro_gflows.training import Adam, FitSettings, fit
from pyro_gflows.transforms import InCoordinates
from pyro_gflows.transforms.data_dependent import mark_as_set


def flow_of(n=4, d=2):
    torch.manual_seed(0)
    flow = g_placement_flow(ParticleAction(n, d), shortest=0.5, longest=4.0, width=4)
    return randomize_(flow, scale=0.3).double()


def configurations(flow, count=6):
    x = torch.randn(count, *flow.action.event_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return flow.action.space.project(x)


@pytest.mark.parametrize(("n", "d"), [(3, 3), (4, 2)])
def test_the_flow_is_its_base_and_invariant(n, d):
    flow = flow_of(n, d)
    x = configurations(flow)
    torch.testing.assert_close(flow(x), flow.base.log_prob(x), rtol=0, atol=1e-12)
    assert_invariant(flow, flow.action, x)
    flow.initialize(3 * x)  # its layer stays the identity
    torch.testing.assert_close(flow(x), flow.base.log_prob(x), rtol=0, atol=1e-12)


def test_what_is_trained_has_the_same_weights_and_is_below_the_density():
    flow = flow_of()
    x = configurations(flow)
    whole = flow(x)
    bounds = [to_train(flow, centers=count)(x) for count in (1, 2, 3, 4)]
    for lower, upper in zip(bounds, [*bounds[1:], whole + 1e-12], strict=True):
        assert (lower <= upper).all()
    torch.testing.assert_close(bounds[-1], whole, rtol=0, atol=1e-12)
    firsts = torch.stack([to_train(flow)(x.roll(-index, 1)) for index in range(4)])
    torch.testing.assert_close(firsts.logsumexp(0) - torch.tensor(4.0).log(), whole, rtol=0, atol=1e-6)
    for trained in (to_train(flow), to_train(flow, centers=2)):
        assert [id(p) for p in trained.base_module.parameters()] == [id(p) for p in flow.base_module.parameters()]


def test_a_training_changes_the_flow_and_its_file(tmp_path):
    flow = flow_of().float()
    x = configurations(flow, 64).float()
    before = flow(x).mean().item()
    settings = FitSettings(steps=20, batch_size=64, optimizer=Adam(lr=1e-2), check_symmetry=False)
    fit(to_train(flow, centers=1), x, settings=settings, progress=False)
    assert flow(x).mean().item() > before
    save(flow, tmp_path)
    torch.testing.assert_close(load(tmp_path)(x), flow(x), rtol=0, atol=0)


def test_other_designs_are_trained_as_they_are():
    action = ParticleAction(4, 2)
    other = EquivariantFlow(InvariantNormal(action), [InCoordinates(GActNorm(action.coordinates), action)])
    assert to_train(other) is other and to_train(other, centers=2) is other
    augmented = g_augmented_particle_flow(action, layers=1, width=4, depth=1)
    assert to_train(augmented) is augmented and to_train(augmented, centers=2) is augmented


def test_layers_after_the_placement_are_kept_or_refused():
    flow = flow_of()
    layer = GActNorm(flow.action.coordinates, trainable=False)
    mark_as_set(layer)
    layer.log_scale.fill_(1.0)
    scaled = EquivariantFlow(flow.base, [InCoordinates(layer, flow.action)]).double()
    x = configurations(scaled)
    torch.testing.assert_close(to_train(scaled, centers=4)(x), scaled(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(placement_on_grids(scaled, flow.base.module.grids)(x), scaled(x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"without further layers.*S1 x S3 x O\(2\)"):
        to_train(scaled)


def test_what_is_made_of_a_flow_has_its_dtype_everywhere():
    """And so its device, as both change together."""
    flow = flow_of()
    for made in (to_train(flow), to_train(flow, centers=2), placement_on_grids(flow, PlacementGrids(ring=64))):
        tensors = [*made.parameters(), *made.buffers()]
        assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float64}


def test_a_bound_is_a_bound_after_it_was_saved(tmp_path):
    flow = to_train(flow_of().float(), centers=2)
    x = configurations(flow).float()
    save(flow, tmp_path)
    torch.testing.assert_close(load(tmp_path)(x), flow(x), rtol=0, atol=0)
