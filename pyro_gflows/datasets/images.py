"""MNIST and CIFAR-10, as published or with rotated images: named sets of dequantized images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from pyro_gflows.actions import ImageAction
from pyro_gflows.datasets.image_sets import RawImages, image_set
from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.datasets.splits import Splits, stratified_rows
from pyro_gflows.deprecation import renamed_arguments, renamed_attributes

__all__ = ["IMAGE_SETS", "ImageSet", "rotate_images"]

# The protocol of Rotation MNIST: of 62,000 images 10,000 to train, 2,000 to validate, 50,000 to test.
_ROTATED_SIZES = (10_000, 2_000, 50_000)
_VALIDATION_SHARE = 0.1


@renamed_attributes(turned="rotated")
@renamed_arguments(turned="rotated")
@dataclass(frozen=True)
class ImageSet:
    """A set of images with a known symmetry: where its images come from, and how they are transformed.

    Args:
        source: The published set, "mnist" or "cifar10".
        scaling: The map from bytes to real values.
        symmetry: The name of the group under which the distribution of the images is invariant, or None.
        rotated: How each image is rotated: "no" leaves it as it is, "any angle" rotates it about its center with
            bilinear interpolation, and "group" applies a random element of ``symmetry``.

    Example:
        >>> IMAGE_SETS["rotated-mnist"].symmetry
        'C4'
    """

    source: str
    scaling: GrayLevels
    symmetry: str | None = None
    rotated: str = "no"

    def load(self, *, seed: int = 0, folder: str | Path | None = None) -> Splits:
        """Load the images, rotate and dequantize them, and split them into three parts, in the default dtype.

        The published test images are the test part. A tenth of the published training images, with the same share of
        every label, is the validation part. Only the full MNIST with "any angle" has another split, which has the sizes
        of Rotation MNIST.

        Args:
            seed: The seed of the rotations and of the noise; the split does not depend on it. The same seed gives the
                same images.
            folder: The folder with the files, as for :func:`image_set`.

        Raises:
            ValueError: As :func:`image_set` does.
            ImportError: As :func:`image_set` does.
            RuntimeError: As :func:`image_set` does.
        """
        generator = torch.Generator().manual_seed(seed)
        parts = self._split(image_set(self.source, folder=folder))
        return Splits(*[self.scaling.dequantize(self._rotate(part, generator), generator) for part in parts])

    def _split(self, raw: RawImages) -> list[Tensor]:
        total = len(raw.train) + len(raw.test)
        if self.rotated == "any angle" and total >= sum(_ROTATED_SIZES):
            images, labels = torch.cat([raw.train, raw.test]), torch.cat([raw.train_labels, raw.test_labels])
            shares = [size / total for size in _ROTATED_SIZES]
            dealt = stratified_rows(labels, parts=[*shares, 1 - sum(shares)])
            return [images[rows] for rows in dealt[:3]]
        train, validation = stratified_rows(raw.train_labels, parts=(1 - _VALIDATION_SHARE, _VALIDATION_SHARE))
        return [raw.train[train], raw.train[validation], raw.test]

    def _rotate(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.rotated == "any angle":
            angles = 2 * math.pi * torch.rand(len(images), generator=generator)
            return rotate_images(images.float(), angles).round()
        if self.rotated == "group" and self.symmetry is not None:
            action = ImageAction(self.symmetry, images.shape[1], size=tuple(images.shape[-2:]))
            return action.act_each(action.sample((len(images),), generator), images.float())
        return images


def rotate_images(images: Tensor, angles: Tensor) -> Tensor:
    """Rotate each image counter-clockwise about its center by an angle of its own.

    Values between pixels are interpolated bilinearly, and values from outside of the image are 0. Rotations by
    multiples of 90 degrees are exact to rounding.

    Args:
        images: Shape (n, C, H, W).
        angles: One angle an image in radians, shape (n,).

    Example:
        >>> corner = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> rotate_images(corner, torch.tensor([math.pi / 2])).round().tolist()
        [[[[0.0, 0.0], [1.0, 0.0]]]]
    """
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # the matrices map each pixel to the place that its value comes from, with x to the right and y down
    matrices = torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], 1).to(images)
    rotated = []
    for part, matrix in zip(images.split(1024), matrices.split(1024), strict=True):
        grid = functional.affine_grid(matrix, list(part.shape), align_corners=False)
        rotated.append(functional.grid_sample(part, grid, padding_mode="zeros", align_corners=False))
    return torch.cat(rotated)


_MNIST = GrayLevels(levels=256, center=0.13, gain=3.2)
_CIFAR = GrayLevels(levels=256, center=0.47, gain=4.0)

#: The sets of images that :func:`load_data` loads, by name.
IMAGE_SETS: dict[str, ImageSet] = {
    "mnist": ImageSet("mnist", _MNIST),
    "rotated-mnist": ImageSet("mnist", _MNIST, symmetry="C4", rotated="any angle"),
    "cifar10": ImageSet("cifar10", _CIFAR),
    "cifar10-rot": ImageSet("cifar10", _CIFAR, symmetry="C4", rotated="group"),
}
