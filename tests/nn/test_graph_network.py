"""The message-passing network on particles: equivariant for every group, and more than pooling or pairs alone."""

import pytest
import torch

from pyro_gflows import ParticleAction, RowStretch, VectorAction
from pyro_gflows.nn import GraphNetwork
from pyro_gflows.testing import assert_equivariant, randomize_

ACTIONS = {
    "4 in the plane": ParticleAction(4, 2),
    "two species in space": ParticleAction((2, 3), 3),
    "rotations only, free center": ParticleAction((2, 1), 3, group="SO(3)", center="free"),
    "on a line": ParticleAction(3, 1),
}


def network_of(action, **keywords):
    torch.manual_seed(0)
    keywords = {"width": 8, **keywords}
    network = GraphNetwork(
        action.coordinates, RowStretch(action.rows, bins=2).params_action, particles=action, **keywords
    )
    return randomize_(network.double(), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ACTIONS)
def test_is_equivariant(name):
    action = ACTIONS[name]
    network = network_of(action)
    x = torch.randn(4, network.action_in.numel, dtype=torch.float64)
    assert network(x).abs().max() > 0.1
    assert_equivariant(network, network.action_in, network.action_out, x, tol=1e-11)


def test_the_species_count():
    alike, two = ParticleAction(4, 2), ParticleAction((2, 2), 2)
    x = two.space.project(torch.randn(4, 2, dtype=torch.float64))
    out = network_of(two)(two.to_coordinates(x))
    swapped = x[[2, 3, 0, 1]]
    other = network_of(two)(two.to_coordinates(swapped))
    assert (out[:32].unflatten(0, (4, 8))[[2, 3, 0, 1]] - other[:32].unflatten(0, (4, 8))).abs().max() > 1e-3
    same = network_of(alike)(alike.to_coordinates(x))[:32].unflatten(0, (4, 8))
    swapped_same = network_of(alike)(alike.to_coordinates(swapped))[:32].unflatten(0, (4, 8))
    torch.testing.assert_close(same[[2, 3, 0, 1]], swapped_same)


def test_a_particle_reads_each_other_one_also_where_particles_coincide():
    action = ParticleAction(4, 2)
    network = network_of(action, depth=1)
    x = action.space.project(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 3.0]]).double())
    z = action.to_coordinates(x)
    jacobian = torch.autograd.functional.jacobian(network, z)
    assert jacobian.isfinite().all()
    scalars = jacobian[:32].unflatten(0, (4, 8))
    moves = action.to_coordinates(action.space.project(torch.eye(8, dtype=torch.float64).unflatten(-1, (4, 2))))
    response = (scalars @ moves.T).unflatten(-1, (4, 2)).abs().amax((1, 3))  # of particle i to particle j
    assert (response > 1e-6).all()


def test_the_start_scales_the_output():
    action = ParticleAction(4, 2)
    params = RowStretch(action.rows, bins=2).params_action
    x = torch.randn(5, 6, dtype=torch.float64)
    outputs = []
    for start in (0.0, 0.1, 1.0):
        torch.manual_seed(0)
        outputs.append(GraphNetwork(action.coordinates, params, particles=action, start=start).double()(x))
    assert (outputs[0] == 0).all()
    torch.testing.assert_close(10 * outputs[1], outputs[2], rtol=1e-5, atol=1e-6)


def test_other_arguments_are_refused():
    action = ParticleAction(4, 2)
    params = RowStretch(action.rows).params_action
    with pytest.raises(TypeError, match="expected particles to be a ParticleAction"):
        GraphNetwork(action.coordinates, params, particles=VectorAction.plane("O(2)"))
    with pytest.raises(ValueError, match="coordinates of the particles"):
        GraphNetwork(action.rows, params, particles=action)
    with pytest.raises(ValueError, match="scalars of each particle, then vectors"):
        GraphNetwork(action.coordinates, action.rows, particles=action)
    with pytest.raises(ValueError, match="width >= 2"):
        GraphNetwork(action.coordinates, params, particles=action, width=1)
