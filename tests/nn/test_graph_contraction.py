"""The many-body contraction on particles: its bound, its symmetry, and that it is more than forces between pairs."""

import itertools

import pytest
import torch

from pyro_gflows import ParticleAction, VectorAction, g_graph_residual
from pyro_gflows.nn import GraphContraction
from pyro_gflows.nn.pair_means import PairMeans
from pyro_gflows.testing import assert_equivariant, assert_layer, randomize_

ACTIONS = {
    "4 in the plane": ParticleAction(4, 2),
    "two species in space": ParticleAction((2, 2), 3),
    "rotations only, three species, free center": ParticleAction((2, 1, 1), 3, group="SO(3)", center="free"),
    "on a line": ParticleAction(3, 1),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def random_weights(module, scale=1.0):
    return randomize_(module.double(), scale=scale, generator=torch.Generator().manual_seed(1)).eval()


def branch_of(action, scale=1.0, **keywords):
    torch.manual_seed(0)
    return random_weights(GraphContraction(action.coordinates, particles=action, width=3, **keywords), scale)


def events(action, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(*batch, action.coordinates.numel, dtype=torch.float64, generator=generator)


def test_the_laplacian_of_all_pairs_has_norm_n():
    for n in (2, 3, 7):
        unit = torch.eye(n, dtype=torch.float64)
        differences = torch.stack([unit[i] - unit[j] for i, j in itertools.combinations(range(n), 2)])
        torch.testing.assert_close(differences.T @ differences, n * unit - 1)
        assert abs(torch.linalg.matrix_norm(differences, 2) ** 2 - n) < 1e-12


def dense_pair_means(means, action, h):
    """B^T Phi(B h) / n with the dense matrix B of differences, for vectors h of shape (n, d, width)."""
    unit = torch.eye(action.n, dtype=torch.float64)
    pairs = list(itertools.combinations(range(action.n), 2))
    differences = torch.stack([unit[i] - unit[j] for i, j in pairs])
    edges = torch.einsum("en,ndc->edc", differences, h) / means.scale
    length = edges.norm(dim=1)
    rows = torch.stack([means.row[i, j] for i, j in pairs])
    value = torch.stack([means.splines(t, row)[0] for t, row in zip(length.flatten(), rows.flatten(), strict=True)])
    messages = edges * (value.reshape(length.shape) / length)[:, None]
    return means.scale * torch.einsum("en,edc->ndc", differences, messages) / action.n


def test_means_over_pairs_are_those_of_the_dense_matrix(action):
    means = random_weights(PairMeans(action, 3, scale=0.7))
    h = torch.randn(action.n, action.d, 3, dtype=torch.float64)
    torch.testing.assert_close(means(h), dense_pair_means(means, action, h), rtol=0, atol=1e-12)
    assert means(h).sum(0).abs().max() < 1e-12


def test_the_bound_of_means_over_pairs_is_attained():
    means = PairMeans(ParticleAction(4, 2), 1).double()
    with torch.no_grad():
        means.splines.theta.fill_(20.0)  # slopes of nearly 1
    h = torch.randn(4, 2, 1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(means, h).reshape(8, 8)
    assert abs(torch.linalg.matrix_norm(jacobian, 2) - 1) < 1e-9


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_certified_bound_holds(action, scale):
    branch = branch_of(action, scale, bound=0.9)
    bound = branch.lipschitz_bound()
    assert bound <= 0.9 + 1e-12
    for size in (1e-3, 1.0, 10.0):
        jacobian = branch.call_and_jacobian(size * events(action, 30))[1]
        assert torch.linalg.matrix_norm(jacobian, 2).max() <= bound + 1e-12


def test_a_branch_can_be_nearly_as_steep_as_its_bound():
    branch = GraphContraction(ParticleAction(4, 2).coordinates, particles=ParticleAction(4, 2), width=1).double()
    with torch.no_grad():
        for means in branch.means:
            means.splines.theta.fill_(20.0)
        for matrix in (branch.first, *branch.matrices):
            for parameter in matrix.parameters():
                parameter.fill_(5.0)
    jacobian = branch.call_and_jacobian(events(ParticleAction(4, 2)))[1]
    assert torch.linalg.matrix_norm(jacobian, 2) > 0.95


def test_is_equivariant_and_keeps_the_center(action):
    branch = branch_of(action)
    x = events(action, 5)
    assert branch(x).abs().max() > 1e-3
    assert_equivariant(branch, branch.action, branch.action, x, tol=1e-11)
    if action.center == "mean-free":
        assert action.from_coordinates(branch(x)).mean(-2).abs().max() < 1e-12


def test_it_is_no_gradient_unless_there_is_one_round():
    action = ParticleAction(4, 2)
    skew = []
    for depth in (1, 2):
        jacobian = branch_of(action, depth=depth).call_and_jacobian(events(action, 20))[1]
        skew.append(((jacobian - jacobian.mT).norm() / jacobian.norm()).item())
    assert skew[0] < 1e-12
    assert skew[1] > 1e-2


def test_forces_depend_on_three_particles_together():
    action = ParticleAction(4, 2, center="free")
    x = events(action)

    def mixed(depth):
        """How the force on the first particle changes with the second and the third at once."""
        branch = branch_of(action, depth=depth)
        hessian = torch.autograd.functional.hessian(lambda z: branch(z)[0], x)
        return hessian[2:4, 4:6].abs().max()

    assert mixed(1) < 1e-12
    assert mixed(2) > 1e-4


def test_layers_are_equivariant_bijections_with_their_log_dets(action):
    torch.manual_seed(0)
    layer = random_weights(g_graph_residual(action, width=2, bound=0.8))
    x = action.space.project(1.5 * torch.randn(2, action.n, action.d, dtype=torch.float64))
    assert (layer(x) - x).abs().max() > 1e-2
    assert_layer(layer, x, tol=1e-8)


@pytest.mark.parametrize("distance", [1e-3, 0.0])
def test_particles_that_nearly_coincide(distance):
    action = ParticleAction(4, 2)
    layer = random_weights(g_graph_residual(action, width=2))
    x = torch.tensor([[1.0, 1.0], [1.0 + distance, 1.0], [-1.0, 0.5], [-1.0, -2.5]], dtype=torch.float64)
    x = action.space.project(x)[None]
    assert_layer(layer, x, tol=1e-8)
    y, log_det = layer.call_and_ladj(x.requires_grad_())
    gradients = torch.autograd.grad(y.sum() + log_det.sum(), [x, *layer.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_other_arguments_are_refused():
    action = ParticleAction(4, 2)
    with pytest.raises(TypeError, match="expected particles to be a ParticleAction"):
        GraphContraction(action.coordinates, particles=VectorAction.plane("O(2)"))
    with pytest.raises(ValueError, match="coordinates of the particles"):
        GraphContraction(action.rows, particles=action)
    with pytest.raises(ValueError, match=r"bound in \(0, 1\), got 1"):
        g_graph_residual(action, bound=1.0)
    with pytest.raises(ValueError, match="depth >= 1, got 8 and 0"):
        g_graph_residual(action, depth=0)
    with pytest.raises(TypeError, match="expected a ParticleAction"):
        g_graph_residual(VectorAction.plane("O(2)"))
