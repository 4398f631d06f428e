"""Real handwritten digits (scikit-learn's bundled 8 x 8 set, 17 gray levels), each turned by a random quarter-turn."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.datasets.splits import Splits, stratified_rows

__all__ = ["DIGITS_SCALING", "digits"]

#: The grey levels of the digits; center and gain are the rounded mean and inverse standard deviation of the set, so
#: that a standard normal base starts near the data.
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


def quarter_turns(x: Tensor, turns: Tensor) -> Tensor:
    """Turn image i of x (..., n, n) by turns[i] quarter-turns counter-clockwise; ``turns`` has the batch shape (B,)."""
    turned = torch.stack([torch.rot90(x, k, dims=(-2, -1)) for k in range(4)])
    return turned[turns, torch.arange(len(x), device=x.device)]


def digits(*, seed: int = 0) -> Splits:
    """The 1,797 digits as dequantized, centered and scaled images of shape (1, 8, 8), in the default dtype.

    The split is fixed and stratified by digit (70 % train, 10 % validation, 20 % test); it does not depend on ``seed``.
    The seed draws each image's quarter-turn and its dequantization noise; the same seed gives the same tensors.
    Convert a held-out NLL with ``DIGITS_SCALING.bits_per_dim(nll, pixels=64)``.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    images, labels = _images_and_labels()
    generator = torch.Generator().manual_seed(seed)
    turns = torch.randint(4, (len(images),), generator=generator)
    y = DIGITS_SCALING.dequantize(quarter_turns(images.unsqueeze(1), turns), generator)
    train, validation, test = stratified_rows(labels, parts=(0.7, 0.1, 0.2))
    return Splits(train=y[train], validation=y[validation], test=y[test])
