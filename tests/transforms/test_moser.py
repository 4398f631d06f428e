"""Moser's flow: the density it pushes, against quadrature and quantile maps; its symmetry; and what it refuses."""

from __future__ import annotations

import math
import re

import pytest
import torch

from pyro_gflows import EquivariantFlow, VectorAction
from pyro_gflows.actions import TorusAction
from pyro_gflows.distributions import InvariantUniform
from pyro_gflows.numerics import periodic_grid
from pyro_gflows.serialization.registry import describe
from pyro_gflows.testing import assert_equivariant, assert_layer
from pyro_gflows.transforms import moser

REFLECTION = TorusAction.point_group(VectorAction.signs(1))
SHIFTED_SQUARE = TorusAction.point_group("D4").with_translations([[math.pi, math.pi]])
PERMUTED = TorusAction.point_group(VectorAction.rows("S3"))


def normalized(function, dimension):
    """A log-density from a function, by the sum over a fine grid."""
    size = {1: 512, 2: 128, 3: 48}[dimension]
    values = function(periodic_grid(size, dimension).reshape(-1, dimension))
    log_mass = values.exp().mean().log().item() + dimension * math.log(2 * math.pi)
    return lambda x: function(x) - log_mass


def uniform(x):
    return -x.shape[-1] * math.log(2 * math.pi) + 0 * x[..., 0]


def wave(amplitude, frequency=1):
    return lambda x: (1 + amplitude * (frequency * x[..., 0]).cos()).log() - math.log(2 * math.pi)


SQUARES = (
    normalized(lambda x: 0.5 * (2 * x).cos().sum(-1), 2),
    normalized(lambda x: x.cos().prod(-1).square() - 0.6 * x.cos().prod(-1).exp().cos(), 2),
)
BUMPS = (
    normalized(lambda x: 0.8 * x.cos().sum(-1), 2),
    normalized(lambda x: 0.7 * x.cos().prod(-1) - 0.3 * x.cos().sum(-1), 2),
)
CUBES = (
    normalized(lambda x: 0.4 * x.cos().sum(-1), 3),
    normalized(lambda x: 0.5 * (x - x.roll(1, -1)).cos().sum(-1), 3),
)
FLOWS = {
    "an angle and its reflection": lambda: moser(wave(0.6), wave(0.4, 2), REFLECTION, grid=32, steps=4),
    "a square with translations": lambda: moser(*SQUARES, SHIFTED_SQUARE, grid=16, steps=3),
    "three permuted angles": lambda: moser(*CUBES, PERMUTED, grid=8, steps=2),
}


