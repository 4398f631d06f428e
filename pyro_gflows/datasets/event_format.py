"""How the array of a file holds events: vectors, sets of rows, or images; how it is read, and written again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.checks import check_data
from pyro_gflows.datasets.files import in_dtype
from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.deprecation import renamed_arguments, renamed_attributes
from pyro_gflows.serialization.registry import registered

__all__ = ["EventFormat", "EventKind", "GrayScale"]

#: What the rows of a file are read as.
EventKind = Literal["vectors", "sets", "images"]


@registered
@dataclass(frozen=True)
class GrayScale:
    """The numbers that a file writes for gray levels: level k is written as ``lowest + k * step``.

    Args:
        scaling: how levels become the real numbers that a flow is fitted to.
        lowest: what level 0 is written as.
        step: the distance of two levels in the file.
    """

    scaling: GrayLevels
    lowest: float = 0.0
    step: float = 1.0


@renamed_attributes(grey="gray")
@renamed_arguments(grey="gray")
@registered
@dataclass(frozen=True)
class EventFormat:
    """How one event lies in the array of a file, and which tensor a flow takes for it.

    Args:
        kind: "vectors" and "sets" become vectors, row by row; "images" become (C, H, W).
        shape: of one event in the file.
        dtype: of the numbers in the file, as NumPy names it.
        channels_last: whether images lie as (H, W, C).
        gray: of images of gray levels, how these are written; None: continuous numbers, which are taken as they are.

    Example:
        >>> form = EventFormat("sets", (5, 3))
        >>> form.event_shape
        (15,)
    """

    kind: EventKind
    shape: tuple[int, ...]
    dtype: str = "float32"
    channels_last: bool = False
    gray: GrayScale | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # a list where it was read from JSON

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of the event that a flow takes."""
        if self.kind != "images":
            return (int(np.prod(self.shape)),)
        if len(self.shape) == 2:
            return (1, *self.shape)
        return (self.shape[2], *self.shape[:2]) if self.channels_last else self.shape

    def to_events(self, array: np.ndarray, *, source: str, generator: torch.Generator | None = None) -> Tensor:
        """The events of an array, shape ``(rows,) + event_shape``, in the default dtype.

        Args:
            array: events of this format, one a row.
            source: what the error messages call it.
            generator: of the dequantization noise of gray levels.

        Raises:
            ValueError: another shape, NaN or inf (with the row), numbers that are no gray levels where these are
                expected, or too large for the default dtype.
            TypeError: integers where a density needs continuous numbers.
        """
        array = self._shaped(array, source)
        if self.gray is None:
            x = self._arrange(check_data(_floating(array, source), source=source))
            return in_dtype(x, torch.get_default_dtype(), source=source)
        levels = self.levels(array, source=source)
        return self.gray.scaling.dequantize(self._arrange(levels), generator)

    def levels(self, array: np.ndarray, *, source: str) -> Tensor:
        """The gray levels 0 .. n-1 of an array of images, int64, in its own shape."""
        assert self.gray is not None
        exact: np.ndarray = (array.astype(np.float64) - self.gray.lowest) / self.gray.step
        levels = np.rint(exact)
        last = self.gray.scaling.levels - 1
        # half precision holds k/255 to a tenth of a level
        wrong = ~((np.abs(exact - levels) < 0.25) & (levels >= 0) & (levels <= last))
        if wrong.any():
            row = int(np.nonzero(wrong.reshape(len(array), -1).any(1))[0][0])
            value = array[row][wrong[row]][0]
            ends = f"{self.gray.lowest:g} to {self.gray.lowest + last * self.gray.step:g}"
            raise ValueError(
                f"{source}: expected the {last + 1} gray levels from {ends} in steps of {self.gray.step:.6g}, received "
                f"{value} in row {row}"
            )
        return torch.from_numpy(levels.astype(np.int64))

    def to_array(self, events: Tensor) -> np.ndarray:
        """Events as a file of this format holds them: its shape, its dtype, its numbers."""
        if self.gray is not None:
            levels = self.gray.scaling.quantize(events)
            events = self.gray.lowest + self.gray.step * levels.double()
        if self.kind == "images" and len(self.shape) == 3 and self.channels_last:
            events = events.movedim(-3, -1)
        array = events.reshape(len(events), *self.shape).cpu().numpy()
        return array.astype(self.dtype)

    def describe(self) -> str:
        """What the file was read as, in words."""
        if self.kind == "vectors":
            flattened = "" if len(self.shape) == 1 else f" (each {self.shape[0]} x {self.shape[1]})"
            return f"vectors of {self.event_shape[0]} numbers{flattened}"
        if self.kind == "sets":
            return f"sets of {self.shape[0]} rows of {self.shape[1]}"
        channels, height, width = self.event_shape
        unit = "of continuous numbers" if self.gray is None else f"of {self.gray.scaling.levels} gray levels"
        return f"images of {height} x {width} pixels with {channels} channel{'s' * (channels > 1)}, {unit}"

    def _shaped(self, array: np.ndarray, source: str) -> np.ndarray:
        """The array in this format's shape; a channel axis of length 1 is optional, and so is flattening of vectors."""
        one_channel = self.kind == "images" and self.event_shape[0] == 1 and array.shape[1:] in self._one_channel()
        flattened = self.kind != "images" and array.shape[1:] == self.event_shape
        if array.shape[1:] != self.shape and not one_channel and not flattened:
            raise ValueError(
                f"{source}: expected event shape {self.shape}, received {tuple(array.shape[1:])} "
                f"(the array has shape {array.shape}: rows first)"
            )
        return array.reshape(len(array), *self.shape)

    def _one_channel(self) -> tuple[tuple[int, ...], ...]:
        _, height, width = self.event_shape
        return (height, width), (1, height, width), (height, width, 1)

    def _arrange(self, x: Tensor) -> Tensor:
        if self.kind == "images" and len(self.shape) == 3 and self.channels_last:
            x = x.movedim(-1, -3)
        return x.reshape(len(x), *self.event_shape)


def _floating(array: np.ndarray, source: str) -> np.ndarray:
    if array.dtype.kind in "iub":
        raise TypeError(
            f"{source}: expected floating-point numbers, got {array.dtype}; a density needs continuous values. Save "
            "measurements as floats; add uniform noise from [0, 1) to counts; save images with their height and width, "
            "as (N, H, W) or (N, C, H, W), so that they are read as gray levels"
        )
    # torch has no long double
    return array.astype(np.float64) if array.dtype.itemsize > 8 else array
