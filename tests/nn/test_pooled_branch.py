"""The pooled branch: its bound, its Jacobian, its log-det in linear time and its inverse, against dense ones."""

import functools
import time

import pytest
import torch

from pyro_gflows.actions import ParticleAction, RowsAction, VectorAction
from pyro_gflows.nn import CustomContraction, PooledBranch, Splines, lipschitz_branch
from pyro_gflows.nn.pooled_map import PooledMap
from pyro_gflows.numerics import BanachSolver, ExactLogDet, PooledLogDet, PooledNewtonSolver
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GMonotone, GResidual, g_residual
from tests.nn.rows import features, flat, scalars, unflat
from tests.nn.test_rows_network import ACTIONS, events

SETS = {f"S{n}": RowsAction(n, 3) for n in (2, 3, 5, 17)}
SIGNED = {f"signed S{n}": RowsAction(n, 3, signed=[1]) for n in (2, 3, 5, 17)}
SMALL = {name: action for name, action in {**ACTIONS, **SETS, **SIGNED}.items() if action.numel <= 64}


@pytest.fixture(params=SMALL)
def action(request):
    return SMALL[request.param]


def branch_of(action, scale=3.0, **keywords):
    torch.manual_seed(0)
    return randomize_(PooledBranch(action, width=4, pooled=3, **keywords).double(), scale=scale)


def dense(branch, x):
    return torch.func.vmap(torch.func.jacrev(branch))(x)


def dense_log_det(branch, x):
    jacobian = dense(branch, x)
    return torch.linalg.slogdet(jacobian + torch.eye(jacobian.shape[-1], dtype=x.dtype)).logabsdet


