"""Every certified bound of a linear layer beside the largest singular value of its matrix."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import AlmostOrthogonalConv, LipschitzConv, LipschitzLinear, PolarConv
from pyro_gflows.testing import randomize_

GRIDS = {
    **{
        f"{group}, {size}x{size}": ImageAction(group, 1, size=size)
        for group in ("C4", "D4", "C1")
        for size in (2, 3, 6)
    },
    "D2, 4x6": ImageAction("D2", 1, size=(4, 6)),
    "shifts": ImageAction.translations(1, size=6),
}


def norm(layer):
    units = torch.eye(layer.action_in.numel, dtype=torch.float64).reshape(-1, *layer.action_in.event_shape)
    with torch.no_grad():
        return torch.linalg.matrix_norm((layer(units) - layer(torch.zeros_like(units))).flatten(1), 2)


@pytest.mark.parametrize("kind", [LipschitzConv, AlmostOrthogonalConv, PolarConv])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_convolutions_are_bounded_within_half(grid, kind):
    """At random weights, large and small, and at weights of one sign, for which zero padding loses most."""
    hidden = grid.regular_fields(2)
    for source, target in ((grid, hidden), (hidden, hidden), (hidden, grid)):
        layer = kind(source, target, bound=0.9).double()
        for scale in (1e-3, 10.0):
            randomize_(layer, scale=scale, generator=torch.Generator().manual_seed(0))
            for _ in ("as drawn", "of one sign"):
                value, bound = norm(layer), layer.lipschitz_bound()
                assert value * (1 - 1e-12) <= bound <= 0.9
                assert bound <= 1.5 * value
                with torch.no_grad():
                    layer.orbit_weights.abs_()


@pytest.mark.parametrize("group", ["C4", "D3", "D4"])
def test_linear_maps_are_bounded_by_their_norm(group):
    action = VectorAction.regular(group, copies=2).direct_sum(VectorAction.plane(group))
    layer = randomize_(LipschitzLinear(action, action, bound=0.9).double(), scale=3.0)
    torch.testing.assert_close(layer.lipschitz_bound(), norm(layer), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", [AlmostOrthogonalConv, PolarConv])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_nearly_orthogonal_convolutions_are_equivariant(kind, kernel_size):
    grid = ImageAction("D4", 1, size=5)
    hidden = grid.regular_fields(2)
    x = torch.randn(4, *hidden.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for source, target in ((grid, hidden), (hidden, grid)):
        layer = randomize_(kind(source, target, kernel_size=kernel_size).double(), scale=1.0)
        y = layer(x[:, : source.channels])
        image = layer(source.act_all(x[:, : source.channels]))
        torch.testing.assert_close(image, target.act_all(y), rtol=0, atol=1e-12)
        y.square().sum().backward()
        assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in layer.parameters())


def test_nearly_orthogonal_convolutions_have_flatter_spectra():
    grid = ImageAction("C4", 1, size=8)
    hidden = grid.regular_fields(4)
    torch.manual_seed(0)
    evenness = {}
    for kind in (LipschitzConv, PolarConv):
        layer = kind(grid, hidden, bias=False).double()
        units = torch.eye(64, dtype=torch.float64).reshape(-1, 1, 8, 8)
        values = torch.linalg.svdvals(layer(units).detach().flatten(1))
        evenness[kind] = values.mean() / values.max()
    assert evenness[PolarConv] > evenness[LipschitzConv]


def test_no_weights_make_no_output():
    grid = ImageAction("C4", 1, size=4)
    for kind in (AlmostOrthogonalConv, PolarConv):
        layer = kind(grid, grid.regular_fields(1), bias=False)
        torch.nn.init.zeros_(layer.orbit_weights)
        assert not layer(torch.ones(1, 4, 4)).any()
