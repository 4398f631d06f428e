"""Data sets by name: a known density, a set of images, or the user's own file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.clusters import particle_draws
from pyro_gflows.datasets.event_formats import EventFormat
from pyro_gflows.datasets.file_rows import FileRows
from pyro_gflows.datasets.files import FILE_ENDINGS, is_file_name, read_array
from pyro_gflows.datasets.images import IMAGE_SETS
from pyro_gflows.datasets.large_files import is_path, opened_rows
from pyro_gflows.datasets.opening import TABLES
from pyro_gflows.datasets.optical_digits import DIGITS_SCALING, digits
from pyro_gflows.datasets.recognize import FileOptions, event_format, repeats
from pyro_gflows.datasets.samples import sampled_rows, spread
from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.datasets.split_store import SplitStore
from pyro_gflows.datasets.splits import Splits, random_splits
from pyro_gflows.numerics.random_state import seed_of_rank
from pyro_gflows.spaces import Euclidean, Space
from pyro_gflows.targets import DENSITIES, Density, ParticleTarget, density

__all__ = ["DataSet", "is_named", "load_data"]

_VALIDATION_ROWS, _TEST_ROWS = 20_000, 200_000  # of a large file, at most
_MOST_ENTRIES = 2**24  # of the validation or the test part of a large file
# Training draws from the plain seed; torch's CPU generator uses only the low 32 bits, so the offset is in them.
_TEST_STREAM = 1_000_000_007


@dataclass(frozen=True)
class DataSet:
    """Events to train on, with separate events for validation and for the reported figures.

    Attributes:
        name: The name or the path of the data, as the user wrote it.
        train: Training events, shape (rows,) + event_shape, a density that draws fresh ones at every step, or rows of a
            file that is larger than the memory.
        validation: Events for early stopping, or None where training draws fresh events and needs no validation.
        test: Events for the reported figures.
        symmetry: The name of the group under which the data are known to be invariant, or None.
        target: The exact density, where it is known.
        scaling: For images, the map from gray levels to real values.
        augment: For images of gray levels, the function that draws fresh dequantization noise.
        format: For a file, how the events lie in it.

    Example:
        >>> data = load_data("8gaussians")
        >>> data.symmetry, data.event_shape, data.validation is None
        ('D8', torch.Size([2]), True)
    """

    name: str
    train: Tensor | Density | FileRows
    validation: Tensor | None
    test: Tensor
    symmetry: str | None = None
    target: Density | None = None
    scaling: GrayLevels | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    format: EventFormat | None = None

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one event."""
        return self.test.shape[1:]

    @property
    def space(self) -> Space:
        """Where the events lie: a torus for angles, the configurations of particles, R^n for all other data."""
        known = self.target or self.format
        return Euclidean(self.event_shape) if known is None else known.space

    def __repr__(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = [
            f"{name}: {f'{len(part)} events' if isinstance(part, Tensor | FileRows) else part}"
            for name, part in parts.items()
        ]
        return f"DataSet({self.name!r}, events of shape {tuple(self.event_shape)}, {', '.join(sizes)})"


def is_named(name: str) -> bool:
    """Return whether a name is one of the known data sets, and not the path of a file.

    Args:
        name: The name of a data set, or a path.

    Example:
        >>> is_named("rings"), is_named("rings.npy")
        (True, False)
    """
    return name in DENSITIES or name == "digits" or name in IMAGE_SETS


def load_data(
    name: str,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
    file: FileOptions | None = None,
    progress: bool = True,
) -> DataSet:
    """Load a data set by its name, or read it from a file.

    The names are ``8gaussians``, ``rings`` and ``checkerboard`` on the plane, ``torus-unimodal``, ``torus-multimodal``,
    ``torus-correlated`` and ``torus-square`` on the torus of two angles, ``dw4`` and ``lj13`` of particles (whose
    events are drawn in a minute and in many minutes, and kept in the folder if one is named), and
    ``digits``, ``mnist``, ``rotated-mnist`` (each image rotated by any angle), ``cifar10`` and ``cifar10-rot`` (each
    image rotated by a multiple of 90 degrees).

    A file is a ``.npy``, ``.npz`` or ``.csv`` file with one event a row; it is split at random, 80 % to train, 10 % for
    validation and 10 % to test. :func:`~pyro_gflows.datasets.event_format` decides whether its events are vectors, sets
    of rows, or images; that they are angles, ``file`` has to say.

    A folder of ``.npy`` files, a Parquet or Arrow file, a Zarr array and a ``.npy`` file with more than 67 million
    entries (256 MB in float32) are not read at once. Their kind is recognized from a sample. They are cut into
    stretches, of each of which the first 80 % are to train, the next 10 % for validation and the last 10 % to test;
    up to 20,000 and 200,000 evenly spaced rows of the latter two are read. Rows that depend on their neighbors, such as
    the frames of a movie, are to be shuffled before.

    Args:
        name: One of the names above, or the path of a file.
        seed: The seed of the test points of a density, of the rotations and the noise of images, or of the split of a
            file.
        folder: The folder with the files of MNIST and CIFAR-10; by default the folder that the environment variable
            ``PYRO_GFLOWS_DATA`` names, else scikit-learn's cache, into which they are downloaded. Draws of particles
            are kept in the named folder too.
        file: What is known about a file in addition to its name.
        progress: Whether to show progress bars while particles are drawn.

    Raises:
        ValueError: If the name is unknown, or the file cannot be used; the message says why.
        TypeError: If the file holds something else than real values, or integers where a density needs continuous
            values.
        ImportError: If ``digits`` or a download needs scikit-learn, and it is not installed.
        RuntimeError: If a download failed; the message says which file to put where.

    Warns:
        UserWarning: If a file of continuous events holds the same few values again and again.

    Example:
        >>> load_data("rings").test.shape
        torch.Size([200000, 2])
    """
    if name in DENSITIES:
        target = density(name)
        if isinstance(target, ParticleTarget):
            parts = particle_draws(target, seed=seed + _TEST_STREAM, folder=folder, progress=progress)
            return DataSet(name, parts.train, parts.validation, parts.test, symmetry=target.symmetry, target=target)
        test = target.sample(target.test_points, torch.Generator().manual_seed(seed + _TEST_STREAM))
        return DataSet(name, target, None, test, symmetry=target.symmetry, target=target)
    if name == "digits":
        return _images(name, digits(seed=seed), "C4", DIGITS_SCALING)
    if name in IMAGE_SETS:
        chosen = IMAGE_SETS[name]
        return _images(name, chosen.load(seed=seed, folder=folder), chosen.symmetry, chosen.scaling)
    options = file or FileOptions()
    if is_path(name) and (rows := opened_rows(name, key=options.key)) is not None:
        return _from_large_file(name, rows, options, seed=seed)
    if is_file_name(name):
        return _from_file(name, options, seed=seed)
    raise ValueError(
        f"unknown data {name!r}: expected one of {[*sorted(DENSITIES), 'digits', *IMAGE_SETS]}, or the path of a "
        f"{', '.join(FILE_ENDINGS)} or {', '.join(TABLES)} file, or of a folder, with one event a row"
    )


def _images(name: str, parts: Splits, symmetry: str | None, scaling: GrayLevels) -> DataSet:
    return DataSet(
        name,
        parts.train,
        parts.validation,
        parts.test,
        symmetry=symmetry,
        scaling=scaling,
        augment=scaling.redequantize,
    )


def _from_large_file(name: str, rows: FileRows, options: FileOptions, *, seed: int) -> DataSet:
    some = rows.take(sampled_rows(rows)).numpy()
    form = event_format(some, options, source=name)
    form.to_events(some, source=f"{name}, a sample", generator=torch.Generator().manual_seed(seed))  # to check it
    _warn_of_repeats(name, some, form)
    train, validation, test = (SplitStore(rows.store, part, form=form, seed=seed) for part in range(3))
    if min(sum(part.lengths) for part in (train, validation, test)) == 0:
        raise ValueError(f"{name}: expected at least 10 rows in a file to split it, got {len(rows)} in all")
    read = [_some(rows, part, most) for part, most in ((validation, _VALIDATION_ROWS), (test, _TEST_ROWS))]
    return _file_data(name, FileRows(train), *read, form=form)


def _some(rows: FileRows, part: SplitStore, most: int) -> Tensor:
    """Return the events of evenly spaced rows of a part."""
    count = max(1000, min(most, _MOST_ENTRIES // max(1, math.prod(rows.event_shape))))
    # by their numbers in the whole file, of which no page stays in memory
    array = rows.take(part.numbers(spread(FileRows(part), count))).numpy()
    generator = torch.Generator().manual_seed(seed_of_rank(part.seed, part.part))
    return part.form.to_events(array, source=f"{part.path}, a sample", generator=generator)


def _from_file(name: str, options: FileOptions, *, seed: int) -> DataSet:
    array = read_array(name, key=options.key)
    form = event_format(array, options, source=name)
    x = form.to_events(array, source=name, generator=torch.Generator().manual_seed(seed))
    _warn_of_repeats(name, array, form)
    parts = random_splits(x, seed=seed)
    return _file_data(name, parts.train, parts.validation, parts.test, form=form)


def _warn_of_repeats(name: str, array: np.ndarray, form: EventFormat) -> None:
    if form.gray is None and repeats(array):
        warnings.warn(
            f"{name}: the same few values come again and again, so that the likelihood has no bound and a fit never "
            "ends. Save images as whole gray levels; add uniform noise from [0, 1) to counts",
            stacklevel=4,
        )


def _file_data(name: str, train: Tensor | FileRows, validation: Tensor, test: Tensor, *, form: EventFormat) -> DataSet:
    scaling = None if form.gray is None else form.gray.scaling
    augment = None if scaling is None else scaling.redequantize
    return DataSet(name, train, validation, test, scaling=scaling, augment=augment, format=form)
