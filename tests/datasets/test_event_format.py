"""Files of events are recognized, read, and written in the same format."""

import numpy as np
import pytest
import torch

from pyro_gflows.datasets import FileOptions, event_format, load_data
from pyro_gflows.serialization import build, describe
from pyro_gflows.spaces import Euclidean, Torus

RANDOM = np.random.default_rng(0)


def read(array, group="C4", **options):
    return event_format(array, FileOptions(group, **options), source="x")


@pytest.mark.parametrize(
    ("shape", "group", "kind", "event_shape"),
    [
        ((9, 4), "C4", "vectors", (4,)),
        ((9, 5, 2), "C4", "vectors", (10,)),
        ((9, 5, 2), "O(2)", "vectors", (10,)),
        ((9, 5, 3), "SO(3)", "vectors", (15,)),
        ((9, 5, 2), "S5", "sets", (10,)),
        ((9, 5, 5), "S5", "sets", (25,)),
        ((9, 5, 2), "C1", "vectors", (10,)),
        ((9, 8, 8), "C4", "images", (1, 8, 8)),
        ((9, 8, 8), "translations", "images", (1, 8, 8)),
        ((9, 8, 6), "C1", "images", (1, 8, 6)),
        ((9, 8, 8, 3), "C4", "images", (3, 8, 8)),
        ((9, 3, 8, 8), "C4", "images", (3, 8, 8)),
        ((9, 3, 3, 3), "C4", "images", (3, 3, 3)),
        ((9, 4, 4, 1), "C4", "images", (1, 4, 4)),
        ((9, 1, 4, 4), "C4", "images", (1, 4, 4)),
        ((9, 12, 8, 3), "D1", "images", (3, 12, 8)),
        ((9, 3, 12, 8), "D1", "images", (3, 12, 8)),
        ((9, 64, 4, 4), "C4", "images", (64, 4, 4)),
    ],
)
def test_kinds_and_channels_follow_from_shape_and_group(shape, group, kind, event_shape):
    form = read(RANDOM.normal(size=shape), group)
    assert (form.kind, form.event_shape) == (kind, event_shape)


def test_angles_are_points_of_a_torus_where_the_user_says_so(tmp_path):
    array = RANDOM.uniform(0, 6.28, size=(50, 2))
    form = build(describe(read(array, kind="angles")))
    assert (form.kind, form.event_shape, form.space) == ("angles", (2,), Torus((2,)))
    assert form.describe() == "vectors of 2 angles in radians" and read(array).space == Euclidean((2,))
    np.save(tmp_path / "own.npy", array)
    assert load_data(str(tmp_path / "own.npy"), file=FileOptions(kind="angles")).space == Torus((2,))
    assert load_data(str(tmp_path / "own.npy")).space == Euclidean((2,))
    with pytest.raises(ValueError, match=r"expected angles as an array \(N, d\), got events of shape \(5, 2\)"):
        read(RANDOM.normal(size=(9, 5, 2)), kind="angles")


@pytest.mark.parametrize("shape", [(9, 5, 2), (9, 8, 8), (9, 8, 6, 3), (9, 3, 8, 8), (9, 4)])
def test_continuous_values_are_read_and_written_as_they_are(shape):
    array = RANDOM.normal(size=shape)
    form = build(describe(read(array, "D1")))
    x = form.to_events(array, source="x")
    assert x.dtype == torch.get_default_dtype() and form.gray is None
    assert np.allclose(form.to_array(x), array, atol=1e-6) and form.to_array(x).dtype == array.dtype


def test_the_pixels_stay_where_they_are():
    array = np.arange(2 * 4 * 4 * 3, dtype=float).reshape(2, 4, 4, 3) + 0.5 + RANDOM.uniform(size=(2, 4, 4, 3)) / 4
    x = read(array).to_events(array, source="x")
    assert float(x[1, 2, 3, 0]) == pytest.approx(array[1, 3, 0, 2])


@pytest.mark.parametrize(
    ("levels", "written", "count"),
    [
        (256, lambda k: k.astype(np.uint8), 256),
        (256, lambda k: k, 256),
        (256, lambda k: (k / 255).astype(np.float32), 256),
        (256, lambda k: (k / 255).astype(np.float16), 256),
        (256, lambda k: (k / 127.5 - 1).astype(np.float32), 256),
        (256, lambda k: (k / 255 - 0.13) / 0.31, 256),
        (256, lambda k: k.astype(np.float32), 256),
        (17, lambda k: (k / 16).astype(np.float32), 17),
        (17, lambda k: (15 * k / 255).astype(np.float32), 17),
        (256, lambda k: 100.37 + k / 4, 256),
        (256, lambda k: (k - 128).astype(np.int8), 256),
        (2, lambda k: k.astype(bool), 2),
        (2, lambda k: k.astype(float), 2),
        (4096, lambda k: k.astype(np.uint16), 4096),
    ],
)
def test_gray_levels_are_found_however_they_are_written(levels, written, count):
    known = RANDOM.integers(0, levels, (200, 6, 6))
    known[0, 0, :2] = 0, levels - 1
    array = written(known)
    form = build(describe(read(array)))
    assert form.gray is not None and form.gray.scaling.levels == count
    assert np.array_equal(form.levels(array, source="x").numpy(), known)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        x = form.to_events(array, source="x", generator=torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(previous)
    assert abs(float(x.mean())) < 0.1 and abs(float(x.std()) - 1) < 0.1
    again = form.to_array(x)
    assert again.dtype == array.dtype
    assert np.allclose(again.astype(float), array.astype(float), atol=1e-3)


def test_continuous_images_are_no_gray_levels():
    for array in (RANDOM.uniform(size=(50, 6, 6)), RANDOM.normal(size=(50, 6, 6)).astype(np.float16)):
        assert read(array).gray is None


def test_rounded_values_without_a_grid_are_warned_of(tmp_path):
    array = np.sqrt(RANDOM.integers(1, 9, (100, 6, 6)))
    np.save(tmp_path / "x.npy", array)
    with pytest.warns(UserWarning, match="the same few values come again and again"):
        load_data(str(tmp_path / "x.npy"))


def test_own_images_are_dequantized_anew_at_every_step(tmp_path):
    np.save(tmp_path / "x.npy", RANDOM.integers(0, 256, (40, 4, 4)).astype(np.uint8))
    first, second = (load_data(str(tmp_path / "x.npy"), seed=1, file=FileOptions("C4")) for _ in range(2))
    assert torch.equal(first.train, second.train) and first.scaling == first.format.gray.scaling
    fresh = first.augment(first.test, torch.Generator().manual_seed(3))
    assert not torch.equal(fresh, first.test) and float((fresh - first.test).abs().max()) <= first.scaling.step * 1.01


@pytest.mark.parametrize("options", [{"kind": "pictures"}, {"levels": 1}, {"levels": 10**6}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="expected"):
        FileOptions("C4", **options)
