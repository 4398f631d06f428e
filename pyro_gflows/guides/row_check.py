"""Which way of running a model for many latent vectors gives what its own trace of each gives?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["alike", "finite_rows", "first_that_agrees", "wide_rows"]

_ROWS = 3
_SCALES = (0.5, 1.0, 2.0, 0.1, 0.02, 0.0)


def alike(first: Tensor, second: Tensor) -> bool:
    """Whether two results are the same up to rounding; equal values are alike, infinities and NaN included.

    Example:
        >>> inf = torch.inf
        >>> alike(torch.tensor([1.0, -inf]), torch.tensor([1.0, -inf])), alike(torch.zeros(1), torch.tensor([-inf]))
        (True, False)
    """
    if first.shape != second.shape:
        return False
    # of sums of large terms that cancel little may be left but rounding; a mistake is of the size of the terms
    finite = second[second.isfinite()].abs()
    tolerance = torch.finfo(first.dtype).eps ** 0.5 * (1.0 + (float(finite.max()) if len(finite) else 0.0))
    return torch.allclose(first, second.to(first), rtol=0.0, atol=tolerance, equal_nan=True)


@torch.no_grad()
def finite_rows(log_density: Callable[[Tensor], Tensor], start: Tensor, count: int = _ROWS) -> Tensor:
    """Rows at random about a start, of shape ``(count, d)``, where the log-density is finite so far as any are found.

    Where it is -inf everything agrees with everything, so that nothing is learnt from comparing such rows.

    Args:
        log_density: maps shape (rows, d) to (rows,).
        start: a vector of shape (d,).
        count: how many rows.
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
    """Rows farther from a start, also where the log-density is -inf; those at which the model fails are left out.

    A model that branches on its values shows so only where some rows take another branch than the others.

    Args:
        log_density: maps shape (rows, d) to (rows,).
        start: a vector of shape (d,).
        count: how many rows at most.
    """
    generator = torch.Generator().manual_seed(1)
    rows = start.detach() + 2.0 * torch.randn(count, len(start), generator=generator, dtype=torch.float64).to(start)
    return rows[~_values(log_density, rows).isnan()]


def _values(log_density: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """The value of each row by itself; NaN where the model fails there: an ill-conditioned matrix, say."""
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
    """The first of several ways to compute a function of rows that gives what the reference gives, and why not others.

    A model that sums over more than its own dimensions gives every row the total of all rows, of the right shape. So
    each way is asked for all rows together, and for all but one, as shapes may fit by chance.

    Args:
        ways: each maps shape (rows, d) to (rows,), and may raise anything.
        reference: the right one.
        rows: shape (rows, d).

    Returns:
        Its index (None where no way agrees), and why the first way of all was left out ("" where it was not).

    Example:
        >>> rows = torch.eye(3)
        >>> first_that_agrees([lambda x: x.sum(), lambda x: x.sum(-1)], lambda x: x.sum(1), rows)
        (1, 'its values for 3 rows at once are not those of each row')
    """
    expected = reference(rows)
    reason = ""
    for index, way in enumerate(ways):
        for count in (len(rows), len(rows) - 1):
            try:
                agrees = alike(way(rows[:count]).detach(), expected[:count])
                why = f"its values for {count} rows at once are not those of each row"
            except Exception as error:  # whatever a model may raise about shapes that it was not written for
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
