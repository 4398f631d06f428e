"""The format of the events in a file: vectors, angles, sets, particles or images, and how they are read and written."""

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
from pyro_gflows.spaces import Euclidean, MeanFree, Space, Torus

__all__ = ["EventFormat", "EventKind", "GrayScale"]

#: The kinds of events that are read from a file.
EventKind = Literal["vectors", "angles", "sets", "particles", "images"]


@registered
@dataclass(frozen=True)
class GrayScale:
    """The values by which a file writes gray levels: level k is written as ``lowest + k * step``.

    Args:
        scaling: The map from levels to the real values that a flow is fitted to.
        lowest: The value of level 0 in the file.
        step: The distance of two neighboring levels in the file.

    Example:
        >>> gray = GrayScale(GrayLevels(256), step=1 / 255)  # a file of images from 0 to 1
        >>> EventFormat("images", (1, 2), gray=gray).levels(np.array([[[0.0, 1.0]]]), source="x").tolist()
        [[[0, 255]]]
    """

    scaling: GrayLevels
    lowest: float = 0.0
    step: float = 1.0


@renamed_attributes(grey="gray")
@renamed_arguments(grey="gray")
@registered
@dataclass(frozen=True)
class EventFormat:
    """The shape of one event in the array of a file, and of the tensor that a flow takes for it.

    Args:
        kind: The kind of events. A flow takes "vectors" and "sets" as vectors, one row after the other, "angles" as
            vectors of angles in radians, which are points of a torus, "particles" as tensors (n, d) with the position
            of a particle in each row, and "images" as tensors (C, H, W).
        shape: The shape of one event in the file.
        dtype: The dtype of the file, as NumPy names it.
        channels_last: Whether an image in the file has the shape (H, W, C).
        gray: How the file writes the gray levels of images; None for continuous values, which are taken as they are.
        center: For particles, "mean-free" where each configuration is shifted to the center of mass 0, which the flow
            has no density of, or "free" where configurations are taken as they are.

    Example:
        >>> form = EventFormat("sets", (5, 3))
        >>> form.event_shape
        (15,)
        >>> form.to_events(np.zeros((2, 5, 3)), source="x").shape
        torch.Size([2, 15])
    """

    kind: EventKind
    shape: tuple[int, ...]
    dtype: str = "float32"
    channels_last: bool = False
    gray: GrayScale | None = None
    center: str = "mean-free"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # a list where it was read from JSON

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of an event that a flow takes."""
        if self.kind == "particles":
            return self.shape
        if self.kind != "images":
            return (int(np.prod(self.shape)),)
        if len(self.shape) == 2:
            return (1, *self.shape)
        return (self.shape[2], *self.shape[:2]) if self.channels_last else self.shape

    @property
    def space(self) -> Space:
        """Where the events lie: a torus for angles, MeanFree for particles without a center, R^n for all others."""
        if self.kind == "particles" and self.center == "mean-free":
            return MeanFree(*self.shape)
        return Torus(self.event_shape) if self.kind == "angles" else Euclidean(self.event_shape)

    def to_events(self, array: np.ndarray, *, source: str, generator: torch.Generator | None = None) -> Tensor:
        """Return the events of an array, shape ``(rows,) + event_shape``, in the default dtype.

        Args:
            array: Events of this format, one a row.
            source: How the error messages call the array.
            generator: The generator of the dequantization noise of gray levels.

        Raises:
            ValueError: If the events have another shape, if a row holds NaN, inf or a value that is too large for the
                default dtype, or if values are no gray levels where these are expected.
            TypeError: If the array holds integers where a density needs continuous values.
        """
        array = self._shaped(array, source)
        if self.gray is None:
            x = self._arrange(check_data(_floating(array, source), source=source))
            return self.space.project(in_dtype(x, torch.get_default_dtype(), source=source))
        levels = self.levels(array, source=source)
        return self.gray.scaling.dequantize(self._arrange(levels), generator)

    def levels(self, array: np.ndarray, *, source: str) -> Tensor:
        """Return the gray levels 0 .. n-1 of an array of images, as an int64 tensor of the same shape.

        Args:
            array: Images of this format, one a row.
            source: How the error messages call the array.

        Raises:
            ValueError: If a value is not one of the gray levels of the file; the message names its row.
        """
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
        """Return events as a file of this format holds them, in the shape and the dtype of the file.

        Args:
            events: Events that a flow takes or draws, shape ``(rows,) + event_shape``.
        """
        if self.gray is not None:
            levels = self.gray.scaling.quantize(events)
            events = self.gray.lowest + self.gray.step * levels.double()
        if self.kind == "images" and len(self.shape) == 3 and self.channels_last:
            events = events.movedim(-3, -1)
        array = events.reshape(len(events), *self.shape).cpu().numpy()
        return array.astype(self.dtype)

    def describe(self) -> str:
        """Return the format in words.

        Example:
            >>> EventFormat("images", (28, 28)).describe()
            'images of 28 x 28 pixels with 1 channel of continuous values'
        """
        if self.kind == "vectors":
            count = self.event_shape[0]
            flattened = "" if len(self.shape) == 1 else f" (each {self.shape[0]} x {self.shape[1]})"
            return f"vectors of {count} coordinate{'s' * (count != 1)}{flattened}"
        if self.kind == "angles":
            return f"vectors of {self.event_shape[0]} angle{'s' * (self.event_shape[0] != 1)} in radians"
        if self.kind == "sets":
            features = self.shape[1]
            return f"sets of {self.shape[0]} rows with {features} feature{'s' * (features != 1)}"
        if self.kind == "particles":
            center = ", shifted to the center of mass 0" if self.center == "mean-free" else ""
            return f"configurations of {self.shape[0]} particles in R^{self.shape[1]}{center}"
        channels, height, width = self.event_shape
        values = "continuous values" if self.gray is None else f"{self.gray.scaling.levels} gray levels"
        return f"images of {height} x {width} pixels with {channels} channel{'s' * (channels > 1)} of {values}"

    def _shaped(self, array: np.ndarray, source: str) -> np.ndarray:
        """Return the array in the shape of this format; it may lack a channel axis of length 1, or be flattened."""
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
            f"{source}: expected floating-point values, got {array.dtype}; a density needs continuous values. Save "
            "measurements as floats; add uniform noise from [0, 1) to counts; save images with their height and width, "
            "as (N, H, W) or (N, C, H, W), so that they are read as gray levels"
        )
    # torch has no long double
    return array.astype(np.float64) if array.dtype.itemsize > 8 else array
