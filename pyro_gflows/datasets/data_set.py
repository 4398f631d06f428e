"""A data set as a command names it: a known density, the digits, or the user's own file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_gflows.datasets.event_formats import EventFormat
from pyro_gflows.datasets.files import FILE_ENDINGS, is_file_name, read_array
from pyro_gflows.datasets.images import IMAGE_SETS
from pyro_gflows.datasets.optical_digits import DIGITS_SCALING, digits
from pyro_gflows.datasets.recognize import FileOptions, event_format, repeats
from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.datasets.splits import Splits, random_splits
from pyro_gflows.targets.planar import DENSITIES, Density, density

__all__ = ["DataSet", "load_data"]

_TEST_POINTS = 200_000
# Training draws from the plain seed; torch's CPU generator looks only at the low 32 bits, so the offset is in them.
_TEST_STREAM = 1_000_000_007


@dataclass(frozen=True)
class DataSet:
    """Events to train on and disjoint events to report on.

    Attributes:
        name: As the user wrote it.
        train: Rows of events, or a sampler that draws fresh ones.
        validation: Held-out rows for early stopping, or None where fresh draws make it needless.
        test: Held-out rows for the reported figures.
        symmetry: The group that the data are known to have, or None.
        target: The exact density, where there is one.
        scaling: How gray levels became real numbers, for images.
        augment: Fresh dequantization noise, for images of gray levels.
        format: How the events lie in the file that they come from, for a file.
    """

    name: str
    train: Tensor | Density
    validation: Tensor | None
    test: Tensor
    symmetry: str | None = None
    target: Density | None = None
    scaling: GrayLevels | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    format: EventFormat | None = None

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one event."""
        return self.test.shape[1:]


def load_data(
    name: str, *, seed: int = 0, folder: str | Path | None = None, file: FileOptions | None = None
) -> DataSet:
    """Find a data set by name, or read it from a file.

    Args:
        name: ``8gaussians``, ``rings``, ``checkerboard``, ``digits``, ``mnist``, ``rotated-mnist`` (any angle),
            ``cifar10``, ``cifar10-rot`` (quarter-turns), or the path of a ``.npy``, ``.npz`` or ``.csv`` file with one
            event a row (split 80/10/10 at random): vectors, sets of rows, or images of continuous numbers or of gray
            levels, as :func:`~pyro_gflows.datasets.event_format` tells them apart.
        seed: Of the test points of a density, the turns and noise of images, or the split of a file.
        folder: Where the files of MNIST and CIFAR-10 lie; by default the folder that the environment variable
            ``PYRO_GFLOWS_DATA`` names, else scikit-learn's cache, into which they are downloaded.
        file: What is known about a file beside its name.

    Raises:
        ValueError, TypeError: An unknown name, or a file that cannot be used; the message says why.
        ImportError: ``digits``, or a download, without scikit-learn.
        RuntimeError: A download failed; the message says which file to put where.

    Warns:
        UserWarning: A file of continuous events that holds the same few numbers again and again.

    Example:
        >>> load_data("rings").test.shape
        torch.Size([200000, 2])
    """
    if name in DENSITIES:
        target = density(name)
        test = target.sample(_TEST_POINTS, torch.Generator().manual_seed(seed + _TEST_STREAM))
        return DataSet(name, target, None, test, symmetry=target.symmetry, target=target)
    if name == "digits":
        return _images(name, digits(seed=seed), "C4", DIGITS_SCALING)
    if name in IMAGE_SETS:
        chosen = IMAGE_SETS[name]
        return _images(name, chosen.load(seed=seed, folder=folder), chosen.symmetry, chosen.scaling)
    if is_file_name(name):
        return _from_file(name, file or FileOptions(), seed=seed)
    raise ValueError(
        f"unknown data {name!r}: expected one of {[*sorted(DENSITIES), 'digits', *IMAGE_SETS]}, or the path of a "
        f"{', '.join(FILE_ENDINGS)} file with one event a row"
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


def _from_file(name: str, options: FileOptions, *, seed: int) -> DataSet:
    array = read_array(name, key=options.key)
    form = event_format(array, options, source=name)
    x = form.to_events(array, source=name, generator=torch.Generator().manual_seed(seed))
    if form.gray is None and repeats(array):
        warnings.warn(
            f"{name}: the same few numbers come again and again: a density of them has no largest value, "
            "and a fit of it does not end. Save images as whole gray levels; add uniform noise from [0, 1) to counts",
            stacklevel=3,
        )
    parts = random_splits(x, seed=seed)
    scaling = None if form.gray is None else form.gray.scaling
    return DataSet(
        name,
        parts.train,
        parts.validation,
        parts.test,
        scaling=scaling,
        augment=None if scaling is None else scaling.redequantize,
        format=form,
    )
