"""Training, validation and test parts of files that are too large to be read at once."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.event_formats import EventFormat
from pyro_gflows.datasets.file_rows import Store
from pyro_gflows.numerics.random_state import seed_of_rank

__all__ = ["SplitStore"]

_ENDS = (0, 8, 9, 10)  # tenths of a stretch: to train, for validation, to test
_MAPPED_STRETCHES = 128  # a process may have a few hundred files open
_DECODED_ENTRIES = 2**20


class SplitStore:
    """One of the three parts of stored events: those to train, for validation, or to test.

    The rows of every file are cut into stretches. Of each stretch the first 80 % are to train, the next 10 % for
    validation and the last 10 % to test, so that all three come from everywhere in the data, and no row has to be read
    to know where it belongs.

    Args:
        store: Where all events lie.
        part: 0 for training, 1 for validation, 2 for the test.
        form: How the events lie in an array of the store.
        seed: The seed of the dequantization noise of gray levels, which has nothing in common for two stretches.
    """

    def __init__(self, store: Store, part: int, *, form: EventFormat, seed: int = 0) -> None:
        self.store = store
        self.part = part
        self.form = form
        self.seed = seed
        self.path = store.path
        self.kind = f"{('training', 'validation', 'test')[part]} part, {store.kind}"
        self.event_shape = form.event_shape
        self.is_mapped = store.is_mapped and form.gray is None
        self.dtype = store.dtype if form.gray is None else np.dtype(str(torch.get_default_dtype()).split(".")[1])
        self._stretches = self._cut()
        self.lengths = tuple(stop - start for _, start, stop in self._stretches)

    def read(self, part: int) -> np.ndarray:
        """Return the events of this part in one of the stretches, mapped or decoded.

        Args:
            part: The number of the stretch.
        """
        file, start, stop = self._stretches[part]
        array = self.store.read(file)[start:stop]
        form = self.form
        if form.gray is not None:
            generator = torch.Generator().manual_seed(seed_of_rank(self.seed, self.part, part))
            return form.to_events(np.array(array), source=str(self.path), generator=generator).numpy()
        if form.channels_last:
            array = np.moveaxis(array, -1, 1)
        return array.reshape(len(array), *form.event_shape)

    def numbers(self, rows: Tensor) -> Tensor:
        """Return the numbers that rows of this part have in the whole store.

        Args:
            rows: The numbers of the rows in this part.
        """
        files, starts, _ = np.array(self._stretches).T
        ends, lengths = np.cumsum(self.lengths), np.array(self.lengths)
        stretches = np.searchsorted(ends, rows.numpy(), side="right")
        before = np.cumsum(self.store.lengths) - np.array(self.store.lengths)
        shifts = before[files] + starts - (ends - lengths)
        return rows + torch.from_numpy(shifts[stretches])

    def _cut(self) -> list[tuple[int, int, int]]:
        """The file, the first row and the row after the last one, of every stretch."""
        lengths = self.store.lengths
        if not self.store.is_mapped:
            count = [1] * len(lengths)  # what is decoded as a whole is not cut further
        elif self.is_mapped:
            count = [max(1, min(rows // 1000, _MAPPED_STRETCHES // len(lengths))) for rows in lengths]
        else:
            rows_of_one = max(10, _DECODED_ENTRIES // math.prod(self.event_shape))
            count = [max(1, rows // rows_of_one) for rows in lengths]
        return [
            (file, *self._within(rows * k // stretches, rows * (k + 1) // stretches))
            for file, (rows, stretches) in enumerate(zip(lengths, count, strict=True))
            for k in range(stretches)
        ]

    def _within(self, start: int, stop: int) -> tuple[int, int]:
        first, last = _ENDS[self.part], _ENDS[self.part + 1]
        return start + (stop - start) * first // 10, start + (stop - start) * last // 10
