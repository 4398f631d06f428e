"""Networks on rows: equivariance, what they can tell apart, and what they refuse."""

import functools
import time

import pytest
import torch

from pyro_gflows.actions import RowsAction, VectorAction
from pyro_gflows.nn import (
    EquivariantMLP,
    LipschitzRowsNetwork,
    RowsAttention,
    RowsNetwork,
    conditioner,
    lipschitz_branch,
)
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GResidual


def mixture():
    return RowsAction(5, mean_free=True).direct_sum(RowsAction(5, 2))


def with_context():
    action = RowsAction((2, 3), 2)
    return action.direct_sum(RowsAction((2, 3), 1, block=1), action.trivial_fields(2))


ACTIONS = {
    "S3": RowsAction(3, 2),
    "S50": RowsAction(50, 1),
    "one row": RowsAction(1, 2),
    "signed S4, odd and even": RowsAction(4, 3, signed=[0, 2]),
    "signed S20, odd": RowsAction(20, 2, signed=True),
    "mean-free S5": mixture(),
    "blocks with a context": with_context(),
    "S5 x O(2)": RowsAction(5, VectorAction.plane("O(2)")),
    "signed S3 x O(3)": RowsAction(3, VectorAction.space("O(3)", copies=2), signed=[0]),
    "S4 x D3": RowsAction(4, VectorAction.plane("D3")),
}
KINDS = {
    "deep set": RowsNetwork,
    "means": RowsAttention,
    "pairs": functools.partial(RowsAttention, over="pairs"),
}


def events(action, count=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, action.numel, generator=generator, dtype=torch.float64)


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


@pytest.mark.parametrize("kind", KINDS)
def test_networks_on_rows_are_equivariant(action, kind):
    target = action.direct_sum(action, action.trivial_fields(2))
    network = randomize_(KINDS[kind](action, target, width=3).double())
    x, elements = events(action), action.group.sample((4,))
    image = target.act_each(elements, network(x))
    assert image.abs().max() > 0.01
    torch.testing.assert_close(network(action.act_each(elements, x)), image, rtol=0, atol=1e-11)


