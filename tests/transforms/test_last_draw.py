"""What a transform remembers of its last draw: that pair alone, and once."""

import pytest
import torch

from pyro_gflows import GActNorm, VectorAction
from pyro_gflows.testing import randomize_

ACTION = VectorAction.plane("C4")


class Counted(GActNorm):
    """A scale that depends on the point, so that no two points have one log-det."""

    calls = 0

    def call_and_ladj(self, x):
        self.calls += 1
        return x.sinh(), x.cosh().log().sum(-1)

    def inv_call_and_ladj(self, y):
        return y.asinh(), -y.asinh().cosh().log().sum(-1)


@pytest.fixture
def layer():
    return randomize_(Counted(ACTION)).double()


def pair(seed):
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x, x.sinh(), x.cosh().log().sum(-1)


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_the_log_det_of_the_last_pair_costs_nothing_and_is_given_once(layer, inverse):
    x, y, expected = pair(0)
    x, y = (layer.inv(y), y) if inverse else (x, layer(x))
    before = layer.calls
    torch.testing.assert_close(layer.log_abs_det_jacobian(x, y), expected)
    assert layer.calls == before
    torch.testing.assert_close(layer.log_abs_det_jacobian(x, y), expected)
    assert layer.calls == before + 1


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_another_pair_has_its_own_log_det(layer, inverse):
    x, y, _ = pair(0)
    x, y = (layer.inv(y), y) if inverse else (x, layer(x))
    other_x, other_y, expected = pair(1)
    for first, second in ((other_x, other_y), (other_x, y)):
        torch.testing.assert_close(layer.log_abs_det_jacobian(first, second), expected)
        x, y = (layer.inv(y.clone()), y) if inverse else (x, layer(x))


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_the_way_back_of_the_last_draw_is_what_it_was_made_from(layer, inverse):
    x, y, _ = pair(0)
    if inverse:
        drawn = layer.inv(y)
        assert layer(drawn) is y and layer.calls == 0
        assert layer(drawn.clone()) is not y and layer.calls == 1
    else:
        drawn = layer(x)
        assert layer.inv(drawn) is x and layer.inv(drawn.clone()) is not x
