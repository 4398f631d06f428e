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


def test_noise_from_a_generator_on_another_device(device):
    """The batches of a fit on a GPU come with a generator on the CPU."""
    image = torch.randint(16, (5, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    scaling = GrayLevels(16)
    there = scaling.dequantize(image.to(device), torch.Generator().manual_seed(1))
    assert there.device == device or there.device.type == device.type
    torch.testing.assert_close(there.cpu(), scaling.dequantize(image, torch.Generator().manual_seed(1)), rtol=0, atol=0)
    again = scaling.redequantize(there, torch.Generator().manual_seed(2))
    assert torch.equal(scaling.quantize(again).cpu(), image)
