"""What the tests of residual branches share."""

import torch

from pyro_gflows.actions import VectorAction

QUATERNIONS = [
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
]

ACTIONS = {
    "plane D8": VectorAction.plane("D8"),
    "plane C3": VectorAction.plane("C3"),
    "no symmetry": VectorAction.trivial("C1", copies=2),
    "regular D3": VectorAction.regular("D3"),
    "two planes C4": VectorAction.plane("C4", copies=2),
    "quaternions": VectorAction.from_generators(QUATERNIONS),
    "O(2)": VectorAction.plane("O(2)"),
    "SO(3), two vectors and a number": VectorAction.space("SO(3)", copies=2).direct_sum(VectorAction.trivial("SO(3)")),
}
FINITE = {name: action for name, action in ACTIONS.items() if action.is_finite}


def points(action, count=40):
    """Random events of many sizes, the origin, and events on an axis."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, action.numel, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(-4, 1, count, dtype=torch.float64)[:, None]
    return torch.cat([x, torch.zeros(1, action.numel).double(), torch.eye(action.numel).double()])


def extreme_(module, seed):
    """Every weight of every spline at +-20, all others from a wide normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(20 * noise.sign() if "theta" in name else 10**seed * noise)
    return module


def autograd_jacobian(function, x):
    return torch.stack([torch.autograd.functional.jacobian(function, row) for row in x])


def assert_equivariant(function, action, x):
    elements = action.sample((len(x),), torch.Generator().manual_seed(1))
    image = action.act_each(elements, function(x))
    torch.testing.assert_close(function(action.act_each(elements, x)), image, rtol=0, atol=1e-11)
