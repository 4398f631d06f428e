"""Hidden layers of a given number of invariants and of copies of each kind of vector."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.groups import parse_group
from pyro_gflows.nn import EquivariantLinear, EquivariantMLP, HiddenFields
from pyro_gflows.nn.hidden_fields import maps_between
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_equivariant, randomize_

TWO = parse_group("S4 x C2")
ROWS_AND_SIGN = VectorAction.rows("S4", features=3).lift(TWO, 0).direct_sum(VectorAction.signs(1).lift(TWO, 1))

# the action, and the sizes of the kinds of vectors in it
ACTIONS = {
    "planes": (VectorAction.plane("O(2)", copies=9), [2]),
    "planes and numbers": (
        VectorAction.trivial("SO(2)", copies=4).direct_sum(VectorAction.plane("SO(2)", copies=2)),
        [2],
    ),
    "vectors": (VectorAction.space("O(3)", copies=2), [3]),
    "rows": (VectorAction.rows("S5", features=4), [5]),
    "rows and numbers": (VectorAction.trivial("S4").direct_sum(VectorAction.rows("S4", features=2)), [4]),
    "rows and a sign": (ROWS_AND_SIGN, [1, 3]),  # no permutation of all numbers: by irreps
    "signs": (VectorAction.signs(3, copies=2), [1, 1, 1]),
    "numbers": (VectorAction.trivial("S3", copies=4), []),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_holds_so_many_of_each_kind(name):
    action, kinds = ACTIONS[name]
    hidden = HiddenFields(5, 2)(action)
    assert hidden.numel == 5 + 2 * sum(kinds)
    assert hidden.group == action.group
    invariants = 5 + (2 * len(kinds) if action.is_permutation else 0)  # an orbit has a mean
    assert len(hidden.invariants()) == invariants


@pytest.mark.parametrize("name", ACTIONS)
def test_a_network_with_such_layers_is_equivariant_and_is_rebuilt_from_its_description(name):
    action, _ = ACTIONS[name]
    network = EquivariantMLP(action, action.copies(2), hidden_fields=HiddenFields(3, 2)).double()
    randomize_(network, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, action.numel, dtype=torch.float64)
    assert_equivariant(network, action, action.copies(2), x, tol=1e-10)
    again = build(describe(network)).double()
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(x), network(x))


@pytest.mark.parametrize("name", ACTIONS)
def test_the_weights_of_a_linear_map_are_counted(name):
    action, _ = ACTIONS[name]
    hidden = HiddenFields(3, 2)(action)
    first = EquivariantLinear(action, hidden, bias=False)
    assert maps_between(action, hidden) == sum(weight.numel() for weight in first.parameters())
    assert maps_between(action, hidden) == maps_between(hidden, action)


def test_bad_input_says_what_was_expected():
    with pytest.raises(ValueError, match="at least one invariant and one copy, got 0 and 1"):
        HiddenFields(0, 1)
    with pytest.raises(TypeError, match="a network on vectors, got an input of ImageAction"):
        HiddenFields(1, 1)(ImageAction("C4", size=4))