@pytest.mark.parametrize("activation", ["splines", "clipswish", "sorted_pairs", "soft_threshold", "gated"])
def test_every_activation_keeps_the_signs_of_rows(activation):
    action = ACTIONS["signed S4, odd and even"]
    network = randomize_(RowsNetwork(action, action, width=4, activation=activation).double())
    x, elements = events(action), action.group.sample((4,))
    image = action.act_each(elements, network(x))
    assert image.abs().max() > 0.01
    torch.testing.assert_close(network(action.act_each(elements, x)), image, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_invariants_of_odd_features_reach_the_other_rows(kind):
    action = ACTIONS["signed S20, odd"]
    network = randomize_(KINDS[kind](action, action.trivial_fields(1), width=3).double())
    x = events(action, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    assert (gradient.unflatten(-1, (20, 2)).norm(dim=-1) > 1e-8).all()
    target = RowsAction(20, 1, signed=[])
    (gradient,) = torch.autograd.grad(randomize_(KINDS[kind](action, target, width=3).double())(x)[0, 3], x)
    assert (gradient.unflatten(-1, (20, 2)).norm(dim=-1) > 1e-10).all()


def test_odd_features_are_read_from_other_rows_by_attention():
    action = ACTIONS["signed S20, odd"]
    for kind, depth in ((RowsNetwork, 1), (RowsAttention, 1)):
        network = randomize_(kind(action, action, width=3, depth=depth).double())
        # with one layer a deep set has no invariant yet that another row could read; a moment of odd features is one
        x = events(action, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[0, 0], x)
        others = gradient.unflatten(-1, (20, 2))[0, 1:].norm(dim=-1)
        assert (others > 1e-8).all() if kind is RowsAttention else not others.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_in_which_every_row_occurs_twice_is_read_like_the_set(kind):
    few, many = (RowsAction(n, 2, signed=[1]) for n in (3, 6))
    network = randomize_(KINDS[kind](few, few, width=3).double())
    larger = KINDS[kind](many, many, width=3).double()
    larger.load_state_dict(network.state_dict())
    x = events(few).unflatten(-1, (3, 2))
    found = larger(torch.cat([x, x], -2).flatten(-2)).unflatten(-1, (6, 2))
    expected = network(x.flatten(-2)).unflatten(-1, (3, 2))
    torch.testing.assert_close(found, torch.cat([expected, expected], -2), rtol=0, atol=1e-12)


def test_conditioners_on_rows_start_at_zero_unless_told_otherwise(action):
    x = events(action)
    network = conditioner(action, action, width=2).double()
    assert type(network) is RowsNetwork
    assert network(x).abs().max() == 0
    assert conditioner(action, action, width=2, start=0.5).double()(x).abs().max() > 0


def test_a_mean_free_output_is_mean_free():
    action = RowsAction(5, 2)
    target = RowsAction(5, 3, mean_free=True)
    network = randomize_(RowsNetwork(action, target, width=3).double())
    found = target.unpack(network(events(action))).even[0]
    assert found.abs().max() > 0.01
    assert found.mean(-2).abs().max() < 1e-14


def test_small_networks_agree_with_those_of_the_enumerated_group():
    # every map of a deep set is one that the dense equivariant layer of the small group can be set to
    action, listed = RowsAction(3, 2), VectorAction.rows("S3", features=2)
    network = RowsNetwork(action, action, depth=0).double()
    dense = EquivariantMLP(listed, listed, depth=0).double()
    x = events(action)
    target = network(x).detach()
    loss = lambda: (dense(x) - target).square().sum()  # noqa: E731
    optimizer = torch.optim.LBFGS(dense.parameters(), max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-16)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    assert loss() < 1e-10


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("scale", [0.3, 30.0])
def test_the_bound_of_a_deep_set_holds(action, depth, scale):
    branch = randomize_(LipschitzRowsNetwork(action, width=2, depth=depth, bound=0.8).double(), scale=scale)
    jacobians = torch.func.vmap(torch.func.jacrev(branch))(events(action, 2))
    norm = torch.linalg.matrix_norm(jacobians, 2).max()
    assert norm <= branch.lipschitz_bound() + 1e-12
    assert branch.lipschitz_bound() <= 0.8 * (1 + 1e-12)
    if depth == 0:
        torch.testing.assert_close(branch.lipschitz_bound(), norm, rtol=1e-9, atol=1e-12)
    x, elements = events(action), action.group.sample((4,))
    image = action.act_each(elements, branch(x))
    torch.testing.assert_close(branch(action.act_each(elements, x)), image, rtol=0, atol=1e-11)


@pytest.mark.parametrize("activation", ["splines", "lipswish", "clipswish", "sorted_pairs", "soft_threshold"])
def test_the_bound_holds_for_odd_features_with_every_activation(activation):
    action = ACTIONS["signed S4, odd and even"]
    branch = randomize_(LipschitzRowsNetwork(action, width=4, bound=0.9, activation=activation).double(), scale=10.0)
    jacobians = torch.func.vmap(torch.func.jacrev(branch))(events(action, 3))
    assert 0.01 < torch.linalg.matrix_norm(jacobians, 2).max() <= branch.lipschitz_bound() + 1e-12


def test_contractions_on_rows_refuse_what_has_no_bound():
    action = RowsAction(5, 2)
    with pytest.raises(ValueError, match="1-Lipschitz activation .* 'splines', .* got GatedNorm, whose slope"):
        LipschitzRowsNetwork(action, activation="gated")
    with pytest.raises(TypeError, match="got RowsAttention: .* without bound; take PooledBranch"):
        GResidual(action, RowsAttention(action, action))
    with pytest.raises(ValueError, match=r"Lipschitz bound in \(0, 1\), got 1.0"):
        LipschitzRowsNetwork(action, bound=1.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: RowsNetwork(VectorAction.plane("C4"), RowsAction(3)),
            TypeError,
            "a RowsAction, whose events .* got VectorAction",
        ),
        (lambda: RowsNetwork(RowsAction(3), RowsAction(4)), ValueError, "one group on rows"),
        (lambda: RowsNetwork(RowsAction(3), RowsAction(3), width=0), ValueError, "width >= 1 .* got 0"),
        (lambda: RowsAttention(RowsAction(3), RowsAction(3), keys=0), ValueError, "keys >= 1 .* got 0"),
        (
            lambda: RowsAttention(RowsAction(3), RowsAction(3), over="all"),
            ValueError,
            "over='pairs', got 8 and 'all'",
        ),
        (lambda: conditioner(RowsAction.of_matrix(3), RowsAction(3)), TypeError, "without matrix fields"),
        (lambda: lipschitz_branch(RowsAction.of_matrix(3)), TypeError, "without matrix fields"),
    ],
)
def test_bad_networks_on_rows_say_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_cost_is_linear_in_the_number_of_rows():
    def seconds(n):
        action = RowsAction(n, 3)
        network, x = RowsNetwork(action, action), torch.randn(1, 3 * n)
        network(x)
        start = time.process_time()
        for _ in range(3):
            network(x)
        return time.process_time() - start

    # a matrix of the size of an event would take ten thousand times as long
    assert seconds(40_000) < 100 * max(seconds(400), 1e-3)
