"""Does a function of rows treat each row by itself, and the same way every time?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["check_rows"]

_ROWS = 3


@torch.no_grad()
def check_rows(log_density: Callable[[Tensor], Tensor], start: Tensor, *, minibatches: bool = False) -> None:
    """Compare a few rows together with the same rows one by one, and with themselves once more.

    A model that sums over more than its own dimensions gives every row the total of all rows, of the right shape; a
    model that draws a site which nobody sees gives other values every time.

    Args:
        log_density: maps shape (rows, d) to (rows,).
        start: one row, near which the rows are.
        minibatches: the model draws the rows of its plates, so that values may differ from call to call.

    Raises:
        ValueError: a row's value depends on the other rows, or on chance.

    Example:
        >>> check_rows(lambda x: x.square().sum(), torch.zeros(2))
        Traceback (most recent call last):
        ...
        ValueError: the model mixes latent vectors: 3 of them together give other log-joints than one by one; ...
    """
    with torch.random.fork_rng(devices=[start.device] if start.device.type == "cuda" else []):
        torch.manual_seed(0)
        rows = start.detach() + 0.5 * torch.randn(_ROWS, len(start)).to(start)
        together = _seeded(log_density, rows)  # one seed for all, so that minibatches are the same
        alone = torch.cat([_seeded(log_density, row[None]).reshape(-1) for row in rows])
        again = log_density(rows)
    if not minibatches and not _alike(together, again):
        raise ValueError(
            "the model's log-joint changes from run to run at the same latent values, so the model draws sites that "
            "the guide does not see (discrete ones behind poutine.block, say); pass AutoGFlow(..., joint=), the same "
            "model with them summed out"
        )
    if not _alike(together, alone):
        raise ValueError(
            f"the model mixes latent vectors: {_ROWS} of them together give other log-joints than one by one; index "
            "from the right and sum over the model's own dimensions only, as vectorize_particles=True asks for"
        )


def _seeded(log_density: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    torch.manual_seed(1)
    return log_density(rows)


def _alike(first: Tensor, second: Tensor) -> bool:
    # of sums of large terms that cancel little may be left but rounding; a mistake is of the size of the terms
    tolerance = torch.finfo(first.dtype).eps ** 0.5 * (1 + second.abs().max())
    return bool(((first - second).abs() <= tolerance).all())
