"""Events that do not fill the space, on which a density of R^n has no bound: what can be seen of it in the data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.datasets.rows import Rows

__all__ = ["full_turns", "off_support", "spread_rows", "warn_off_support"]

_ROWS = 2000
_LARGEST = 512  # entries of an event, beyond which ranks are not computed
_FEWEST = 16  # different events that say anything
_RELATIVE = 1e-6  # what is this small beside its scale counts as constant
_EDGE = 0.01  # this share of a range at either end ...
_AT_EDGE = (8, 0.008)  # ... holds at least so many events, and this share of them (of a uniform angle 0.02)

_TURNS = (
    (-math.pi, 2 * math.pi, "-pi to pi"),
    (0.0, 2 * math.pi, "0 to 2 pi"),
    (-180.0, 360.0, "-180 to 180"),
    (0.0, 360.0, "0 to 360"),
)


def warn_off_support(x: Tensor, action: Action) -> None:
    """Warn with what :func:`off_support` and :func:`full_turns` say, if anything."""
    found = off_support(x, action)
    if found:
        warnings.warn(
            f"the data do not fill the space on which the flow has its density: {'; '.join(found)}. The likelihood of "
            "such data has no bound: the NLL falls for ever and means nothing. Describe the events by as many "
            "coordinates as they have degrees of freedom, or add noise of a known size",
            stacklevel=6,
        )
    turns = full_turns(x, action)
    if turns:
        warnings.warn(
            f"the data look like angles: {turns}. The flow is a density on a line, which does not know that the two "
            "ends are one point: cut the circle where there are few data, or give (cos, sin) of the angles, each with "
            "a radius that varies",
            stacklevel=6,
        )


def spread_rows(rows: Rows, action: Action) -> Tensor:
    """Up to some thousand rows, evenly spaced."""
    count = min(len(rows), max(_ROWS, 4 * min(action.numel, _LARGEST)))
    return rows.take(torch.linspace(0, len(rows) - 1, count, dtype=torch.float64).round().long())


def off_support(x: Tensor, action: Action) -> list[str]:
    """What is constant in a sample of events although a density on all of R^n would let it vary, in words.

    Looks for constant entries, linear relations (a subspace), constant norms of whole events and of their parts, and
    other relations between entries and their squares (spheres about other points, ellipsoids).

    Args:
        x: shape (rows,) + event_shape.
        action: Whose fields are looked at beside contiguous and interleaved parts.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
        >>> off_support(x, VectorAction.space("SO(3)"))
        []
        >>> off_support(x / x.norm(dim=-1, keepdim=True), VectorAction.space("SO(3)"))
        ['all events have the norm 1: they lie on a sphere']
    """
    flat = x.detach().flatten(1).cpu()
    step = torch.finfo(flat.dtype).eps
    flat = flat.double().unique(dim=0)
    rows, size = flat.shape
    if len(x) >= _FEWEST and rows == 1:
        return ["all events are the same one"]
    if rows < _FEWEST or step > 1e-3:  # half precision has too few digits to tell
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
            f"events of {size} numbers lie in a flat subspace of dimension {rank}"
            + (" (sums or means of entries are the same in all events)" if _sums(flat[:, varying]) else "")
        )
    norms = list(_norms(flat, action, step))
    if norms:
        found.append(norms[0])
    elif rank == count and count <= _LARGEST // 4 and rows >= 2 * count + 3:
        squares = z.square()
        both = torch.cat([z, (squares - squares.mean(0)) / squares.std(0).clamp_min(_RELATIVE)], 1)
        # twice the digits are lost where a square is compared with its entry
        if _rank(both, 4 * tolerance) < 2 * count:
            found.append(
                "a combination of entries and their squares is constant (a sphere about another point, an ellipsoid, "
                "or entries that take two values only)"
            )
    return found


def _tolerance(step: float, reach: Tensor, scale: Tensor) -> Tensor:
    """How far rounding alone may move an entry, beside its scale; never more than a thousandth."""
    return (8 * step * reach / scale.clamp_min(torch.finfo(scale.dtype).tiny)).clamp(_RELATIVE, 1e-3)


def _rank(z: Tensor, tolerance: float) -> int:
    """The rank of standardized columns."""
    return int((torch.linalg.svdvals(z) / math.sqrt(len(z)) > tolerance).sum())


def _sums(flat: Tensor) -> bool:
    """Whether the sum of all entries, or of each of several interleaved or consecutive groups, is constant."""
    for width in (width for width in range(2, flat.shape[1] + 1) if flat.shape[1] % width == 0):
        for parts in (flat.unflatten(1, (-1, width)), flat.unflatten(1, (width, -1)).transpose(1, 2)):
            if bool((parts.sum(-1).std(0) <= 1e-5 * parts.norm(dim=-1).mean(0)).all()):
                return True
    return False


def _norms(flat: Tensor, action: Action, step: float) -> Iterator[str]:
    """Which norms are constant, the most telling description first."""
    tolerance = max(_RELATIVE, 8 * step)

    def values(parts: Tensor) -> Tensor:
        """The norm of each part, where it is constant; NaN where not."""
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
    """The fields of events: entries of vectors, channels of images."""
    pixels = action.numel // sum(action.field_sizes)
    return list(flat.split([size * pixels for size in action.field_sizes], dim=1))


def full_turns(x: Tensor, action: Action) -> str | None:
    """Entries of vectors that are spread over one turn and are as frequent at its two ends, in words.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> x = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> full_turns(2 * math.pi * x, VectorAction.trivial("C1"))
        'entry 0 is spread over 0 to 2 pi up to both ends'
        >>> full_turns(5 * x, VectorAction.trivial("C1")) is None
        True
    """
    if len(action.event_shape) != 1:
        return None
    flat = x.detach().double().cpu()
    for low, turn, unit in _TURNS:
        share = (flat - low) / turn
        inside = ((share >= -1e-6) & (share <= 1 + 1e-6)).all(0)
        ends = torch.stack([(share < _EDGE).sum(0), (share > 1 - _EDGE).sum(0)])
        near = (share < 3 * _EDGE).sum(0) + (share > 1 - 3 * _EDGE).sum(0)
        # a bell that happens to end there falls off before, and with so many events would have some beyond
        enough = max(_AT_EDGE[0], _AT_EDGE[1] * len(flat))
        level = (ends.sum(0) >= enough) & (ends.sum(0) > 0.22 * near) & (ends.amin(0) >= enough / 4)
        if (inside & level).any():
            return f"{_entries(inside & level)} spread over {unit} up to both ends"
    return None


def _entries(which: Tensor) -> str:
    numbers = which.nonzero().flatten().tolist()
    shown = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
    return f"{'entry' if len(numbers) == 1 else 'entries'} {shown} {'is' if len(numbers) == 1 else 'are'}"


def _figures(values: Tensor) -> str:
    numbers = list(dict.fromkeys(f"{value:.4g}" for value in values.tolist()))
    return ", ".join(numbers[:4]) + (", ..." if len(numbers) > 4 else "")
