"""A long series whose graph is made in parts: the same estimate and gradients, with less memory."""

import pytest
import torch

from pyro_gflows import GResidual, ImageAction, VectorAction
from pyro_gflows.nn import lipschitz_branch
from pyro_gflows.numerics import SeriesLogDet, series
from pyro_gflows.testing import randomize_


def computed(action):
    """The log-det, its gradient in events and weights, and a second derivative."""
    torch.manual_seed(0)
    layer = GResidual(action, lipschitz_branch(action, bound=0.9), log_det=SeriesLogDet(12, probes=2))
    layer = randomize_(layer, generator=torch.Generator().manual_seed(1)).double().eval()
    x = torch.randn(3, *action.event_shape, dtype=torch.float64).requires_grad_()
    log_det = layer.inv_call_and_ladj(x)[1]
    found = torch.autograd.grad(log_det.sum(), [x, *layer.parameters()], create_graph=True, allow_unused=True)
    (second,) = torch.autograd.grad(found[0].square().sum(), x)
    return [log_det, *(gradient for gradient in found if gradient is not None), second]


@pytest.mark.parametrize("action", [ImageAction("C4", 1, size=4), VectorAction.space("SO(3)", copies=2)], ids=str)
def test_estimate_and_gradients_in_parts(action, monkeypatch):
    whole = computed(action)
    monkeypatch.setattr(series, "_MOST_STORED", 0)
    for one, other in zip(whole, computed(action), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def stored_by_a_score(layer, x):
    """How many numbers autograd keeps for the gradient of a score."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda kept: kept):
        layer.inv_call_and_ladj(x)
    return sum(kept)


def test_less_is_stored(monkeypatch):
    action = ImageAction.translations(size=9)
    layer = GResidual(action, lipschitz_branch(action, bound=0.9), log_det=SeriesLogDet(100, probes=1)).eval()
    x = torch.randn(2, *action.event_shape)
    whole = stored_by_a_score(layer, x)
    monkeypatch.setattr(series, "_MOST_STORED", 0)
    assert stored_by_a_score(layer, x) < whole / 4
