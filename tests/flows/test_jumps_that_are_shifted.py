"""Why no trainable layer follows a density with jumps: gradients miss a term from the boundary (contract 49)."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_gflows import AutoGFlow, Canonicalized, RowsAction, SitesAction, VectorAction
from pyro_gflows.testing import randomize_

HALF, COUNT = 6.0, 300
TWO_ROWS = RowsAction(2, 2, mean_free=True)  # the differences of two features of two rows: x and -x are images
FIRST_FEATURE = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])


def base_near_its_wall(action, key=None, *, random):
    """A base whose mode is half a standard deviation away from the wall where the first coordinate is 0."""
    torch.manual_seed(0)
    base = Canonicalized(action, steps=2, width=4, key=key)
    base.module.double()
    base.start_at(torch.tensor([0.5, 1.5], dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    if random:
        randomize_(base.module.transform, scale=0.05, generator=torch.Generator().manual_seed(1))
    return base


def sheared(x, amount):
    """A linear map of log-det 0 that commutes with x -> -x, and takes the wall to another line."""
    return torch.stack([x[:, 0] - amount * x[:, 1], x[:, 1]], -1)


def scaled(x, amount):
    """A linear map of log-det 0 that commutes with sign flips, and takes each wall to itself."""
    return x * torch.stack([amount.exp(), (-amount).exp()])


def slopes(base, layer):
    """The slope of the expected log-likelihood of normal data in a layer's weight: by differences, and autograd."""
    ticks = torch.linspace(-HALF, HALF, 2 * COUNT + 1, dtype=torch.float64)[1::2]  # midpoints
    grid = torch.cartesian_prod(ticks, ticks)
    density = dist.Normal(0.0, 1.0).log_prob(grid).sum(-1).exp() * (2 * HALF / COUNT) ** 2

    def expected(amount):
        return (density * base.log_prob(layer(grid, amount))).sum()

    step, weight = torch.tensor(0.05, dtype=torch.float64), torch.zeros((), dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        difference = float((expected(step) - expected(-step)) / (2 * step))
    return difference, float(torch.autograd.grad(expected(weight), weight)[0])


def test_the_gradient_of_a_layer_that_shifts_a_jump_is_wrong():
    base = base_near_its_wall(TWO_ROWS, key=FIRST_FEATURE, random=False)
    assert base.may_jump
    difference, gradient = slopes(base, sheared)
    assert difference < -1.0 and abs(gradient) < 1e-10  # all of the slope comes from the jump, and is missed
    base = base_near_its_wall(TWO_ROWS, key=FIRST_FEATURE, random=True)
    difference, gradient = slopes(base, sheared)
    assert difference < -1.0 and gradient > -0.2


def test_the_gradient_of_a_layer_that_shifts_no_jump_is_right():
    """The same quadrature, where the walls stay in their places and are mirrors."""
    base = base_near_its_wall(VectorAction.signs(2), random=True)
    assert not base.may_jump
    difference, gradient = slopes(base, scaled)
    assert difference == pytest.approx(gradient, abs=0.01) and abs(gradient) > 0.1


def test_the_base_that_a_guide_chooses_is_followed_by_no_trainable_layer():
    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
        pyro.factor("apart", (z[..., 0, 0] - z[..., 1, 0]).square().clamp(max=4.0))

    guide = AutoGFlow(model, SitesAction("S2", {"z": RowsAction(2, 2)}), base=Canonicalized)
    assert guide.flow.base.may_jump and not guide.flow.trains_jumps
    assert list(guide.flow.transform.parameters()) == []
