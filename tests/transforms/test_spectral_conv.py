"""GSpectralConv against materialized matrices and the exponential of a convolution, and symbols of the user's own."""

import math

import pytest
import torch

from pyro_gflows import GConvExponential, GSpectralConv, ImageAction
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.representations import MatrixRepresentation
from pyro_gflows.nn.torus_kernel import TorusKernel
from pyro_gflows.testing import assert_layer, randomize_

D4 = parse_group("D4")
PLANES = MatrixRepresentation(D4, D4.plane())
ACTIONS = {
    "C4, even grid": ImageAction("C4", 2, size=4),
    "C4, odd grid, regular": ImageAction("C4", 1, size=3, fields="regular"),
    "D4, even grid, regular": ImageAction("D4", 1, size=2, fields="regular"),
    "D4, vectors at each pixel": ImageAction("D4", size=4, fields=PLANES),
    "D2, H != W": ImageAction("D2", 2, size=(2, 3)),
    "translations, 2 x 2": ImageAction.translations(2, size=2, point_group="D4"),
    "translations, 3 x 3, regular": ImageAction.translations(1, size=3, point_group="C4", fields="regular"),
    "translations, H != W": ImageAction.translations(2, size=(4, 3), point_group="D1"),
    "translations, no point group": ImageAction.translations(3, size=3),
}
SUPPORTS = [3, 5, None]


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def make(action, *, support=None, seed=0, **keywords):
    layer = GSpectralConv(action, support=support, **keywords).double()
    return randomize_(layer, generator=torch.Generator().manual_seed(seed))


