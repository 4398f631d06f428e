"""Masks: which rows of an event are there, so that sets of different sizes lie in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.row_layout import RowTables
from pyro_gflows.actions.rows import RowsAction
from pyro_gflows.groups.row_fields import RowField

__all__ = ["check_mask", "coordinates_there", "pad_rows", "require_maskable", "without_gaps"]


def require_maskable(action: Action) -> RowsAction:
    """The action, if rows may be missing in its events.

    Args:
        action: How the group acts on events.

    Raises:
        TypeError: It is not a RowsAction.
        ValueError: It has several blocks of rows, matrices, or features that sum to 0 over the rows.
    """
    if not isinstance(action, RowsAction):
        raise TypeError(f"expected a mask for a RowsAction, whose events consist of rows, got {action}")
    layout = action.layout
    if len(layout.sizes) > 1:
        raise ValueError(f"expected a mask for rows of one block, got {action} with {len(layout.sizes)} blocks")
    if action.has_matrix_fields or any(bool(mask.any()) for mask in layout.mean_free):
        raise ValueError(
            f"expected a mask for rows whose features are free, got {action}: matrices, and features that sum to 0 "
            "over the rows, have no coordinates of single rows to leave out"
        )
    return action


def check_mask(action: Action, mask: Tensor) -> RowsAction:
    """The action, if the mask says which of its rows are there.

    Args:
        action: How the group acts on events.
        mask: The mask, boolean, shape ``batch_shape + (n,)`` for n rows.

    Raises:
        TypeError: As for :func:`require_maskable`, or the mask is not a boolean tensor.
        ValueError: As for :func:`require_maskable`, or the mask has another length than the rows.
    """
    action = require_maskable(action)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"expected a mask as a boolean tensor, which is True where a row is there, got {got}")
    (rows,) = action.layout.sizes
    if not mask.ndim or mask.shape[-1] != rows:
        raise ValueError(f"expected a mask of shape (..., {rows}) for {action}, got {tuple(mask.shape)}")
    return action


def coordinates_there(action: RowsAction, mask: Tensor) -> Tensor:
    """Which coordinates of an event are those of rows that are there, or of no row: booleans ``(..., numel)``.

    Args:
        action: How the group acts on events.
        mask: Which rows are there, shape ``(..., n)``.

    Example:
        >>> action = RowsAction(3, 2).direct_sum(RowsAction(3).trivial_fields(1))
        >>> coordinates_there(action, torch.tensor([True, False, True])).int().tolist()
        [1, 1, 0, 0, 1, 1, 1]
    """

    def columns(features: Sequence[Action | None]) -> tuple[Tensor, ...]:
        return tuple(mask[..., None].expand(*mask.shape, 0 if part is None else part.numel) for part in features)

    layout = action.layout
    rest = mask.new_ones(*mask.shape[:-1], 0 if layout.rest is None else layout.rest.numel)
    return layout.pack(RowTables(columns(layout.even), columns(layout.odd), rest))


def without_gaps(action: RowsAction, x: Tensor, mask: Tensor) -> Tensor:
    """As many events without missing rows: the rows of all events that are there, again and again, in their order.

    They have the same mean and the same scale of every feature as the rows that are there, as far as their number goes
    into the number of all rows.

    Args:
        action: How the group acts on events.
        x: Events, shape ``(count, numel)``.
        mask: Which rows are there, shape ``(count, n)``.

    Example:
        >>> x, mask = torch.tensor([[1.0, 0.0], [2.0, 3.0]]), torch.tensor([[True, False], [True, True]])
        >>> without_gaps(RowsAction(2), x, mask).tolist()
        [[1.0, 2.0], [3.0, 1.0]]
    """
    rows = action.unpack(x)
    places = mask.flatten().nonzero().squeeze(-1)
    if not len(places):
        return x
    chosen = places[torch.arange(mask.numel(), device=x.device) % len(places)]

    def dealt(tables: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(table.flatten(0, 1)[chosen].reshape(table.shape) for table in tables)

    return action.pack(RowTables(dealt(rows.even), dealt(rows.odd), rows.rest))


def pad_rows(action: Action, tables: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Sets of different sizes as events of one action, and the mask that says which of their rows are there.

    Args:
        action: How the group acts on events of n rows, all of whose fields are rows.
        tables: Sets, each of shape ``(n_i, F)`` with at most n rows, and with the features in the order of the fields.

    Returns:
        The events, with rows of zeros after the last one of each set, shape ``(len(tables), numel)``; and the mask,
        shape ``(len(tables), n)``, as ``flow(x, mask=mask)`` and ``flow.condition(mask=mask)`` take it.

    Raises:
        TypeError: The events do not consist of rows, or a set is not a tensor.
        ValueError: The events have other fields than free rows of one block; there is no set; or a set is not a table
            of F features, or has too many rows.

    Example:
        >>> events, mask = pad_rows(RowsAction(3, 2), [torch.ones(1, 2), torch.ones(3, 2)])
        >>> events.tolist(), mask.sum(-1).tolist()
        ([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]], [1, 3])
    """
    action = require_maskable(action)
    fields = [field for field in action.fields if isinstance(field, RowField)]
    if len(fields) < len(action.fields):
        raise ValueError(
            f"expected events of rows alone for a list of sets, got {action}; pad the rows, and take mask="
        )
    (rows,), widths = action.layout.sizes, [field.width for field in fields]
    if not len(tables):
        raise ValueError("expected at least one set of rows, got none")
    for index, table in enumerate(tables):
        if not isinstance(table, Tensor):
            raise TypeError(f"expected sets of rows as tensors, got {type(table).__name__} at index {index}")
        if table.ndim != 2 or table.shape[1] != sum(widths) or len(table) > rows:
            raise ValueError(
                f"expected sets of at most {rows} rows with {sum(widths)} features each, as tensors of shape (n_i, "
                f"{sum(widths)}), got {tuple(table.shape)} at index {index}"
            )
    sizes = torch.tensor([len(table) for table in tables], device=tables[0].device)
    mask = torch.arange(rows, device=tables[0].device) < sizes[:, None]
    padded = tables[0].new_zeros(*mask.shape, sum(widths))
    padded[mask] = torch.cat(list(tables))
    parts = zip(fields, padded.split(widths, -1), strict=True)
    return torch.cat([field.flatten(part) for field, part in parts], -1), mask
