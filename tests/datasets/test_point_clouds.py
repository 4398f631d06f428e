"""Point clouds have the density of the image: pixels by intensity, uniform places within each."""

import math

import pytest
import torch

from pyro_gflows.datasets import point_clouds


def _image() -> torch.Tensor:
    return torch.rand(3, 5, generator=torch.Generator().manual_seed(3)) * (torch.arange(15).view(3, 5) % 4 > 0)


def test_pixels_are_drawn_by_intensity() -> None:
    image, draws = _image(), 40_000
    cloud = point_clouds(image[None], points=draws, seed=1)[0]
    columns, rows = cloud.floor().long().unbind(-1)
    counts = torch.bincount(5 * rows + columns, minlength=15).double()
    expected = draws * (image / image.sum()).flatten().double()
    dark = expected == 0
    assert not counts[dark].any()
    chi2 = ((counts - expected)[~dark].square() / expected[~dark]).sum()
    assert chi2 < 30  # 11 degrees of freedom: exceeded once in 600 seeds


def test_places_within_a_pixel_are_uniform_and_independent() -> None:
    noise = point_clouds(_image()[None], points=40_000, seed=2)[0].double() % 1
    for values in (*noise.unbind(-1), (noise.sum(-1)) % 1):  # the sum is uniform as well if the two are independent
        ordered = values.sort().values
        steps = torch.arange(1, len(ordered) + 1) / len(ordered)
        assert (ordered - steps).abs().max() < 1.95 / math.sqrt(len(ordered))  # Kolmogorov and Smirnov, level 0.001


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_all_kinds_of_intensities_give_the_same_sets(dtype: torch.dtype) -> None:
    images = torch.randint(0, 200, (4, 6, 7), generator=torch.Generator().manual_seed(0))
    clouds = point_clouds(images.to(dtype), points=9, seed=5)
    assert clouds.shape == (4, 9, 2)
    assert torch.equal(clouds, point_clouds(images[:, None], points=9, seed=5))
    assert torch.equal(clouds, point_clouds(images, points=9, seed=torch.Generator().manual_seed(5)))
    assert not torch.equal(clouds, point_clouds(images, points=9, seed=6))


def test_points_stay_inside_their_pixel_after_rounding() -> None:
    images = torch.zeros(1, 2, 30)
    images[0, 1, 29] = 1.0
    points = point_clouds(images, points=300_000)[0]  # 30 - 2^-24 rounds to 30 in single precision
    assert points[:, 0].min() >= 29 and points[:, 0].max() < 30
    assert points[:, 1].min() >= 1 and points[:, 1].max() < 2


@pytest.mark.parametrize(
    ("images", "points", "message"),
    [
        (torch.ones(4, 4), 5, "shape"),
        (torch.ones(2, 3, 4, 4), 5, "shape"),
        (torch.ones(0, 4, 4), 5, "shape"),
        (torch.ones(2, 4, 4), 0, "points >= 1"),
        (-torch.ones(2, 4, 4), 5, "negative"),
        (torch.full((2, 4, 4), math.nan), 5, "finite"),
        (torch.stack([torch.ones(4, 4), torch.zeros(4, 4)]), 5, "index 1"),
    ],
)
def test_bad_images_are_refused(images: torch.Tensor, points: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        point_clouds(images, points=points)
