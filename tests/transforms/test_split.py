"""GSplit: an inner flow on one part, the other part given it."""

import pytest
import torch

from pyro_gflows import Compose, CoordinateSplit, GActNorm, GSplit, ImageAction, VectorAction, g_coupling
from pyro_gflows.actions import ChannelSplit, checkerboard_split
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import IrrepScale, MatrixScale

PAIR = VectorAction.regular("C4", copies=2)
IMAGE = ImageAction("D4", 1, size=4)


def vectors(**options):
    split = CoordinateSplit(VectorAction.regular("C4", copies=4))
    first = split.parts[0]
    return GSplit(split.action, Compose([GActNorm(first), g_coupling(first)]), split=split, width=2, **options)


def images():
    split = ChannelSplit(ImageAction("D4", 2, size=3))
    return GSplit(split.action, GActNorm(split.parts[0]), split=split, width=2)


def matrices():
    split = CoordinateSplit(VectorAction.space("SO(3)", copies=2))
    return GSplit(split.action, GActNorm(split.parts[0]), split=split, transformer=MatrixScale, width=2)


@pytest.mark.parametrize("make", [vectors, images, matrices])
def test_is_an_equivariant_bijection_with_its_log_det(make):
    torch.manual_seed(1)
    layer = randomize_(make().double())
    assert_layer(layer, torch.randn(4, *layer.action_in.event_shape, dtype=torch.float64), tol=1e-10)


def test_the_first_part_is_the_inner_flows():
    layer = randomize_(vectors().double())
    x = torch.randn(3, 16, dtype=torch.float64)
    first = layer.split.split(layer(x))[0]
    torch.testing.assert_close(first, layer.inner(layer.split.split(x)[0]))


def test_initializes_the_inner_flow():
    layer = vectors().double()
    y = 5 + 3 * torch.randn(256, 16, dtype=torch.float64)
    x = layer.initialize_inverse(y)
    first = layer.split.split(x)[0]
    assert abs(first.mean()) < 0.3
    assert abs(first.std() - 1) < 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GSplit(PAIR, GActNorm(VectorAction.plane("C4")), split=CoordinateSplit(PAIR)),
            "expected an inner transform of .*regular.* got .*defining",
        ),
        (
            lambda: GSplit(IMAGE, GActNorm(IMAGE), split=checkerboard_split(IMAGE)),
            "slices of the event.* a mask leaves no smaller event",
        ),
        (
            lambda: vectors(transformer=lambda part: IrrepScale(VectorAction.plane("C4"))),
            "expected a transformer of .*regular",
        ),
    ],
)
def test_bad_splits_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
