"""Checks whether a fast way of running a model for many latent vectors agrees with a separate run for each vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["alike", "finite_rows", "first_that_agrees", "wide_rows"]

_ROWS = 3
_SCALES = (0.5, 1.0, 2.0, 0.1, 0.02, 0.0)


def alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors are equal up to rounding; infinities and NaN must occur at the same places.

    Args:
        first: The one tensor.
        second: The other tensor, of any dtype.

    Example:
        >>> inf = torch.inf
        >>> alike(torch.tensor([1.0, -inf]), torch.tensor([1.0, -inf])), alike(torch.zeros(1), torch.tensor([-inf]))
        (True, False)
    """
    if first.shape != second.shape:
        return False
    # where large terms cancel, the sum may be all rounding; a mistake is as large as the terms
    finite = second[second.isfinite()].abs()
    tolerance = torch.finfo(first.dtype).eps ** 0.5 * (1.0 + (float(finite.max()) if len(finite) else 0.0))
    return torch.allclose(first, second.to(first), rtol=0.0, atol=tolerance, equal_nan=True)


@torch.no_grad()
def finite_rows(log_density: Callable[[Tensor], Tensor], start: Tensor, count: int = _ROWS) -> Tensor:
    """Random points around a start at which the log-density is finite, if such points are found.

    Points at which the log-density is -inf cannot be used for a comparison, since -inf agrees with every other -inf.

    Args:
        log_density: A function from shape (rows, d) to (rows,).
        start: A vector of shape (d,).
        count: The number of points.

    Returns:
        The points, shape ``(count, d)``.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(_SCALES), count, len(start), generator=generator, dtype=torch.float64).to(start)
    rows = start.detach() + _SCALES[0] * noise[0]
    for scale, other in zip(_SCALES, noise, strict=True):
        lacking = ~_values(log_density, rows).isfinite()
        if not bool(lacking.any()):
            break
        rows = torch.where(lacking[:, None], start.detach() + scale * other, rows)
    return rows


@torch.no_grad()
def wide_rows(log_density: Callable[[Tensor], Tensor], start: Tensor, count: int = _ROWS) -> Tensor:
    """Random points farther from a start, including points at which the log-density is -inf.

    They reveal a model that branches on its values, since some points take another branch than the others. Points at
    which the model fails are left out.

    Args:
        log_density: A function from shape (rows, d) to (rows,).
        start: A vector of shape (d,).
        count: The largest number of points.

    Returns:
        The points, shape ``(at most count, d)``.
    """
    generator = torch.Generator().manual_seed(1)
    rows = start.detach() + 2.0 * torch.randn(count, len(start), generator=generator, dtype=torch.float64).to(start)
    return rows[~_values(log_density, rows).isnan()]


def _values(log_density: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """The value of each row by itself, or NaN if the model fails there, for example at an ill-conditioned matrix."""
    values = []
    for row in rows:
        try:
            values.append(float(log_density(row[None])))
        except (ValueError, RuntimeError):
            values.append(math.nan)
    return torch.tensor(values, device=rows.device)


@torch.no_grad()
def first_that_agrees(
    ways: Sequence[Callable[[Tensor], Tensor]], reference: Callable[[Tensor], Tensor], rows: Tensor
) -> tuple[int | None, str]:
    """The first of several ways to compute a function of rows that agrees with a reference.

    Values are compared, since the right shape is not enough: a model that sums over all dimensions gives every row the
    total of all rows. Each way is called with all rows and with all rows but one, since shapes may fit by chance.

    Args:
        ways: Functions from shape (rows, d) to (rows,), which may raise any exception.
        reference: The correct function.
        rows: The points at which they are compared, shape (rows, d).

    Returns:
        The index of the first way that agrees (None if no way does), and the reason why the first of all ways was left
        out (empty if it agrees).

    Example:
        >>> rows = torch.eye(3)
        >>> first_that_agrees([lambda x: x.sum(), lambda x: x.sum(-1)], lambda x: x.sum(1), rows)
        (1, 'its values for 3 rows at once differ from the values of single rows')
    """
    expected = reference(rows)
    reason = ""
    for index, way in enumerate(ways):
        for count in (len(rows), len(rows) - 1):
            try:
                agrees = alike(way(rows[:count]).detach(), expected[:count])
                why = f"its values for {count} rows at once differ from the values of single rows"
            except Exception as error:  # a model may raise anything for shapes that it was not written for
                agrees, why = (
                    False,
                    f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}",
                )
            if not agrees:
                reason = reason or why
                break
        else:
            return index, reason
    return None, reason