def angles(action, n=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * math.pi * torch.rand(n, *action.event_shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", FLOWS)
def test_the_discrete_map_is_an_equivariant_bijection(name):
    """With few steps and a coarse grid the map is far from the exact one, and still a layer in both directions."""
    layer = FLOWS[name]()
    x = angles(layer.action_in)
    y, ladj = layer.call_and_ladj(x)
    back, inverse_ladj = layer.inv_call_and_ladj(y)
    assert layer.action_in.space.difference(back, x).abs().max() < 1e-10
    torch.testing.assert_close(inverse_ladj, -ladj, rtol=0, atol=1e-9)
    assert_equivariant(layer, layer.action_in, layer.action_in, x, tol=1e-8)
    assert_layer(layer, x[:2])


@pytest.mark.parametrize("name", FLOWS)
def test_gradients_in_both_directions(name):
    layer = FLOWS[name]()
    x = angles(layer.action_in, 2).requires_grad_()
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    for call in (layer.call_and_ladj, layer.inv_call_and_ladj):

        def total(at, call=call):
            y, ladj = call(at)
            return (y.sin() * direction).sum() + ladj @ torch.tensor([1.0, -0.4], dtype=x.dtype)

        (gradient,) = torch.autograd.grad(total(x), x)
        with torch.no_grad():
            slope = (total(x + 1e-5 * direction) - total(x - 1e-5 * direction)) / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-6)


@pytest.mark.long
def test_expectations_after_the_map():
    """The integral of f(T(x)) p(x) is that of f(y) q(y), by sums over a grid."""
    p, q = BUMPS
    layer = moser(p, q, TorusAction.point_group("D4"), grid=48, steps=24)
    x = periodic_grid(96, 2).reshape(-1, 2)
    y = layer(x)
    assert not y.requires_grad
    for frequency in ([1, 0], [1, 1], [2, -1], [3, 0]):
        k = torch.tensor(frequency, dtype=torch.float64)
        pushed = ((y @ k).cos() * p(x).exp()).sum()
        wanted = ((x @ k).cos() * q(x).exp()).sum()
        cell = (2 * math.pi / 96) ** 2
        assert cell * (pushed - wanted).abs() < 1e-6


@pytest.mark.long
def test_a_square_with_translations_by_half_a_period():
    layer = moser(*SQUARES, SHIFTED_SQUARE, grid=128, steps=16)
    report = layer.report(points=32)
    assert report.density_error <= 1e-6
    assert report.equivariance_error <= 1e-8
    assert report.step_order == pytest.approx(4, abs=0.2)
    # twice as many points more than square the error: spectral decay
    coarse, middle, fine = report.grid_errors.values()
    assert list(report.grid_errors) == [16, 32, 64]
    assert middle < coarse**2 * 100 and fine < 1e-10 and report.grid_order > 8
    assert str(report).startswith("density error ") and "16, " in str(report)


@pytest.mark.long
@pytest.mark.parametrize("amplitudes", [(0.0, 0.5), (0.6, 0.0), (0.5, -0.6)])
def test_the_quantile_map_of_the_circle(amplitudes):
    """A reflection fixes 0 and pi, so that the map carries the mass between 0 and x to the mass between 0 and y."""
    first, second = amplitudes
    layer = moser(wave(first), wave(second, 2), REFLECTION, steps=192)
    x = angles(REFLECTION, 50)
    y = layer(x)
    # the distribution functions in closed form, times 2 pi
    mass_before = x + first * x.sin()
    mass_after = y + second / 2 * (2 * y).sin()
    assert (mass_after - mass_before).abs().max() <= 1e-8
    assert layer(torch.zeros(1, 1, dtype=torch.float64)).abs().item() < 1e-12


@pytest.mark.long
def test_three_angles():
    layer = moser(*CUBES, PERMUTED, grid=16, steps=8)
    report = layer.report(points=6)
    assert report.density_error < 1e-5 and report.equivariance_error < 1e-10
    assert report.grid_errors.keys() == {4, 8}


def test_equal_densities_give_the_identity():
    layer = moser(wave(0.5), wave(0.5), REFLECTION, grid=16, steps=1)
    x = angles(REFLECTION)
    torch.testing.assert_close(layer(x), x, rtol=0, atol=1e-12)


def test_it_follows_the_dtype_and_any_batch_shape():
    layer = FLOWS["a square with translations"]().float()
    x = angles(SHIFTED_SQUARE, 6).reshape(2, 3, 2)
    y, ladj = layer.call_and_ladj(x.float())
    assert y.dtype == torch.float32 and ladj.shape == (2, 3)
    exact, exact_ladj = layer.double().call_and_ladj(x)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(ladj.double(), exact_ladj, rtol=0, atol=1e-4)
    torch.testing.assert_close(layer.inv(layer(x[0, 0])), x[0, 0], rtol=0, atol=1e-9)


def test_functions_cannot_be_saved():
    layer = FLOWS["an angle and its reflection"]()
    with pytest.raises(TypeError, match=r"function is not registered.*flow.state_dict\(\)"):
        describe(layer)


TRIVIAL = TorusAction.trivial(1)

BAD = {
    "mass": (
        lambda: moser(uniform, lambda x: uniform(x) + 0.1, REFLECTION),
        "expected densities p and q of equal mass, got 1 and 1.1051709 on a grid of 256 points, which differ by 0.105",
    ),
    "vanishing": (
        lambda: moser(uniform, lambda x: (1 - x[..., 0].cos()).log() - math.log(2 * math.pi), REFLECTION),
        r"density q that vanishes nowhere.*log q is -inf at x = \[0\]",
    ),
    "vanishing between the points of the grid": (
        lambda: moser(lambda x: (1 - (x[..., 0] - 1).cos()).log() - math.log(2 * math.pi), uniform, TRIVIAL),
        r"density p that vanishes nowhere.* at x = \[1\]",
    ),
    "vanishing at one point of a plane": (
        lambda: moser(
            lambda x: (2 - (x[..., 0] - 1).cos() - (x[..., 1] + 0.3).cos()).log() - 2 * math.log(2 * math.pi),
            lambda x: math.log(2) - 2 * math.log(2 * math.pi) + 0 * x[..., 0],
            TorusAction.trivial(2),
        ),
        r"density p that vanishes nowhere.* at x = \[1, 5.983\]",
    ),
    "nearly vanishing": (
        lambda: moser(normalized(lambda x: 20 * x[..., 0].cos(), 1), uniform, REFLECTION),
        r"density p that vanishes nowhere.*at x = \[3.142\]",
    ),
    "not finite": (
        lambda: moser(lambda x: uniform(x) + math.inf * (x[..., 0] > 1), uniform, TorusAction.trivial(1)),
        "expected a finite log p, got",
    ),
    "periodic": (
        lambda: moser(uniform, lambda x: -0.1 * x[..., 0], TorusAction.trivial(1)),
        r"log q to have the period 2 pi in coordinate 0; its value changes by -0.628 at x = \[",
    ),
    "invariant": (
        lambda: moser(uniform, lambda x: uniform(x) + 0.1 * x[..., 0].sin(), REFLECTION),
        r"density q that is invariant under TorusAction\(C2 on T\^1\); its value changes by -?0.[12].* element 1",
    ),
    "shape": (
        lambda: moser(lambda x: x, uniform, REFLECTION),
        r"events of shape \(256, 1\) to values of shape \(256,\)",
    ),
    "dtype": (
        lambda: moser(lambda x: uniform(x).float(), uniform, REFLECTION),
        "log p in torch.float64 for events of that dtype, got torch.float32",
    ),
    "no function": (lambda: moser(torch.zeros(3), uniform, REFLECTION), "log p as a function of events, got Tensor"),
    "grid": (
        lambda: moser(*SQUARES, SHIFTED_SQUARE, grid=15),
        "grid that the translations of .* map to itself, which takes a multiple of 2 points along each axis, got 15",
    ),
    "small grid": (lambda: moser(uniform, uniform, REFLECTION, grid=2), "at least 3 points along each axis, got 2"),
    "steps": (lambda: moser(uniform, uniform, REFLECTION, steps=0), "at least one step, got 0"),
    "four angles": (
        lambda: moser(uniform, uniform, TorusAction.trivial(4)),
        r"expected events of 1, 2 or 3 angles, got the shape \(4,\)",
    ),
    "plane": (lambda: moser(uniform, uniform, VectorAction.plane("D4")), "GMoser is defined on Torus, got events on"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    build, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=message):
        build()


def test_the_default_grid_fits_the_translations():
    thirds = TorusAction.translations([[2 * math.pi / 3]])
    layer = moser(wave(0.5, 3), wave(-0.5, 3), thirds, steps=4)
    assert layer.grid % 3 == 0 and layer.grid >= 256
    assert_equivariant(layer, thirds, thirds, angles(thirds), tol=1e-10)


def test_translations_by_any_angle():
    """Densities that depend on the difference of two angles only: the map leaves their sum as it is."""
    common = TorusAction.fixing([[1, -1]])
    q = normalized(lambda x: (x[..., 0] - x[..., 1]).cos(), 2)
    layer = moser(uniform, q, common, grid=16, steps=4)
    x = angles(common)
    y = layer(x)
    assert common.space.difference(y.sum(-1), x.sum(-1)).abs().max() < 1e-12
    assert_equivariant(layer, common, common, x)


def test_printing():
    shown = repr(FLOWS["a square with translations"]())
    assert re.search(r"GMoser\(\n  TorusAction\(.*\), grid 16 x 16, 3 steps of order 4\n", shown)


def test_a_flow_with_it_has_the_density():
    layer = moser(uniform, SQUARES[1], SHIFTED_SQUARE, grid=64, steps=16)
    flow = EquivariantFlow(InvariantUniform(SHIFTED_SQUARE), [layer])
    y = angles(SHIFTED_SQUARE, 5)
    torch.testing.assert_close(flow.dist.log_prob(y), SQUARES[1](y), rtol=0, atol=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_velocity_obeys_the_continuity_equation(t):
    """The divergence of density times velocity is p - q, the rate at which (1 - t) p + t q decreases."""
    p, q = BUMPS
    layer = moser(p, q, TorusAction.point_group("D4"), grid=48)
    x = angles(layer.action_in, 5)

    def flux(point):
        density = (1 - t) * p(point).exp() + t * q(point).exp()
        return density * layer.velocity(t, point[None])[0]

    divergence = torch.func.vmap(torch.func.jacrev(flux))(x).diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(divergence, p(x).exp() - q(x).exp(), rtol=0, atol=1e-10)


def test_the_same_densities_with_another_accuracy():
    layer = FLOWS["a square with translations"]()
    finer = layer.with_accuracy(grid=64, steps=16)
    assert (finer.grid, finer.steps, layer.with_accuracy().grid) == (64, 16, 16)
    assert finer.report(points=12).density_error < 1e-3 * layer.report(points=12).density_error
