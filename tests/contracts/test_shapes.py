"""Batch shapes, batch ranks and rows (contracts 6, 9, 10, 13)."""

import pytest
import torch
from torch.distributions import biject_to

from pyro_gflows.spaces import MeanFree
from pyro_gflows.testing import assert_equivariant
from tests.constructors import CONSTRUCTORS, events

RANKS = [(), (1,), (4,), (2, 3)]


@pytest.mark.parametrize("batch", RANKS, ids=str)
def test_log_det_and_log_prob_have_the_batch_shape(flow, batch):
    """Contracts 6 and 10: the shape is the batch shape, of any rank."""
    transform = flow.transform
    x = events(transform, *batch)
    y, ladj = transform.call_and_ladj(x)
    assert y.shape == batch + transform.action_out.event_shape and ladj.shape == batch
    back, inverse_ladj = transform.inv_call_and_ladj(y)
    assert back.shape == x.shape and inverse_ladj.shape == batch
    assert transform.log_abs_det_jacobian(x, y).shape == batch
    assert flow(y).shape == flow.dist.log_prob(y).shape == batch
    assert flow.dist.sample(batch).shape == y.shape
    assert transform.forward_shape(x.shape) == y.shape and transform.inverse_shape(y.shape) == x.shape


@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
def test_no_events_at_all(flow, batch):
    """A batch without events, which a filter on data may leave, has shapes, scores, draws and gradients."""
    drawn = flow.dist.sample(batch)
    assert drawn.shape == batch + flow.action.event_shape and flow.dist.log_prob(drawn).shape == batch
    scores = flow(drawn.clone().requires_grad_())
    assert scores.shape == batch
    scores.sum().backward()
    assert flow.dist.expand(batch).rsample().shape == drawn.shape
    with pytest.raises(ValueError, match="of shape"):
        flow.dist.log_prob(drawn.new_zeros(0, *drawn.shape[1:-1], drawn.shape[-1] + 1))


def test_log_det_shape_where_the_batch_is_as_large_as_the_event(flow):
    """An extra dimension would broadcast silently here (contract 6)."""
    x = events(flow.transform, *flow.transform.action_in.event_shape[-1:])
    y, ladj = flow.transform.call_and_ladj(x)
    assert ladj.shape == flow(y).shape == x.shape[:1]


def test_a_row_does_not_depend_on_its_batch(flow):
    """A batch of 1 is the same row in a batch of N (contract 9)."""
    x = events(flow, 5)
    alone = torch.cat([flow(row[None]) for row in x])
    torch.testing.assert_close(flow(x), alone, rtol=1e-10, atol=1e-10)
    y = events(flow.transform, 5)
    together = flow.transform(y.clone())
    torch.testing.assert_close(together, torch.cat([flow.transform(row[None]) for row in y]), rtol=1e-10, atol=1e-10)


def test_train_and_eval_agree_on_the_map(flow):
    """Contract 9: filters frozen by eval()."""
    x = events(flow.transform, 3)
    in_eval = flow.transform(x.clone())
    torch.testing.assert_close(flow.train().transform(x.clone()), in_eval, rtol=1e-10, atol=1e-10)


def test_fresh_data_can_be_scored_and_drawn_both_ways(flow):
    """Contract 13."""
    assert flow(events(flow, 2)).isfinite().all()
    assert flow.dist.sample((2,)).isfinite().all()
    assert flow.transform.inv.inv is flow.transform


def test_going_to_the_support_breaks_no_symmetry(flow, name):
    """``biject_to(support)`` is the identity, or one map for all coordinates, which are permuted (contract 15)."""
    x = events(flow, 2)
    assert flow.dist.support.check(x).shape == (2,)
    to_support = biject_to(flow.dist.support)
    if isinstance(flow.action.space, MeanFree):
        assert_equivariant(lambda x: to_support(to_support.inv(x)), flow.action, flow.action, x)
        torch.testing.assert_close(to_support.inv(x).norm(dim=-1), x.flatten(1).norm(dim=-1))  # an isometry
    elif CONSTRUCTORS[name].bounded:
        assert_equivariant(lambda x: to_support(x), flow.action, flow.action, x)
    else:
        assert torch.equal(to_support(x), x)


def test_expand_leaves_the_original_alone(flow):
    """Contract 14."""
    distribution = flow.dist
    wide = distribution.expand((3,)).expand((2, 3))
    assert distribution.batch_shape == () and wide.batch_shape == (2, 3)
    x = events(flow)
    assert wide.log_prob(x).shape == (2, 3) and wide.sample((4,)).shape == (4, 2, 3, *flow.action.event_shape)
    torch.testing.assert_close(wide.log_prob(x), distribution.log_prob(x).expand(2, 3))
    assert flow.dist.base_dist.batch_shape == ()


def test_wrong_events_are_refused(flow):
    with pytest.raises(ValueError, match="event_shape|expected"):
        flow(torch.zeros(*flow.action.event_shape[:-1], flow.action.event_shape[-1] + 1, dtype=torch.float64))
    with pytest.raises(TypeError, match="floating"):
        flow.transform(torch.zeros(flow.transform.action_in.event_shape, dtype=torch.int64))
