"""Checks of two densities on a torus between which Moser's flow is built."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.numerics.trigonometric import periodic_grid

__all__ = ["FINE", "LogDensity", "grid_values", "period_of_shifts", "require_density", "require_equal_masses"]

#: The logarithm of a density on a torus: a function from angles, shape ``(n, d)``, to values, shape ``(n,)``.
LogDensity = Callable[[Tensor], Tensor]

_SMALLEST = 1e-12  # the ratio of the least and the largest value of a density, below which velocities are only rounding
_TOLERANCE = 1e-8  # of periods and symmetry, absolute for log-densities below 1 and relative above
_MASS_TOLERANCE = 1e-6
FINE = {1: 256, 2: 128, 3: 48}
_POINTS = 512
_STARTS, _HALVINGS = 64, 25  # of the search for zeros between the points of the grid
_ALL_ELEMENTS_UP_TO = 64


def grid_values(log_density: LogDensity, size: int, dimension: int) -> Tensor:
    """The values of the density itself on the periodic grid, of shape ``(N, ..., N)``, in float64."""
    points = periodic_grid(size, dimension)
    with torch.no_grad():
        return log_density(points.reshape(-1, dimension)).exp().reshape(points.shape[:-1])


def require_density(log_density: LogDensity, name: str, action: Action, size: int) -> None:
    """Raise unless a function is the logarithm of a positive, periodic and invariant density.

    Args:
        log_density: The function, of events of shape ``(n, d)``.
        name: The name of the density, for messages.
        action: How the group acts on the angles.
        size: The number of points of the grid along each axis.

    Raises:
        TypeError: If it is no function, or its values are not of float64 where the events are.
        ValueError: If a value is not finite or the density nearly vanishes, if it is not periodic, or not invariant.
    """
    if not callable(log_density):
        raise TypeError(f"expected log {name} as a function of events, got {type(log_density).__name__}")
    dimension = action.numel
    size = max(size, FINE[dimension])
    points = periodic_grid(size, dimension).reshape(-1, dimension)
    with torch.no_grad():
        values = _values(log_density, name, points)
        _require_positive(values, name, points, values.max())
        between = _minima(log_density, values.reshape([size] * dimension))
        _require_positive(_values(log_density, name, between), name, between, values.max())
        generator = torch.Generator().manual_seed(0)
        x = 2 * math.pi * torch.rand(_POINTS, dimension, dtype=torch.float64, generator=generator)
        value = _values(log_density, name, x)
        for axis in range(dimension):
            shift = torch.zeros(dimension, dtype=torch.float64)
            shift[axis] = 2 * math.pi
            change = _values(log_density, name, x + shift) - value
            _require_same(change, value, x, f"expected log {name} to have the period 2 pi in coordinate {axis}", "")
        few = action.is_finite and action.group.order <= _ALL_ELEMENTS_UP_TO
        elements = action.elements() if few else torch.cat([action.generators(), action.sample(16, generator)])
        for element in elements:
            change = _values(log_density, name, action.act(element, x)) - value
            what = f"expected a density {name} that is invariant under {action}"
            _require_same(change, value, x, what, f" under the group element {element.tolist()}")


def require_equal_masses(p: LogDensity, q: LogDensity, dimension: int, size: int) -> None:
    """Raise unless two densities have the same mass, by the sum over a periodic grid.

    Args:
        p: The first log-density.
        q: The second log-density.
        dimension: The dimension of the torus.
        size: The number of points of the grid along each axis; a finer grid is taken where this one is coarse.

    Raises:
        ValueError: If the masses differ.
    """
    size = max(size, FINE[dimension])
    first, second = (float(grid_values(f, size, dimension).mean()) * (2 * math.pi) ** dimension for f in (p, q))
    if abs(first - second) > _MASS_TOLERANCE * max(first, second):
        raise ValueError(
            f"expected densities p and q of equal mass, got {first:.8g} and {second:.8g} on a grid of "
            f"{' x '.join([str(size)] * dimension)} points, which differ by {abs(first - second):.3g}; subtract the "
            f"logarithm of its mass from each log-density"
        )


def period_of_shifts(action: Action) -> int:
    """The least number of points along an axis for which the translations of a group map the grid to itself.

    Every multiple is right as well. It is 1 for an infinite group, under whose translations the densities do not vary.

    Args:
        action: How the group acts on the angles.
    """
    if not action.is_finite:
        return 1
    origin = torch.zeros(action.event_shape, dtype=torch.float64)
    shifts = [action.act(element, origin) / (2 * math.pi) for element in action.generators()]
    parts = [Fraction(share).limit_denominator(10_000) for shift in shifts for share in shift.flatten().tolist()]
    return math.lcm(*(part.denominator for part in parts))


def _values(log_density: LogDensity, name: str, points: Tensor) -> Tensor:
    values = log_density(points)
    if not isinstance(values, Tensor) or values.shape != points.shape[:1]:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"expected log {name} to map events of shape {tuple(points.shape)} to values of shape ({len(points)},), "
            f"got {got}"
        )
    if values.dtype != points.dtype:
        raise TypeError(f"expected log {name} in {points.dtype} for events of that dtype, got {values.dtype}")
    return values


def _minima(log_density: LogDensity, values: Tensor) -> Tensor:
    """The points at which a function has the lowest of its local minima, from its values on the periodic grid.

    A density vanishes at single points, as a rule, and these lie between the points of the grid. Each of the lowest
    points of the grid walks downwards, by steps along the axes and diagonals that are halved again and again.
    """
    dimension, spacing = values.dim(), 2 * math.pi / len(values)
    neighbors = [values.roll(by, axis) for axis in range(dimension) for by in (1, -1)]
    lowest = (values <= torch.stack(neighbors).amin(0)).nonzero()
    lowest = lowest[values[tuple(lowest.T)].argsort()[:_STARTS]]
    points = lowest.to(torch.float64) * spacing
    steps = torch.cartesian_prod(*[torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)] * dimension)
    steps = steps.reshape(-1, dimension)
    for halving in range(_HALVINGS):
        tried = points + spacing / 2**halving * steps[:, None]
        found = log_density(tried.reshape(-1, dimension)).reshape(tried.shape[:-1])
        best = found.nan_to_num(nan=-math.inf).argmin(0)
        points = tried[best, torch.arange(len(points))]
    return points


def _require_positive(values: Tensor, name: str, points: Tensor, largest: Tensor) -> None:
    wrong = ~(values < math.inf)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(f"expected a finite log {name}, got {values[first]:.4g} at x = {_shown(points[first])}")
    ratio = (values.min() - largest).exp()
    if not ratio >= _SMALLEST:
        least = int(values.argmin())
        raise ValueError(
            f"expected a density {name} that vanishes nowhere, since the velocity is divided by it: log {name} is "
            f"{values[least]:.4g} at x = {_shown(points[least])} and {largest:.4g} at its maximum, a ratio below "
            f"{_SMALLEST:g}; mix a uniform density into it"
        )


def _require_same(change: Tensor, value: Tensor, points: Tensor, what: str, where: str) -> None:
    errors = change.abs() / value.abs().clamp(min=1)
    errors = torch.where(errors.isfinite(), errors, math.inf)
    worst = int(errors.argmax())
    if errors[worst] > _TOLERANCE:
        raise ValueError(f"{what}; its value changes by {change[worst]:.3g} at x = {_shown(points[worst])}{where}")


def _shown(point: Tensor) -> str:
    return f"[{', '.join(f'{entry:.4g}' for entry in point.tolist())}]"
