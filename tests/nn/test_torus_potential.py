"""Invariant potentials on tori: waves, their images, and the bound of the Hessian."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.nn import TorusPotential, poisson_wave
from pyro_gflows.nn.torus_frequencies import frequency_images, one_of_each_orbit
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import assert_equivariant, randomize_

ACTIONS = {
    "D4": TorusAction.point_group("D4"),
    "D4 with half periods": TorusAction.point_group("D4").with_translations([[math.pi, math.pi]]),
    "a glide": TorusAction.from_generators([([[1, 0], [0, -1]], [math.pi, 0.0])]),
    "a screw": TorusAction.from_generators([([1, 2, 0], [Fraction(1, 3), 0.0, 0.0])]),
    "no symmetry": TorusAction.trivial(2),
    "common translations": TorusAction.fixing([[1, -1]]),
    "four permuted angles": TorusAction.point_group(VectorAction.rows("S4")),
}


def potential(name, *, scale=1.0, **options):
    made = TorusPotential(ACTIONS[name], frequencies=options.pop("frequencies", 3), waves=3, **options).double()
    randomize_(made, scale=scale, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():  # large weights and steep waves
        made.weight.add_(4.0)
        made.radius.add_(2.0)
    return made


def angles(made, n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 7 * torch.randn(n, made.action.numel, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("radius", [1e-3, 0.3, 0.95])
def test_the_wave_and_its_slope(radius):
    u = torch.linspace(-8, 8, 1001, dtype=torch.float64, requires_grad=True)
    r = torch.tensor(radius, dtype=torch.float64)
    value, slope = poisson_wave(u, r)
    torch.testing.assert_close(torch.autograd.grad(value.sum(), u)[0], slope, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(value, poisson_wave(u + 2 * math.pi, r)[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(value.flip(0), -value, rtol=0, atol=1e-11)
    # the series of the waves sin(n u), and the range of the slope
    n = torch.arange(1, 1500, dtype=torch.float64)
    series = (1 + r) / r * ((r**n / n) * (n * u[:, None]).sin()).sum(1)
    torch.testing.assert_close(value, series, rtol=0, atol=1e-10)
    ends = poisson_wave(torch.tensor([math.pi, 0.0], dtype=torch.float64), r)[1]
    torch.testing.assert_close(ends, torch.tensor([-1.0, (1 + radius) / (1 - radius)], dtype=torch.float64))
    assert slope.min() >= -1 - 1e-12 and slope.max() <= ends[1] + 1e-9


@pytest.mark.parametrize("name", ACTIONS)
def test_the_gradient_is_equivariant_and_the_hessian_its_jacobian(name):
    made = potential(name)
    x = angles(made)
    gradient, hessian = made.call_and_jacobian(x)
    torch.testing.assert_close(gradient, made(x))
    dense = torch.func.vmap(torch.func.jacrev(made))(x)
    torch.testing.assert_close(hessian, dense, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(hessian, hessian.mT, rtol=0, atol=1e-12)  # the map is a gradient
    torch.testing.assert_close(made(x + 2 * math.pi), gradient, rtol=0, atol=1e-10)
    if made.action.is_finite:
        assert_equivariant(made, made.action, made.action.linear_part, x)
    else:
        for element in made.action.sample(5):
            torch.testing.assert_close(made(made.action.act(element, x)), gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bound", [0.5, 0.99])
@pytest.mark.parametrize("name", ACTIONS)
def test_the_hessian_stays_above_the_bound(name, bound):
    made = potential(name, bound=bound)
    certified = made.curvature_bound().item()
    assert 0.8 * bound < certified < bound
    lowest = torch.linalg.eigvalsh(made.call_and_jacobian(angles(made, 2000))[1])
    assert lowest.min() >= -certified - 1e-9
    assert lowest.max() > 2 * bound


def test_the_bound_is_reached():
    """One wave of one angle has the slope -c at the point where the wave falls fastest."""
    made = TorusPotential(TorusAction.trivial(1), frequencies=[[2]], waves=1).double()
    at = (made.phase.detach().reshape(1, 1) + math.pi) / 2
    lowest = made.call_and_jacobian(at)[1].item()
    assert lowest == pytest.approx(-made.curvature_bound().item(), abs=1e-12)
    with torch.no_grad():
        made.weight.fill_(1e6)
    assert made.curvature_bound().item() == pytest.approx(0.99, abs=1e-5)


def test_independent_directions_do_not_share_the_bound():
    """Two angles apart may each fall with slope nearly -1: the largest eigenvalue counts, and no sum of norms.

    The smooth bound of this eigenvalue exceeds it by the 256th root of 2.
    """
    made = TorusPotential(TorusAction.trivial(2), frequencies=[[1, 0], [0, 1]], waves=1).double()
    with torch.no_grad():
        made.weight.fill_(1e6)
    at = made.phase.detach().reshape(1, 2) + math.pi
    lowest = -0.99 * 2 ** (-1 / 256) * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(made.call_and_jacobian(at)[1][0], lowest, rtol=0, atol=1e-5)


def test_images_of_waves():
    vectors, phases = frequency_images(ACTIONS["a glide"], (1, 1))
    assert vectors.tolist() == [[1, -1], [1, 1]]
    assert phases.tolist() == [math.pi, 0.0]
    vectors, phases = frequency_images(ACTIONS["D4 with half periods"], (1, 1))
    assert len(vectors) == 4 and not phases.any()
    vectors, phases = frequency_images(ACTIONS["a screw"], (1, 1, 1))
    torch.testing.assert_close(phases, torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3], dtype=torch.float64))
    assert vectors.tolist() == [[1, 1, 1]] * 3


def test_frequencies_are_one_of_each_orbit_and_fixed_by_translations():
    assert one_of_each_orbit(ACTIONS["no symmetry"], 4) == ((0, 1), (1, 0), (1, -1), (1, 1))
    assert one_of_each_orbit(ACTIONS["D4"], 3) == ((0, 1), (1, -1), (0, 2))
    assert one_of_each_orbit(ACTIONS["D4 with half periods"], 3) == ((1, -1), (0, 2), (2, -2))
    assert one_of_each_orbit(ACTIONS["common translations"], 2) == ((1, -1), (2, -2))


def test_large_weights_stay_finite():
    made = potential("D4", scale=50.0)
    gradient, hessian = made.call_and_jacobian(angles(made))
    total = gradient.square().sum() + hessian.square().sum()
    assert all(weight.isfinite().all() for weight in torch.autograd.grad(total, list(made.parameters())))


def test_description_and_printing():
    made = potential("D4", max_slope=10.0, bound=0.9)
    again = build(describe(made)).double()
    again.load_state_dict(made.state_dict())
    x = angles(made)
    torch.testing.assert_close(again(x), made(x), rtol=0, atol=0)
    assert made.extra_repr() == "3 frequencies x 3 waves, curvature above -0.9, TorusAction(D4 on T^2)"


BAD = {
    "action": (lambda: TorusPotential(VectorAction.plane("D4")), TypeError, "a TorusAction, got VectorAction"),
    "waves": (lambda: TorusPotential(ACTIONS["D4"], waves=0), ValueError, "waves >= 1, .* got 0, 0.99, 50"),
    "bound": (lambda: TorusPotential(ACTIONS["D4"], bound=1.0), ValueError, "0 < bound < 1, .* got 4, 1.0, 50"),
    "slope": (lambda: TorusPotential(ACTIONS["D4"], max_slope=1.0), ValueError, "max_slope > 1, got 4, 0.99, 1.0"),
    "no slope": (lambda: TorusPotential(ACTIONS["D4"], max_slope=math.nan), ValueError, "finite max_slope > 1, got 4"),
    "count": (
        lambda: TorusPotential(ACTIONS["D4"], frequencies=0),
        ValueError,
        "positive number of frequencies, got 0",
    ),
    "length": (
        lambda: TorusPotential(ACTIONS["D4"], frequencies=[[1, 0, 0]]),
        ValueError,
        r"frequencies of 2 integers that are not all 0, got \[1, 0, 0\]",
    ),
    "zero": (lambda: TorusPotential(ACTIONS["D4"], frequencies=[[0, 0]]), ValueError, r"not all 0, got \[0, 0\]"),
    "not fixed": (
        lambda: TorusPotential(ACTIONS["D4 with half periods"], frequencies=[[1, 0]]),
        ValueError,
        r"the integer combinations of \[\[1, 1\], \[0, 2\]\], got \[1, 0\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()
