"""Warnings about events that do not fill the space, to which a density of R^n fits without a bound."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_gflows.actions import Action, ParticleAction
from pyro_gflows.datasets.rows import Rows
from pyro_gflows.datasets.samples import spread
from pyro_gflows.spaces import Torus

__all__ = ["full_circles", "off_support", "spread_rows", "warn_off_support"]

_ROWS = 2000
_LARGEST = 512  # ranks of larger events are not computed
_FEWEST = 16  # fewer different events tell nothing
_RELATIVE = 1e-6  # a spread that is smaller than this multiple of the scale counts as none
_EDGE = 0.01  # this share of a range at either end ...
_AT_EDGE = (8, 0.008)  # ... holds at least so many events, and this share of them (of a uniform angle 0.02)

_CIRCLES = (
    (-math.pi, 2 * math.pi, "-pi to pi"),
    (0.0, 2 * math.pi, "0 to 2 pi"),
    (-180.0, 360.0, "-180 to 180"),
    (0.0, 360.0, "0 to 360"),
)


def warn_off_support(x: Tensor, action: Action) -> None:
    """Warn if a sample of events does not fill the space, or has entries that look like angles.

    Args:
        x: A sample of events, shape (rows,) + event_shape.
        action: How the group acts on one event.

    Warns:
        UserWarning: If :func:`off_support` or :func:`full_circles` finds something.
    """
    x = x[x.flatten(1).isfinite().all(1)]  # a large file may hold others, which the batch with them will report
    found = off_support(x, action)
    if found:
        warnings.warn(
            f"the data do not fill the space on which the flow has its density: {'; '.join(found)}. The likelihood of "
            "these data has no bound, so that the NLL falls without end and means nothing. Describe the events by as "
            "many coordinates as they have degrees of freedom, or add noise of a known size",
            stacklevel=6,
        )
    circles = None if isinstance(action.space, Torus) else full_circles(x, action)
    if circles:
        warnings.warn(
            f"the data seem to be angles: {circles}. The flow is a density on a line, whose two ends are not the same "
            "point: take a flow on a torus (TorusAction, InvariantUniform), cut the circle where few data lie, or "
            "describe each angle by (r cos, r sin) with a radius r that varies",
            stacklevel=6,
        )


def spread_rows(rows: Rows, action: Action) -> Tensor:
    """Return up to a few thousand rows, evenly spaced."""
    count = min(len(rows), max(_ROWS, 4 * min(action.numel, _LARGEST)))
    return rows.take(spread(rows, count))


def off_support(x: Tensor, action: Action) -> list[str]:
    """Describe in words the relations that hold for all events of a sample, so that they do not fill R^n.

    The relations are constant entries, linear relations (a subspace), constant norms of whole events and of their
    parts, and other relations between entries and their squares (spheres about other points, ellipsoids). The list is
    empty where none is found.

    Args:
        x: A sample of events, shape (rows,) + event_shape.
        action: How the group acts on one event; its fields are parts whose norms are tested, as are consecutive and
            interleaved entries.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> off_support(x, VectorAction.space("SO(3)"))
        []
        >>> off_support(x / x.norm(dim=-1, keepdim=True), VectorAction.space("SO(3)"))
        ['all events have the norm 1: they lie on a sphere']
    """
    action, flat = _coordinates(action, x.detach().cpu())
    step = torch.finfo(flat.dtype).eps
    flat = flat.double().unique(dim=0)
    rows, size = flat.shape
    if len(x) >= _FEWEST and rows == 1:
        return ["all events are the same one"]
    if rows < _FEWEST or step > 1e-3:  # half precision has too few digits
        return []
    mean = flat.mean(0)
    spread = flat.std(0)
    reach = flat.abs().amax(0)
    constant = spread <= _tolerance(step, reach, reach) * reach
    found = []
    if constant.any():
        found.append(f"{_entries(constant)} the same in all events")
    varying = ~constant
    if not varying.any():
        return found
    z = (flat[:, varying] - mean[varying]) / spread[varying]
    tolerance = float(_tolerance(step, reach[varying], spread[varying]).max())
    count = z.shape[1]
    rank = count
    if count <= _LARGEST and rows >= count + 3:
        rank = _rank(z, tolerance)
    if rank < count:
        found.append(
            f"events of {size} coordinates lie in a flat subspace of dimension {rank}"
            + (" (sums or means of entries are the same in all events)" if _sums(flat[:, varying]) else "")
        )
    norms = list(_norms(flat, action, step))
    if norms:
        found.append(norms[0])
    elif rank == count and count <= _LARGEST // 4 and rows >= 2 * count + 3:
        squares = z.square()
        both = torch.cat([z, (squares - squares.mean(0)) / squares.std(0).clamp_min(_RELATIVE)], 1)
        # a comparison of a square with its entry loses twice as many digits
        if _rank(both, 4 * tolerance) < 2 * count:
            found.append(
                "a combination of entries and their squares is constant (a sphere about another point, an ellipsoid, "
                "or entries that take two values only)"
            )
    return found


def _coordinates(action: Action, x: Tensor) -> tuple[Action, Tensor]:
    """Return how the group acts on coordinates that events of its space fill, and the coordinates of events."""
    if isinstance(action, ParticleAction):
        return action.coordinates, action.to_coordinates(x)
    return action, x.flatten(1)


def _tolerance(step: float, reach: Tensor, scale: Tensor) -> Tensor:
    """Return the error of entries by rounding alone, relative to their scale and at most a thousandth."""
    return (8 * step * reach / scale.clamp_min(torch.finfo(scale.dtype).tiny)).clamp(_RELATIVE, 1e-3)


def _rank(z: Tensor, tolerance: float) -> int:
    """Return the rank of standardized columns."""
    return int((torch.linalg.svdvals(z) / math.sqrt(len(z)) > tolerance).sum())


def _sums(flat: Tensor) -> bool:
    """Return whether the sum of all entries, or of each of several interleaved or consecutive parts, is constant."""
    for width in (width for width in range(2, flat.shape[1] + 1) if flat.shape[1] % width == 0):
        for parts in (flat.unflatten(1, (-1, width)), flat.unflatten(1, (width, -1)).transpose(1, 2)):
            if bool((parts.sum(-1).std(0) <= 1e-5 * parts.norm(dim=-1).mean(0)).all()):
                return True
    return False


def _norms(flat: Tensor, action: Action, step: float) -> Iterator[str]:
    """Describe the norms that are constant, with the most informative description first."""
    tolerance = max(_RELATIVE, 8 * step)

    def values(parts: Tensor) -> Tensor:
        """Return the norm of each part where it is constant, and NaN elsewhere."""
        norm = parts.norm(dim=-1)
        mean = norm.mean(0)
        is_constant = (norm.std(0) <= tolerance * mean) & (mean > 0)
        return torch.where(is_constant, mean, math.nan)

    whole = values(flat[:, None])
    size = flat.shape[1]
    fields = _field_parts(flat, action)
    widths = [width for width in range(2, size) if size % width == 0] if size <= _LARGEST else []
    for width in widths:
        for parts, kind in (
            (flat.unflatten(1, (-1, width)), f"consecutive entries in groups of {width}"),
            (flat.unflatten(1, (width, -1)).transpose(1, 2), f"every {size // width}th entry, in groups of {width}"),
        ):
            norm = values(parts)
            if not norm.isnan().any():
                yield f"{kind} have constant norms ({_figures(norm)}): they lie on spheres"
    if not whole.isnan().any():
        yield f"all events have the norm {_figures(whole)}: they lie on a sphere"
    for index, part in enumerate(fields):
        norm = values(part[:, None])
        if part.shape[1] > 1 and not norm.isnan().any():
            yield f"field {index} of the events has the constant norm {_figures(norm)}: it lies on a sphere"


def _field_parts(flat: Tensor, action: Action) -> list[Tensor]:
    """Return the fields of events: entries of vectors, channels of images."""
    pixels = action.numel // sum(action.field_sizes)
    return list(flat.split([size * pixels for size in action.field_sizes], dim=1))


def full_circles(x: Tensor, action: Action) -> str | None:
    """Describe in words the entries of vectors that are spread over a full circle, as angles are; None if none are.

    An entry is taken for an angle if all its values lie within 360 degrees, from 0 or from -180, or the same in
    radians, and about as many values lie near either end as in between.

    Args:
        x: A sample of events, shape (rows,) + event_shape.
        action: How the group acts on one event; only vectors are tested.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> x = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> full_circles(2 * math.pi * x, VectorAction.trivial("C1"))
        'entry 0 is spread over 0 to 2 pi up to both ends'
        >>> full_circles(5 * x, VectorAction.trivial("C1")) is None
        True
    """
    if len(action.event_shape) != 1:
        return None
    flat = x.detach().double().cpu()
    for low, length, ends_in_words in _CIRCLES:
        share = (flat - low) / length
        inside = ((share >= -1e-6) & (share <= 1 + 1e-6)).all(0)
        ends = torch.stack([(share < _EDGE).sum(0), (share > 1 - _EDGE).sum(0)])
        near = (share < 3 * _EDGE).sum(0) + (share > 1 - 3 * _EDGE).sum(0)
        # a bell-shaped density falls off before the ends, and so many events would have some beyond them
        enough = max(_AT_EDGE[0], _AT_EDGE[1] * len(flat))
        level = (ends.sum(0) >= enough) & (ends.sum(0) > 0.22 * near) & (ends.amin(0) >= enough / 4)
        if (inside & level).any():
            return f"{_entries(inside & level)} spread over {ends_in_words} up to both ends"
    return None


def _entries(which: Tensor) -> str:
    indices = which.nonzero().flatten().tolist()
    shown = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
    return f"{'entry' if len(indices) == 1 else 'entries'} {shown} {'is' if len(indices) == 1 else 'are'}"


def _figures(values: Tensor) -> str:
    shown = list(dict.fromkeys(f"{value:.4g}" for value in values.tolist()))
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")
