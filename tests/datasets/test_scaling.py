"""Gray levels refuse what they cannot scale."""

import pytest
import torch

from pyro_gflows.datasets import GrayLevels


@pytest.mark.parametrize("levels", ["17", 17.0, True, None])
def test_the_number_of_levels_is_an_integer(levels):
    with pytest.raises(TypeError, match=r"expected the number of gray levels, such as GrayLevels\(256\), got"):
        GrayLevels(levels)


def test_there_is_at_least_one_level():
    with pytest.raises(ValueError, match="at least 1 gray level, got 0"):
        GrayLevels(0)


@pytest.mark.parametrize("image", [torch.tensor([0, 17]), torch.tensor([-1.0, 3.0]), torch.tensor([float("nan")])])
def test_levels_outside_the_range_are_refused(image):
    with pytest.raises(ValueError, match="between 0 and 16, got values between .*GrayLevels"):
        GrayLevels(17).dequantize(image)


def test_all_levels_of_a_byte_are_accepted():
    levels = torch.arange(256, dtype=torch.uint8)
    assert GrayLevels(256).quantize(GrayLevels(256).dequantize(levels)).tolist() == levels.tolist()
