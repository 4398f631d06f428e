"""The branch that reads a context, and its Jacobian in x."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import ConditionalBranch
from pyro_gflows.testing import randomize_

PAIRS = {
    "plane D4 given corners": (VectorAction.plane("D4"), VectorAction.regular("D4")),
    "regular C3": (VectorAction.regular("C3", copies=2), VectorAction.plane("C3")),
    "two vectors SO(3)": (VectorAction.space("SO(3)", copies=2), VectorAction.space("SO(3)")),
    "image D2": (ImageAction("D2", 2, size=2), ImageAction("D2", 1, size=2)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_its_jacobian_is_that_of_autograd(name):
    action, context_action = PAIRS[name]
    torch.manual_seed(0)
    branch = randomize_(ConditionalBranch(action, context_action, bound=0.9).double(), scale=0.7)
    x = torch.randn(3, *action.event_shape, dtype=torch.float64)
    context = torch.randn(3, *context_action.event_shape, dtype=torch.float64)
    value, jacobian = branch.condition(context).call_and_jacobian(x)
    torch.testing.assert_close(value, branch.condition(context)(x), rtol=0, atol=1e-12)
    # column j holds the derivative in component j of x
    for row in range(3):
        alone = branch.condition(context[row : row + 1])
        expected = torch.autograd.functional.jacobian(lambda z, f=alone: f(z.unsqueeze(0))[0].flatten(), x[row])
        torch.testing.assert_close(jacobian[row], expected.flatten(1), rtol=0, atol=1e-11)
    asymmetry = (jacobian - jacobian.mT).abs().max()
    assert asymmetry > 1e-3 or name == "plane D4 given corners"  # else its transpose would pass
