"""MaskedNormal: the standard normal base for events of which some rows are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.row_mask import check_mask, coordinates_there
from pyro_gflows.distributions.invariant_base import InvariantBase
from pyro_gflows.distributions.normal import InvariantNormal

__all__ = ["MaskedNormal"]


class MaskedNormal(InvariantBase):
    r"""A normal base for sets of different sizes: standard normal coordinates in the rows that are there, 0 elsewhere.

    It scores the rows that are there only, so that a missing row adds 0 to the log-density. It is the base behind
    ``flow.condition(mask=mask)``, and shares the module of the flow's base.

    Args:
        base: The base for all rows: an InvariantNormal of covariance "isotropic" and mean 0.
        mask: Which rows are there, boolean, shape ``batch_shape + (n,)``.

    Raises:
        TypeError: The events of the base do not consist of rows, or the mask is not boolean.
        ValueError: The base is another one, or the mask has another number of rows.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> base = MaskedNormal(InvariantNormal(RowsAction(3)), torch.tensor([True, True, False]))
        >>> base.log_prob(torch.zeros(3)).item() == 2 * InvariantNormal(RowsAction(1)).log_prob(torch.zeros(1)).item()
        True
    """

    has_rsample = True

    def __init__(self, base: Any, mask: Tensor) -> None:
        if not isinstance(base, InvariantNormal) or base.covariance != "isotropic" or base.module.mean is not None:
            raise ValueError(f"expected a base that takes a mask, InvariantNormal(action), got {base!r}")
        self.action, self.module = base.action, base.module
        self._there = coordinates_there(check_mask(base.action, mask), mask)
        super().__init__(mask.shape[:-1], base.event_shape, validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        reference, shape = self.module.reference, self._extended_shape(torch.Size(sample_shape))
        draws = torch.randn(shape, dtype=reference.dtype, device=reference.device)
        return torch.where(self._there, draws, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        # masked before the square, so that no missing row has a gradient
        scores = -0.5 * (torch.where(self._there, value, 0.0).square() + math.log(2 * math.pi))
        total = torch.where(self._there, scores, 0.0).sum(-1)
        return total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))

    def __repr__(self) -> str:
        return f"MaskedNormal({self.action}, masks of batch shape {tuple(self._there.shape[:-1])})"