@pytest.mark.parametrize("depth", [1, 2])
def test_the_log_det_is_that_of_the_dense_jacobian(action, depth):
    branch, x = branch_of(action, depth=depth), events(action)
    value, jacobian = branch.call_and_pooled_jacobian(x)
    expected = dense_log_det(branch, x)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(value, branch(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(jacobian.log_abs_det(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("activation", ["splines", "lipswish", "clipswish", "curves", "sorted_pairs", "soft_threshold"])
def test_the_log_det_is_exact_for_every_activation(activation):
    action = ACTIONS["signed S4, odd and even"]
    branch, x = branch_of(action, activation=activation), events(action)
    found = branch.call_and_pooled_jacobian(x)[1].log_abs_det()
    torch.testing.assert_close(found, dense_log_det(branch, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [0.3, 30.0])
def test_the_bound_holds(action, scale):
    branch = branch_of(action, scale, bound=0.8)
    norm = torch.linalg.matrix_norm(dense(branch, events(action)), 2).max()
    assert norm <= branch.lipschitz_bound() + 1e-12
    assert branch.lipschitz_bound() <= 0.8 * (1 + 1e-12)


@pytest.mark.parametrize("n", [2, 20])
def test_the_bound_survives_an_optimizer_that_wants_it_larger(n):
    action = RowsAction((n, 3), 2).direct_sum(RowsAction((n, 3), 1, block=0), RowsAction((n, 3)).trivial_fields(1))
    branch, x = branch_of(action, 0.5, bound=0.9), events(action, 3)
    optimizer = torch.optim.Adam(branch.parameters(), lr=0.1)
    for _ in range(25):
        optimizer.zero_grad()
        (-dense(branch, x).square().sum()).backward()
        optimizer.step()
    norm = torch.linalg.matrix_norm(dense(branch, x), 2).max()
    assert 0.5 < norm <= branch.lipschitz_bound() <= 0.9 * (1 + 1e-12)


def test_the_bound_of_several_readers_is_reached():
    # linear functions with an angle of 90 degrees: rows of two blocks and the rest read the same pooled features
    layer = features([2, 3], scalars(1), rest=scalars(1))
    torch.manual_seed(0)
    linear = PooledMap(layer, scalars(4), scalars(1), activation=Splines, depth=0, bound=0.9).double()
    optimizer = torch.optim.Adam(linear.parameters(), lr=0.1)

    def norm():
        matrix = torch.func.jacrev(lambda x: flat(linear(unflat(x, layer))))(torch.zeros(6, dtype=torch.float64))
        return torch.linalg.matrix_norm(matrix, 2)

    with torch.no_grad():
        linear.angle.fill_(torch.pi / 2)
    for _ in range(100):
        optimizer.zero_grad()
        (-norm()).backward()
        linear.angle.grad = None
        optimizer.step()
    assert 0.85 < norm() <= linear.lipschitz_bound() + 1e-12 <= 0.9 + 1e-9


def test_the_branch_is_equivariant_and_its_log_det_invariant(action):
    branch, x = branch_of(action), events(action)
    elements = action.group.sample((len(x),))
    image = action.act_each(elements, branch(x))
    assert image.abs().max() > 0.01
    torch.testing.assert_close(branch(action.act_each(elements, x)), image, rtol=0, atol=1e-11)
    log_dets = [branch.call_and_pooled_jacobian(e)[1].log_abs_det() for e in (x, action.act_each(elements, x))]
    torch.testing.assert_close(*log_dets, rtol=0, atol=1e-11)


def test_every_row_reads_every_other(action):
    branch, x = branch_of(action), events(action, 1)
    if action.numel > 2:
        assert (dense(branch, x)[0].abs() > 1e-12).double().mean() > 0.2


@pytest.mark.parametrize("name", ["S5", "signed S5", "mean-free S5", "blocks with a context", "signed S3 x O(3)"])
def test_gradients_of_the_log_det_are_those_of_the_dense_one(name):
    action = SMALL[name]
    branch, x = branch_of(action), events(action).requires_grad_()
    leaves = [x, *branch.parameters()]
    found = torch.autograd.grad(
        branch.call_and_pooled_jacobian(x)[1].log_abs_det().sum(), leaves, allow_unused=True, materialize_grads=True
    )
    expected = torch.autograd.grad(dense_log_det(branch, x).sum(), leaves, allow_unused=True, materialize_grads=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_layers_take_the_linear_log_det_and_newtons_method_by_default(action):
    layer = g_residual(action).double()
    assert isinstance(layer.branch, PooledBranch) and isinstance(lipschitz_branch(action), PooledBranch)
    assert isinstance(layer.log_det, PooledLogDet) and isinstance(layer.solver, PooledNewtonSolver)
    assert "log-det exact, linear in the rows" in repr(layer)
    other = GResidual(action, layer.branch, log_det=ExactLogDet(), solver=BanachSolver())
    y = events(action)
    found, expected = layer.call_and_ladj(y), other.call_and_ladj(y)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(layer.inv_call_and_ladj(found[0])[0], y, rtol=0, atol=1e-9)


def test_newtons_method_takes_few_steps(action):
    branch, y = branch_of(action, bound=0.99), events(action)
    root, report = PooledNewtonSolver()(branch, y, 1, lipschitz=0.99)
    assert report.converged and report.iterations <= 8
    torch.testing.assert_close(root + branch(root), y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["S5", "signed S5", "mean-free S5", "blocks with a context", "S4 x D3", "S5 x O(2)"])
def test_a_context_of_the_set_or_of_the_rows_shifts_the_branch(name):
    action = SMALL[name]
    for context_action in (action.trivial_fields(2), action.direct_sum(action.trivial_fields(1))):
        layer = randomize_(g_residual(action, context_action=context_action).double())
        x, context = events(action), events(context_action)
        elements = action.group.sample((len(x),))
        value, log_det = layer.inv_call_and_ladj(x, context)
        assert (layer.inv_call_and_ladj(x, context + 1)[0] - value).abs().max() > 1e-3
        moved = action.act_each(elements, x), context_action.act_each(elements, context)
        found, found_log_det = layer.inv_call_and_ladj(*moved)
        torch.testing.assert_close(found, action.act_each(elements, value), rtol=0, atol=1e-11)
        torch.testing.assert_close(found_log_det, log_det, rtol=0, atol=1e-11)
        jacobians = torch.func.vmap(torch.func.jacrev(lambda *row, to=layer: to.inv_call_and_ladj(*row)[0]))(x, context)
        expected = torch.linalg.slogdet(jacobians).logabsdet
        torch.testing.assert_close(log_det, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(layer.call_and_ladj(value, context)[0], x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["S5", "mean-free S5", "signed S3 x O(3)"])
@pytest.mark.parametrize("kind", [GResidual, GMonotone])
def test_gradients_through_the_inverse_are_those_of_the_dense_layer(name, kind):
    action = SMALL[name]
    branch, y = branch_of(action), events(action).requires_grad_()
    hidden = CustomContraction(branch, action)  # hides that the branch has a pooled Jacobian
    leaves, found = [y, *branch.parameters()], []
    for layer in (kind(action, branch), kind(action, hidden, log_det=ExactLogDet(), solver=BanachSolver())):
        x, log_det = layer.call_and_ladj(y)
        total = x.sin().sum() + log_det.sum()
        gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        found.append((x, log_det, *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("fast", ["score", "sample"])
def test_training_lowers_the_loss(fast):
    torch.manual_seed(0)
    action = RowsAction(30, 2)
    data = torch.randn(64, 60).unflatten(-1, (30, 2))
    data = (data.sign() * data.abs().sqrt() + data.mean(-2, keepdim=True)).flatten(-2)
    layer = g_residual(action, fast=fast)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        z, log_det = layer.inv_call_and_ladj(data)
        loss = (0.5 * z.square().sum(-1) - log_det).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


def test_the_cost_of_a_training_step_is_linear_in_the_number_of_rows():
    def seconds(n):
        layer, x = g_residual(RowsAction(n, 3)), torch.randn(1, 3 * n)

        def step():
            value, log_det = layer.inv_call_and_ladj(x)
            (value.square().sum() - log_det.sum()).backward()

        step()
        start = time.process_time()
        step()
        return time.process_time() - start

    assert seconds(10_000) < 100 * max(seconds(100), 1e-3)  # a dense determinant would take a million times as long


@pytest.mark.parametrize("signed", [None, [1]])
def test_rows_that_a_mask_leaves_out_change_nothing(signed):
    few, many = (RowsAction(n, 2, signed=signed) for n in (4, 6))
    few, many = few.direct_sum(few.trivial_fields(2)), many.direct_sum(many.trivial_fields(2))
    branch, larger = branch_of(few), PooledBranch(many, width=4, pooled=3).double()
    larger.load_state_dict(branch.state_dict())
    x, mask = events(few), torch.arange(6).expand(4, 6) < 4
    padded = larger.masked(mask)
    value, jacobian = padded.call_and_pooled_jacobian(torch.cat([x[:, :8], torch.randn(4, 4), x[:, 8:]], -1))
    expected, small = branch.call_and_pooled_jacobian(x)
    torch.testing.assert_close(torch.cat([value[:, :8], value[:, 12:]], -1), expected, rtol=0, atol=1e-13)
    assert not value[:, 8:12].any()
    torch.testing.assert_close(jacobian.log_abs_det(), small.log_abs_det(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PooledBranch(RowsAction(3), bound=1.0), ValueError, r"bound in \(0, 1\), got 1.0"),
        (lambda: PooledBranch(RowsAction(3), pooled=0), ValueError, "at least 1, got 16, 1 and 0"),
        (lambda: PooledBranch(RowsAction(3), activation="gated"), ValueError, "whose slope has no bound"),
        (lambda: PooledBranch(VectorAction.rows("S3")), TypeError, "a RowsAction, whose events consist of rows"),
        (lambda: PooledBranch(RowsAction.of_matrix(3)), TypeError, "without matrix fields"),
        (
            lambda: PooledBranch(RowsAction(3), context_action=RowsAction(4)),
            ValueError,
            "a context of the group of RowsAction",
        ),
        (lambda: PooledBranch(RowsAction(3)).condition(torch.ones(3)), ValueError, "takes no context"),
    ],
)
def test_bad_branches_say_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_layer_from_its_description_has_the_same_values():
    action = RowsAction(4, 3, signed=[0])
    make = functools.partial(PooledBranch, width=3, pooled=2, activation="lipswish")
    layer = randomize_(g_residual(action, branch=make).double())
    other = build(describe(layer)).double()
    other.load_state_dict(layer.state_dict())
    x = events(action)
    torch.testing.assert_close(other.inv_call_and_ladj(x), layer.inv_call_and_ladj(x), rtol=0, atol=0)


@pytest.mark.parametrize("sizes", [(1, 3), (1, 1)])
def test_a_row_without_features_of_its_own_adds_nothing_to_the_sums(sizes):
    """A species of one particle has no coordinates relative to its own center."""
    action = ParticleAction(sizes, 2).coordinates
    branch, x = branch_of(action), events(action, 3)
    jacobian = dense(branch, x)
    assert branch(x).isfinite().all() and torch.linalg.matrix_norm(jacobian, 2).max() <= branch.lipschitz_bound()
    layer = GResidual(action, branch, fast="sample", log_det=PooledLogDet())
    y, log_det = layer.call_and_ladj(x)
    torch.testing.assert_close(log_det, dense_log_det(branch, x), rtol=0, atol=1e-9)
    torch.testing.assert_close(layer.inv(y), x, rtol=0, atol=1e-9)