def events(action, n=4):
    return torch.randn(n, *action.event_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def dense(kernel):
    """The matrix of y(p) = sum_q a(q) x(p + q), entry by entry."""
    channels, _, height, width = kernel.shape
    matrix = torch.zeros(channels, height, width, channels, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            for down in range(height):
                for right in range(width):
                    to = (row + down) % height, (column + right) % width
                    matrix[:, row, column, :, to[0], to[1]] = kernel[:, :, down, right]
    return matrix.flatten(3).flatten(0, 2)


@pytest.mark.parametrize("support", SUPPORTS)
@torch.no_grad()
def test_it_is_the_exponential_of_the_materialized_convolution(action, support):
    layer = make(action, support=support)
    generator, x = dense(layer.kernel()), events(action)
    exponential = torch.linalg.matrix_exp(generator)
    y, ladj = layer.call_and_ladj(x)
    assert (y.flatten(1) - x.flatten(1) @ exponential.T).abs().max() <= 1e-9
    expected = torch.linalg.slogdet(exponential).logabsdet.expand(4)
    assert (ladj - expected).abs().max() <= 1e-9
    back, inverse_ladj = layer.inv_call_and_ladj(y)
    direct = torch.linalg.solve(exponential, y.flatten(1).T).T
    assert (back.flatten(1) - direct).abs().max() <= 1e-9 and (back - x).abs().max() <= 1e-9
    assert (inverse_ladj + expected).abs().max() <= 1e-9


@pytest.mark.parametrize("support", SUPPORTS)
def test_it_is_an_equivariant_bijection_with_its_log_det(action, support):
    assert_layer(make(action, support=support), events(action, 1), tol=1e-9)


def test_it_commutes_with_all_shifts(action):
    layer, x = make(action), events(action)
    torch.testing.assert_close(layer(x.roll((1, 2), (2, 3))), layer(x).roll((1, 2), (2, 3)), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_the_symbol_transforms_with_the_frequency(action):
    """A(g k) = rho(g) A(k) rho(g)^-1, and the log-det is the sum of the real traces of A."""
    layer = make(action)
    symbol = torch.fft.fft2(layer.kernel()).conj().permute(2, 3, 0, 1)
    height, width = symbol.shape[:2]
    point, channels = action.point_group, action.channel_matrices(action.point_group.elements()).to(symbol.dtype)
    # frequencies (down, right) go to themselves as offsets do, by matrices for (right, up)
    for element, (right_up, rho) in enumerate(zip(point.plane(), channels, strict=True)):
        for k in ((0, 1), (1, 0), (1, 1), (height - 1, 1)):
            right, up = (right_up @ torch.tensor([k[1], -k[0]], dtype=torch.float64)).round().long().tolist()
            image = symbol[-up % height, right % width]
            assert (image - rho @ symbol[k] @ rho.mH).abs().max() < 1e-12, element
    ladj = layer.call_and_ladj(events(action, 1))[1]
    traces = symbol.diagonal(dim1=-2, dim2=-1).sum(-1).real.sum()
    torch.testing.assert_close(ladj[0], traces)


@pytest.mark.parametrize("name", [name for name in ACTIONS if name.startswith("translations")])
@pytest.mark.parametrize("support", [3, 5])
@torch.no_grad()
def test_with_one_kernel_it_is_the_exponential_of_the_convolution(name, support):
    action = ACTIONS[name]
    spectral = make(action, support=support, max_log_scale=1e6)
    other = randomize_(GConvExponential(action, kernel_size=support, bias=False, max_log_scale=1e6)).double()
    kernel, (height, width) = other.kernel(), action.event_shape[1:]
    reach, folded = support // 2, torch.zeros(*kernel.shape[:2], height, width, dtype=torch.float64)
    for down in range(support):
        for right in range(support):
            folded[:, :, (down - reach) % height, (right - reach) % width] += kernel[:, :, down, right]
    spectral.generator.assign_(folded)
    torch.testing.assert_close(spectral.generator.kernel(), folded, rtol=1e-12, atol=1e-12)
    x = events(action)
    for found, expected in zip(spectral.call_and_ladj(x), other.call_and_ladj(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    # where the grid is larger than the support, both have the same weights
    if support <= min(height, width):
        assert len(spectral.generator.orbit_weights) == len(other.conv.orbit_weights)


@pytest.mark.parametrize("kind", ["any", "symmetric", "skew-symmetric"])
@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0, 30.0])
@torch.no_grad()
def test_round_trips_at_small_and_large_norms(norm, kind):
    action = ACTIONS["translations, 3 x 3, regular"]
    layer = make(action, max_log_scale=1e8)
    free = layer.generator.kernel()
    transposed = free.transpose(0, 1).flip(2, 3).roll((1, 1), (2, 3))
    kernel = {"any": free, "symmetric": free + transposed}.get(kind, free - transposed)
    layer.generator.assign_(kernel * norm / torch.linalg.matrix_norm(dense(kernel), 2))
    matrix, x = dense(layer.kernel()), events(action)
    assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(norm, rel=1e-9)
    growth = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    back = layer.inv_call_and_ladj(layer.call_and_ladj(x)[0])[0]
    relative = (back - x).flatten(1).norm(dim=1).max() / x.flatten(1).norm(dim=1).max()
    allowed = max(1e-9, 100 * 2.3e-16 * math.exp(growth[-1] - growth[0]))
    assert relative <= (1e-8 if kind == "skew-symmetric" else allowed)


@torch.no_grad()
def test_far_weights_neither_grow_nor_shrink_beyond_the_bound(action):
    layer = make(action, max_log_scale=0.5)
    layer.generator.orbit_weights.mul_(1e4)
    matrix = dense(layer.kernel())
    growth = torch.linalg.eigvalsh((matrix + matrix.T) / 2).abs().max()
    assert 0.5 * action.channels ** (-1 / 8) * (1 - 1e-6) <= growth <= 0.5


def test_the_support_sets_the_number_of_weights():
    action = ImageAction.translations(2, size=8)
    assert [len(TorusKernel(action, support=side).orbit_weights) for side in (1, 3, 7, 9, None)] == [
        4, 36, 196, 256, 256,
    ]  # fmt: skip
    kernel = make(action, support=3).kernel()
    rows = kernel.abs().amax((0, 1, 3)) > 0
    assert rows.tolist() == [True, True, False, False, False, False, False, True]


def test_it_starts_as_the_identity():
    action = ACTIONS["C4, even grid"]
    x = events(action)
    y, ladj = GSpectralConv(action).double().call_and_ladj(x)
    torch.testing.assert_close(y, x)
    assert ladj.abs().max() == 0


# -- symbols of the user's own ----------------------------------------------------------------------------------------
@torch.no_grad()
def test_a_symbol_comes_back(action):
    layer = make(action)
    other = GSpectralConv.from_symbol(action, layer.symbol())
    x = events(action)
    for found, expected in zip(other.call_and_ladj(x), layer.call_and_ladj(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def blur(weight, *, size=4):
    """The symbol of x + weight * (the sum of the four neighbors)."""
    cosines = torch.cos(torch.arange(size, dtype=torch.float64) * 2 * math.pi / size)
    return (1 + 2 * weight * (cosines[:, None] + cosines))[..., None, None]


def test_a_singular_symbol_names_the_frequency():
    action = ImageAction.translations(size=4, point_group="D4")
    GSpectralConv.from_symbol(action, blur(0.2))
    with pytest.raises(ValueError, match=r"singular value .* at the frequency \(2, 2\).*no inverse"):
        GSpectralConv.from_symbol(action, blur(0.25))
    with pytest.raises(ValueError, match=r"negative eigenvalue at the frequency \(2, 2\); take its sign out"):
        GSpectralConv.from_symbol(action, blur(0.3))


def test_symbols_of_other_maps_are_named():
    action = ImageAction.translations(size=4, point_group="D4")
    symbol = blur(0.2)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 1, 1\)"):
        GSpectralConv.from_symbol(action, symbol[:, :3])
    tilted = symbol.clone()
    tilted[0, 1] += 0.1
    with pytest.raises(ValueError, match=r"of a real kernel.* by 0.0.* of its norm, at the frequency \(0, 1\)"):
        GSpectralConv.from_symbol(action, tilted)
    tilted[0, 3] += 0.1
    with pytest.raises(ValueError, match=r"equivariant for ImageAction.* at the frequency"):
        GSpectralConv.from_symbol(action, tilted)
    with pytest.raises(ValueError, match="growth below max_log_scale = 1, got 1.61"):
        GSpectralConv.from_symbol(action, blur(0.2), max_log_scale=1.0)
    with pytest.raises(ValueError, match="finite"):
        GSpectralConv.from_symbol(action, symbol * torch.inf)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="odd support.*got 4"):
        GSpectralConv(ImageAction("C4", size=8), support=4)
    with pytest.raises(ValueError, match="positive finite bound max_log_scale"):
        GSpectralConv(ImageAction("C4", size=8), max_log_scale=-1.0)
    with pytest.raises(ValueError, match="C4 does not map a 4 x 6 grid to itself"):
        GSpectralConv(ImageAction.translations(size=(4, 6), point_group="C4"))


@torch.no_grad()
def test_large_grids_and_large_batches():
    """Many matrices and many images, which are taken in parts."""
    action = ImageAction.translations(2, size=28, point_group="D4")
    layer = make(action, support=3, max_log_scale=0.5)
    layer.generator.orbit_weights.mul_(1e4)
    symbol = torch.fft.fft2(layer.kernel()).permute(2, 3, 0, 1)
    growth = torch.linalg.eigvalsh((symbol + symbol.mH) / 2).abs().max().item()
    assert 0.5 * 2 ** (-1 / 8) <= growth <= 0.5
    x = events(action, 1300)
    assert x.numel() > 3 * 2**19
    y, _ = layer.call_and_ladj(x)
    alone = torch.cat([layer(x[:1]), layer(x[-1:])])
    torch.testing.assert_close(y[[0, -1]], alone, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.inv_call_and_ladj(y)[0], x, rtol=1e-10, atol=1e-10)
