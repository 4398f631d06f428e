"""Estimated log-dets on rows: exactly invariant under permutations, signs and the group of the features."""

import math

import pytest
import torch

from pyro_gflows import GMonotone, GResidual, RowsAction, VectorAction
from pyro_gflows.actions.row_invariants import InvariantOrder
from pyro_gflows.guides.jumps import warn_of_jumps
from pyro_gflows.nn import CustomContraction, LipschitzRowsNetwork, PooledBranch
from pyro_gflows.numerics import ExactLogDet, RouletteLogDet, SeriesLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms.probe_images import probe_images
from tests.constructors.own_branch import OwnBranch
from tests.constructors.row_actions import LARGE, mixture
from tests.transforms.invariant_estimates import assert_exactly_invariant, log_det

BOUND, TERMS = 0.7, 12
PLANE = VectorAction.plane("O(2)")
ACTIONS = {
    "S20": RowsAction(20, 3),
    "mixture of 8": mixture(8),
    "5 hidden units": LARGE["5 hidden units"],
    "two large blocks": LARGE["two large blocks"],
    "S5 x O(2)": LARGE["S5 x O(2)"],
    "S13 x O(3)": LARGE["S13 x O(3)"],
    "S7 x SO(2)": LARGE["S7 x SO(2)"],
    "mean-free planes": RowsAction(5, PLANE, mean_free=True),
    "signed, odd and even planes": RowsAction(4, VectorAction.plane("O(2)", copies=2), signed=[0]),
    "signed, odd planes and an even scalar": RowsAction(4, PLANE.direct_sum(VectorAction.trivial("O(2)")), signed=[0]),
    "signed, odd planes alone": RowsAction(4, PLANE, signed=True),
    "rows of one of two blocks": RowsAction((5, 3), PLANE, block=0),
}
ROTATED = [name for name, action in ACTIONS.items() if action.structure.has_inner]


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def layer_of(action, *, probes=2, kind=GResidual, log_det=None):
    """A layer with a branch whose Jacobian mixes the rows."""
    torch.manual_seed(1)
    if any(odd is not None for odd in action.layout.odd):  # without even features, odd rows of a network do not mix
        branch = CustomContraction(OwnBranch(), action, bound=0.9)
    else:
        branch = LipschitzRowsNetwork(action, width=3, bound=BOUND)
    estimator = RouletteLogDet(evaluation=SeriesLogDet(TERMS, probes=probes)) if log_det is None else log_det
    layer = kind(action, branch, log_det=estimator)
    return randomize_(layer.double(), scale=0.5, generator=torch.Generator().manual_seed(1)).eval()


def events(action, count=4):
    return torch.randn(count, action.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def images(action, x, seed=0):
    return action.act_each(action.sample((len(x),), torch.Generator().manual_seed(seed)), x)


@pytest.mark.parametrize("kind", [GResidual, GMonotone])
def test_the_estimate_is_exactly_invariant(action, kind):
    """The probes follow the event (contract 48)."""
    layer, x = layer_of(action, kind=kind), events(action)
    estimator = SeriesLogDet(TERMS, probes=2)
    assert_exactly_invariant(layer, x, lambda seed: images(action, x, seed), estimator, lipschitz=0.9, broken=1e-4)


def test_the_mean_over_probes_is_the_exact_log_det(action):
    layer, x = layer_of(action, probes=64), events(action, 2)
    exact = ExactLogDet()(layer.branch, x, 1, lipschitz=0.9, training=False)[1]
    parts = []
    for part in layer.log_det.evaluation.parts(16):
        parts.append(log_det(GResidual(action, layer.branch, log_det=part), x))
    error = torch.stack(parts).std(0) / math.sqrt(len(parts))
    assert ((torch.stack(parts).mean(0) - exact).abs() <= 4.5 * error + 0.02).all()


@pytest.mark.parametrize("name", ROTATED)
def test_the_sum_over_the_images_of_a_probe_commutes_with_the_features(name):
    action, x = ACTIONS[name], events(ACTIONS[name], 1)
    probe = torch.randn(1, action.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = probe_images(action)(probe, x, 1)[:, 0, 0]
    gram = found.T @ found / len(found)
    structure = action.structure
    inner = structure.inner.sample((3,), torch.Generator().manual_seed(0))
    same = [torch.arange(size).expand(3, -1) for size in structure.sizes]
    for matrix in action.matrix(structure.elements_of(same, inner=inner)):
        torch.testing.assert_close(matrix @ gram @ matrix.T, gram, rtol=0, atol=1e-12)
    assert torch.linalg.matrix_rank(gram) > 1


def test_the_order_of_the_rows_does_not_depend_on_the_image(action):
    """Sorted images differ by an element of the features and, where signs are relative, by one sign of all rows."""
    order, x = InvariantOrder(action), events(action)
    g = action.sample((len(x),), torch.Generator().manual_seed(3))
    canonical = action.unpack(action.act_each(order(x), x))
    expected = action.unpack(action.act_each(order(action.act_each(g, x)), action.act_each(g, x)))
    torch.testing.assert_close(order.undo(x, action.act_each(order(x), x)), x, rtol=0, atol=1e-12)
    for own, other in zip((*canonical.even, *canonical.odd), (*expected.even, *expected.odd), strict=True):
        products, others = own @ own.mT, other @ other.mT
        torch.testing.assert_close(products, others, rtol=0, atol=1e-10)


def test_the_description_says_where_the_estimate_may_jump(action):
    layer = layer_of(action)
    assert "the estimate may jump where rows cross" in repr(layer)
    assert "jump" not in repr(layer_of(action, log_det=ExactLogDet()))


def test_nuts_is_warned_of_jumps():
    action = ACTIONS["S5 x O(2)"]
    with pytest.warns(UserWarning, match="NUTS asks for a density without jumps"):
        warn_of_jumps(layer_of(action))
    warn_of_jumps(GResidual(action, PooledBranch(action, width=2, pooled=2, bound=0.6)))


def test_inside_vmap(action):
    layer, x = layer_of(action), events(action, 3)
    mapped = torch.func.vmap(lambda row: layer.inv_call_and_ladj(row)[1])(x)
    torch.testing.assert_close(mapped, log_det(layer, x), rtol=0, atol=1e-11)


def test_each_event_has_the_probes_that_belong_to_it(action):
    layer, x = layer_of(action), events(action, 6)
    together = log_det(layer, x)
    torch.testing.assert_close(torch.stack([log_det(layer, row) for row in x]), together, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det(layer, x.reshape(2, 3, -1)), together.reshape(2, 3), rtol=0, atol=1e-12)
    assert log_det(layer, x[:0]).shape == (0,)
