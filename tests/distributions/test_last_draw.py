"""What a distribution remembers of its last draw: that draw alone, once, and in this distribution only."""

import copy
import pickle

import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, GLinear, InvariantNormal, VectorAction
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.testing import randomize_

ACTION = VectorAction.plane("C4")


class Counted(GActNorm):
    """A scale that depends on the point, so that no two points have one log-det."""

    calls = 0

    def call_and_ladj(self, x, context=None):
        self.calls += 1
        return x.sinh(), x.cosh().log().sum(-1)

    def inv_call_and_ladj(self, y, context=None):
        self.calls += 1
        return y.asinh(), -y.asinh().cosh().log().sum(-1)


@pytest.fixture
def layer():
    return randomize_(Counted(ACTION)).double()


@pytest.fixture
def flow(layer):
    return EquivariantFlow(InvariantNormal(ACTION), [layer]).double()


def expected(flow, y):
    x = y.asinh()
    return flow.base.log_prob(x) - x.cosh().log().sum(-1)


@pytest.mark.parametrize("draw", ["sample", "rsample"])
@pytest.mark.parametrize("expand", [False, True], ids=["plain", "expanded"])
def test_the_score_of_the_last_draw_costs_no_pass_and_is_given_once(flow, layer, draw, expand):
    density = flow.dist.expand((3,)) if expand else flow.dist
    with torch.no_grad():
        y = getattr(density, draw)(() if expand else (3,))
        before = layer.calls
        torch.testing.assert_close(density.log_prob(y), expected(flow, y))
        assert layer.calls == before
        torch.testing.assert_close(density.log_prob(y), expected(flow, y))
        assert layer.calls == before + 1


def test_another_draw_has_its_own_score(flow):
    density = flow.dist
    with torch.no_grad():
        first, second = density.sample((3,)), density.sample((3,))
        for y in (first, second.clone(), second):
            torch.testing.assert_close(density.log_prob(y), expected(flow, y))


def test_no_other_distribution_answers(flow, layer):
    """flow.dist twice is two distributions, and each expanded one is its own."""
    density = flow.dist
    for other in (flow.dist, density.expand((3,)), copy.deepcopy(density), pickle.loads(pickle.dumps(density))):
        with torch.no_grad():
            y = density.sample((3,))
            counted = other.transform.transforms[0]
            before = counted.calls
            torch.testing.assert_close(other.log_prob(y), expected(flow, y))
            assert counted.calls == before + 1
            before = layer.calls
            torch.testing.assert_close(density.log_prob(y), expected(flow, y))
            assert layer.calls == before


def test_transforms_remember_nothing(layer):
    x = torch.randn(3, 2, dtype=torch.float64)
    y = layer(x)
    assert layer.inv(y) is not x and layer.calls == 2
    layer.log_abs_det_jacobian(x, y)
    assert layer.calls == 3


def test_a_draw_that_is_gone_is_forgotten(flow):
    density = flow.dist
    y = density.rsample((3,))
    assert density._last_draw._memory is not None
    del y
    assert density._last_draw._memory is None


def test_it_can_be_cleared(flow, layer):
    density = flow.dist
    with torch.no_grad():
        y = density.sample((3,))
        density.clear_cache()
        before = layer.calls
        density.log_prob(y)
    assert layer.calls == before + 1


def test_fresh_data_leave_nothing_behind(flow):
    """Neither a copy of the weights nor a graph of the data is kept."""
    density = flow.dist
    density.log_prob(torch.randn(3, 2, dtype=torch.float64))
    assert density._last_draw._memory is None


def test_one_comparison_for_all_tensors(flow, monkeypatch):
    """On a GPU each one would make the host wait."""
    compared = []
    equal = torch.equal
    monkeypatch.setattr(torch, "equal", lambda *both: compared.append(both) or equal(*both))
    density = flow.dist
    y = density.rsample((3,))
    density.log_prob(y)
    assert len(compared) == 1


def test_a_constant_basis_that_was_changed_is_noticed():
    """As where a file brings the basis that its weights refer to: bases are compared by identity and version."""
    action = VectorAction.plane("D3", copies=2)
    flow = randomize_(EquivariantFlow(InvariantNormal(action), [GLinear(action)])).double()
    bases = [module for module in flow.transform.modules() if isinstance(module, FixedBasis)]
    assert bases
    density = flow.dist
    with torch.no_grad():
        y = density.sample((3,))
        for basis in bases:
            basis.value.mul_(1.1)
        found, fresh = density.log_prob(y), flow.dist.log_prob(y.clone())
    torch.testing.assert_close(found, fresh, rtol=1e-9, atol=1e-9)
