"""Handwritten digits (scikit-learn's 8 x 8 set, 17 gray levels), each rotated by a random multiple of 90 degrees."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.datasets.splits import Splits, stratified_rows

__all__ = ["DIGITS_SCALING", "digits"]

#: The map from the 17 gray levels of the digits to real values, and back. The center and the gain are the rounded mean
#: and inverse standard deviation of the set, so that a standard normal base starts near the data.
DIGITS_SCALING = GrayLevels(levels=17, center=0.32, gain=2.8)


def _images_and_labels() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits  # an optional dependency: the extra "data"
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed: pip install 'pyro-gflows[data]'"
        ) from error
    bunch = load_digits()
    return torch.from_numpy(bunch.images).long(), torch.from_numpy(bunch.target).long()


def rotate_by_90(x: Tensor, times: Tensor) -> Tensor:
    """Rotate image i of x, shape (B, ..., n, n), counter-clockwise by 90 degrees ``times[i]`` times, 0 to 3."""
    rotated = torch.stack([torch.rot90(x, k, dims=(-2, -1)) for k in range(4)])
    return rotated[times, torch.arange(len(x), device=x.device)]


def digits(*, seed: int = 0) -> Splits:
    """Return the 1,797 digits as dequantized, centered and scaled images of shape (1, 8, 8), in the default dtype.

    Each image is rotated by a random multiple of 90 degrees, so that the distribution is invariant under C4. The split
    is fixed and has the same share of every digit in each part (70 % train, 10 % validation, 20 % test).
    ``DIGITS_SCALING.bits_per_dim(nll, pixels=64)`` converts a mean NLL to bits per dimension.

    Args:
        seed: The seed of the rotations and of the dequantization noise; the split does not depend on it. The same seed
            gives the same tensors.

    Raises:
        ImportError: If scikit-learn is not installed.

    Example:
        >>> digits().test.shape
        torch.Size([359, 1, 8, 8])
    """
    images, labels = _images_and_labels()
    generator = torch.Generator().manual_seed(seed)
    times = torch.randint(4, (len(images),), generator=generator)
    y = DIGITS_SCALING.dequantize(rotate_by_90(images.unsqueeze(1), times), generator)
    train, validation, test = stratified_rows(labels, parts=(0.7, 0.1, 0.2))
    return Splits(train=y[train], validation=y[validation], test=y[test])
