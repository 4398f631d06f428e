"""What initialize makes of each orbit of coordinates."""

import pytest
import torch

from pyro_gflows import GOrbitNorm, ImageAction, VectorAction

ACTIONS = {
    "image D4": ImageAction("D4", 2, size=3),
    "image C2, not square": ImageAction("C2", 1, size=(2, 3)),
    "rows of S3": VectorAction.rows("S3", features=2),
    "regular C4 beside a number": VectorAction.regular("C4").direct_sum(VectorAction.trivial("C4")),
}


@pytest.mark.parametrize("direction", ["initialize", "initialize_inverse"])
@pytest.mark.parametrize("name", ACTIONS)
def test_each_orbit_gets_mean_0_and_standard_deviation_1(name, direction):
    action = ACTIONS[name]
    torch.manual_seed(0)
    size = torch.rand(action.event_shape, dtype=torch.float64) + 0.5
    x = 3 * size * torch.randn(200, *action.event_shape, dtype=torch.float64) + 10 * size
    layer = GOrbitNorm(action).double()
    given = getattr(layer, direction)(x)
    out = layer(x) if direction == "initialize" else layer.inv(x)
    torch.testing.assert_close(given.detach(), out.detach(), rtol=0, atol=1e-12)
    images = action.act_all(out.detach()).flatten(0, 1)  # each coordinate meets all those of its orbit
    torch.testing.assert_close(images.mean(0), torch.zeros_like(size), rtol=0, atol=1e-10)
    torch.testing.assert_close(images.std(0, correction=0), torch.ones_like(size), rtol=0, atol=1e-10)


@pytest.mark.parametrize("direction", ["initialize", "initialize_inverse"])
@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e4])
def test_data_of_any_size_are_scaled_to_1_and_constant_ones_stay_finite(direction, size):
    action = VectorAction.rows("S3")
    x = size * torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = getattr(GOrbitNorm(action).double(), direction)(x)
    assert out.detach().std(correction=0).item() == pytest.approx(1.0, rel=1e-9)
    constant = getattr(GOrbitNorm(action).double(), direction)(torch.full_like(x, size))
    assert constant.isfinite().all() and constant.abs().max() < 1e-4
