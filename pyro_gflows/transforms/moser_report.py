"""How exactly a Moser flow carries one density to the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.numerics.trigonometric import periodic_grid
from pyro_gflows.transforms.moser_checks import period_of_shifts

if TYPE_CHECKING:
    from pyro_gflows.transforms.moser_flow import GMoser

__all__ = ["MoserReport", "measure"]

_POINTS = {1: 1024, 2: 64, 3: 12}
_SAMPLES = 256
_LEAST_GRID = 4
_ROUNDING = 1e-12  # differences of angles below this size show the rounding of the steps, and no order


@dataclass(frozen=True)
class MoserReport:
    """The errors of a Moser flow T from p to q, and how they depend on its grid and its steps.

    Angles are compared at 256 random points.

    Attributes:
        density_error: The largest absolute difference between q and the density of T(x), for x with density p.
        relative_error: The largest difference of the logarithms of these densities.
        equivariance_error: The largest angle between T(g x) and g T(x), over the elements g tried.
        step_error: The largest angle between T and the map with twice as many steps.
        step_order: The observed order in the steps: twice as many steps divide the error by 2 to this power. NaN where
            the error is rounding.
        grid_errors: For coarser grids, the largest angle between T and the map with this number of points along each
            axis. The errors decay faster than any power for smooth densities.
        grid_order: The observed order between the two finest of these grids whose error is not rounding, or NaN.

    Example:
        >>> print(MoserReport(1e-9, 2e-9, 1e-15, 1e-8, 4.0, {8: 1e-2, 16: 1e-4, 32: 1e-8}, 13.3))
        density error 1.0e-09 (of the logarithm 2.0e-09), equivariance error 1.0e-15
        steps: error 1.0e-08, order 4.0
        grid: error 1.0e-02 at 8, 1.0e-04 at 16, 1.0e-08 at 32, order 13.3 at the last
    """

    density_error: float
    relative_error: float
    equivariance_error: float
    step_error: float
    step_order: float
    grid_errors: dict[int, float]
    grid_order: float

    def __str__(self) -> str:
        grids = ", ".join(f"{error:.1e} at {size}" for size, error in self.grid_errors.items())
        order = (
            f"order {self.grid_order:.1f} at the last" if self.grid_order == self.grid_order else "rounding at the last"
        )
        steps = f"order {self.step_order:.1f}" if self.step_order == self.step_order else "which is rounding"
        return (
            f"density error {self.density_error:.1e} (of the logarithm {self.relative_error:.1e}), equivariance error "
            f"{self.equivariance_error:.1e}\n"
            f"steps: error {self.step_error:.1e}, {steps}\n"
            f"grid: error {f'{grids}, {order}' if grids else 'not measured'}"
        )


@torch.no_grad()
def measure(transform: GMoser, *, points: int | None = None) -> MoserReport:
    """The report of a Moser flow.

    Args:
        transform: The flow.
        points: The number of points along each axis at which densities are compared.
    """
    action, device = transform.action_in, transform.potential.value.device
    dimension = action.numel
    x = periodic_grid(_POINTS[dimension] if points is None else points, dimension).reshape(-1, dimension).to(device)
    y, ladj = transform.call_and_ladj(x)
    pushed, wanted = transform.p(x) - ladj, transform.q(y)
    generator = torch.Generator().manual_seed(0)
    sample = (2 * math.pi * torch.rand(_SAMPLES, dimension, dtype=torch.float64, generator=generator)).to(device)
    image = transform(sample)
    finer = [transform.with_accuracy(steps=factor * transform.steps)(sample) for factor in (2, 4)]
    step_error, next_error = _largest(action, image, finer[0]), _largest(action, *finer)
    grid_errors = {
        size: _largest(action, image, transform.with_accuracy(grid=size)(sample)) for size in _coarser(transform)
    }
    return MoserReport(
        density_error=float((pushed.exp() - wanted.exp()).abs().max()),
        relative_error=float((pushed - wanted).abs().max()),
        equivariance_error=_equivariance_error(transform, sample, image),
        step_error=step_error,
        step_order=_order(step_error, next_error, 2.0),
        grid_errors=grid_errors,
        grid_order=_grid_order(grid_errors),
    )


def _coarser(transform: GMoser) -> list[int]:
    """Up to three grids that are coarser by factors of about 2, in ascending order."""
    least = period_of_shifts(transform.action_in)
    sizes = {transform.grid // factor // least * least for factor in (2, 4, 8)}
    return sorted(size for size in sizes if size >= _LEAST_GRID)


def _largest(action: Action, first: Tensor, second: Tensor) -> float:
    return float(action.space.difference(first, second).abs().max())


def _equivariance_error(transform: GMoser, x: Tensor, y: Tensor) -> float:
    action = transform.action_in
    elements = torch.cat([action.generators(), action.sample(8, torch.Generator().manual_seed(1))])
    return max(_largest(action, transform(action.act(g, x)), action.act(g, y)) for g in elements)


def _order(coarse: float, fine: float, ratio: float) -> float:
    """The power of the ratio by which the error shrinks."""
    return math.log(coarse / fine) / math.log(ratio) if min(coarse, fine) > _ROUNDING else math.nan


def _grid_order(errors: dict[int, float]) -> float:
    measured = [(size, error) for size, error in errors.items() if error > _ROUNDING]
    if len(measured) < 2:
        return math.nan
    (coarse, before), (fine, after) = measured[-2:]
    return _order(before, after, fine / coarse)
