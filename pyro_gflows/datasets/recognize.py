"""The kind of events in the array of a file, recognized by its shape, its values and the group that acts on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np

from pyro_gflows.datasets.event_formats import EventFormat, EventKind, GrayScale
from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.groups import ContinuousGroup, parse_group
from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.symmetric import SymmetricGroup

__all__ = ["FileOptions", "event_format", "repeats"]

_MOST_LEVELS = 65_536
_MOST_VALUES = 1_000_000  # so many values are drawn to find the distance of the levels
_FEWEST_VALUES = 50  # two or three continuous values lie on some grid by chance, so many do not
_LARGEST_GAP = 8  # the two closest levels in use may be so many levels apart

# the ranks of one event, and the shapes of its array
_LAYOUTS: dict[EventKind, tuple[tuple[int, ...], str]] = {
    "vectors": ((1, 2), "(N, d) or (N, n, d)"),
    "angles": ((1,), "(N, d)"),
    "sets": ((2,), "(N, n, d)"),
    "particles": ((2,), "(N, n, d)"),
    "images": ((2, 3), "(N, H, W), (N, C, H, W) or (N, H, W, C)"),
}


@dataclass(frozen=True)
class FileOptions:
    """Options to read a file of events, in addition to its name.

    An array of the shape (N, n, d) may hold several kinds of events; the group decides among them. Under "Sn" its
    events are sets of n rows. Under a group of rotations and reflections of d-dimensional space, they are n vectors on
    which the group acts together. Under "Sn" and such a group, as in "S4 x O(2)", they are configurations of n
    particles. Otherwise they are images.

    Args:
        group: The name of the group that is to act on the events.
        kind: "vectors", "angles" (in radians), "sets", "particles" or "images"; by default the array and the group
            decide, which take angles for vectors.
        levels: The number of gray levels of images; by default the values decide.
        key: The name of the array in an ``.npz`` file; needed when the file holds more than one.
        center: For particles, "mean-free" (the default), which shifts each configuration to the center of mass 0, or
            "free", which takes them as they are.

    Raises:
        ValueError: If ``kind`` or ``center`` is none of these, or if ``levels`` is not between 2 and 65,536.

    Example:
        >>> array = np.random.default_rng(0).normal(size=(9, 4, 2))
        >>> for group in ("S4", "C6"):
        ...     print(event_format(array, FileOptions(group), source="x").describe())
        sets of 4 rows with 2 features
        vectors of 8 coordinates (each 4 x 2)
    """

    group: str = "C1"
    kind: EventKind | None = None
    levels: int | None = None
    key: str | None = None
    center: str | None = None

    def __post_init__(self) -> None:
        if self.center not in (None, "mean-free", "free"):
            raise ValueError(f"expected center='mean-free' or center='free', got {self.center!r}")
        if self.kind is not None and self.kind not in get_args(EventKind):
            raise ValueError(f"expected one of the kinds {get_args(EventKind)}, got {self.kind!r}")
        if self.levels is not None and not 2 <= self.levels <= _MOST_LEVELS:
            raise ValueError(f"expected 2 to {_MOST_LEVELS} gray levels, got {self.levels}")


def event_format(array: np.ndarray, options: FileOptions, *, source: str) -> EventFormat:
    """Recognize the format of the events in an array.

    Images whose values are whole, or lie on an evenly spaced grid such as k/255, are images of gray levels. Their
    levels are centered and scaled by the mean and the standard deviation of all pixels. The channel axis may come first
    or last: if the height equals the width in only one of these readings, then this reading is taken; otherwise the
    channels are last if the last axis has at most 4 entries and the first axis has more.

    Args:
        array: Events, one a row.
        options: What is known about the events.
        source: How the error messages call the array.

    Raises:
        ValueError: If the array holds events of no known kind, or not the events that ``options`` describe.

    Example:
        >>> form = event_format(np.zeros((9, 8, 8, 3), dtype=np.uint8), FileOptions("C4"), source="x")
        >>> form.event_shape, form.channels_last
        ((3, 8, 8), True)
    """
    if array.ndim == 0:
        raise ValueError(f"{source}: expected an array with one event a row, got a single number")
    if array.ndim == 1:
        raise ValueError(
            f"{source}: expected an array with one event a row, got shape {array.shape}; save it as (N, 1) if it holds "
            "N events of one coordinate, and as (N, d) if an event has d coordinates"
        )
    if array.ndim > 4:
        raise ValueError(
            f"{source}: expected an array of shape (N, d), (N, n, d), (N, H, W), (N, C, H, W) or (N, H, W, C), got "
            f"{array.shape}"
        )
    shape = array.shape[1:]
    kind = options.kind or _kind(shape, options.group)
    _check_kind(kind, shape, options.group, source)
    if options.center is not None and kind != "particles":
        raise ValueError(f"{source}: expected particles where a center is named, got {kind} of shape {shape}")
    if kind != "images":
        if options.levels is not None:
            raise ValueError(f"{source}: expected images where gray levels are given, got {kind} of shape {shape}")
        return EventFormat(kind, shape, array.dtype.name, center=options.center or "mean-free")
    return EventFormat(kind, shape, array.dtype.name, _channels_last(shape), _gray_scale(array, options.levels, source))


def _kind(shape: tuple[int, ...], group: str) -> EventKind:
    if len(shape) != 2:
        return "vectors" if len(shape) == 1 else "images"
    if group == "translations":
        return "images"
    parsed = parse_group(group)
    if isinstance(parsed, SymmetricGroup):
        return "sets"
    if isinstance(parsed, ProductGroup) and isinstance(parsed.factors[0], SymmetricGroup):
        return "particles"
    if isinstance(parsed, ContinuousGroup) and parsed.dimension == 3:
        return "vectors" if shape[1] == 3 else "images"
    no_symmetry = isinstance(parsed, EnumerableGroup) and parsed.order == 1
    return "vectors" if shape[1] in ((1, 2, 3) if no_symmetry else (2,)) else "images"


def _check_kind(kind: EventKind, shape: tuple[int, ...], group: str, source: str) -> None:
    ranks, written = _LAYOUTS[kind]
    if len(shape) not in ranks:
        raise ValueError(f"{source}: expected {kind} as an array {written}, got events of shape {shape}")
    parsed = None if group == "translations" else parse_group(group)
    if kind == "particles" and shape[0] < 2:
        raise ValueError(f"{source}: expected particles as an array {written} with n >= 2, got n = {shape[0]}")
    if kind == "sets" and isinstance(parsed, SymmetricGroup) and shape[0] != parsed.n:
        swap = "; the rows are the first axis of an event: exchange its axes" if shape[1] == parsed.n else ""
        raise ValueError(
            f"{source}: {group} permutes {parsed.n} rows, got events of {shape[0]} rows of {shape[1]}"
            + (swap or f"; choose the symmetric group of as many rows, S{shape[0]}")
        )


def _channels_last(shape: tuple[int, ...]) -> bool:
    if len(shape) == 2:
        return False
    first, middle, last = shape
    square_if_first, square_if_last = middle == last, first == middle
    if square_if_first != square_if_last:
        return square_if_last
    return last <= 4 < first


def _gray_scale(array: np.ndarray, given: int | None, source: str) -> GrayScale | None:
    """Return how the levels are written, or None for continuous values."""
    if not np.isfinite(array).all():
        return None  # EventFormat.to_events refuses them and names the row, as it does for continuous values
    found = _grid(array)
    if found is None:
        if given is not None:
            raise ValueError(
                f"{source}: expected values on an evenly spaced grid of {given} gray levels, got others; leave the "
                "number of levels out for images of continuous values"
            )
        return None
    lowest, step, count = found
    if given is not None and given < count:
        raise ValueError(f"{source}: expected at most {given} gray levels, got values of at least {count} levels")
    levels = given or _usual(count)
    mean = ((float(array.mean(dtype=np.float64)) - lowest) / step + 0.5) / levels
    variance = float(array.var(dtype=np.float64)) / (step * levels) ** 2 + 1 / (12 * levels**2)  # noise inside a level
    scaling = GrayLevels(levels, center=round(mean, 2), gain=float(f"{variance**-0.5:.2g}"))
    return GrayScale(scaling, lowest=lowest, step=step)


def repeats(array: np.ndarray) -> bool:
    """Return whether values of an array repeat so often that they seem to be counts rather than continuous values."""
    flat = array.reshape(-1)
    some = flat[np.random.default_rng(0).integers(len(flat), size=_MOST_VALUES)] if len(flat) > _MOST_VALUES else flat
    share = len(np.unique(some)) / len(some)
    whole = bool((some == np.rint(some)).all())
    return share < 0.5 if whole else share < 0.1 and len(some) >= 1000


def _usual(count: int) -> int:
    """Return the number of gray levels for a count in use: the count itself up to 32, else a power of 2 from 256 on."""
    return max(2, count) if count <= 32 else max(256, 2 ** (count - 1).bit_length())


def _grid(array: np.ndarray) -> tuple[float, float, int] | None:
    """Return the lowest point, the step and the number of points of an evenly spaced grid that holds all values."""
    if array.dtype.kind in "iub":
        first = min(0, int(array.min()))
        count = int(array.max()) - first + 1
        return (float(first), 1.0, count) if count <= _MOST_LEVELS else None
    flat = array.reshape(-1).astype(np.float64)
    least = float(flat.min())
    if len(flat) < _FEWEST_VALUES:
        return None
    # the size of rounding errors in the dtype of the file
    rounding = float(np.finfo(array.dtype).eps) * float(np.abs(flat).max())
    for lowest in (0.0, least) if least > 0 else (least,):
        found = _grid_from(flat, lowest, rounding)
        if found is not None:
            return (lowest, *found)
    return None


def _grid_from(flat: np.ndarray, lowest: float, rounding: float) -> tuple[float, int] | None:
    """Return the step and the number of points of a grid that begins at a lowest point and holds all values."""
    reach = float(flat.max()) - lowest
    some = np.random.default_rng(0).integers(len(flat), size=min(len(flat), _MOST_VALUES))
    distances = np.diff(np.unique(np.append(flat[some], lowest)))
    distances = distances[distances > 1e-6 * reach]  # values that are closer differ by rounding alone
    if not len(distances):
        return None
    closest = float(distances.min())
    # the coarsest grid first; then integers, k/255 and 255 steps from end to end; then grids with unused levels
    for roughly in (closest, 1.0, 1 / 255, reach / 255, *(closest / part for part in range(2, _LARGEST_GAP + 1))):
        count = round(reach / roughly) + 1
        if not 2 <= count <= _MOST_LEVELS:
            continue
        step = reach / (count - 1)
        exact = (flat - lowest) / step
        if bool((np.abs(exact - np.rint(exact)) < min(0.25, 1e-3 + 2 * rounding / step)).all()):
            return step, count
    return None
