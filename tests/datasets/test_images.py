"""MNIST and CIFAR-10: all formats give the same images, splits are disjoint, rotations exact, and errors clear."""

import gzip
import pickle
import struct

import numpy as np
import pytest
import torch

from pyro_gflows.datasets import FOLDER_VARIABLE, IMAGE_SETS, image_set, load_data, rotate_images
from pyro_gflows.datasets.images import _ROTATED_SIZES

GENERATOR = np.random.default_rng(0)
SHAPES = {"mnist": (28, 28), "cifar10": (3, 32, 32)}


def arrays(name, train=50, test=20):
    """Images of noise, in which each is different, with ten labels."""
    out = {}
    for part, count in (("train", train), ("test", test)):
        out[f"{part}_images"] = GENERATOR.integers(0, 256, (count, *SHAPES[name]), dtype=np.uint8)
        out[f"{part}_labels"] = np.arange(count) % 10
    return out


def write_npz(folder, name, data):
    np.savez(folder / f"{name}.npz", **data)


def write_originals(folder, name, data, *, zipped=False):
    if name == "mnist":
        for part, stem in (("train", "train"), ("test", "t10k")):
            for kind, code in (("images", "images-idx3"), ("labels", "labels-idx1")):
                array = data[f"{part}_{kind}"].astype(np.uint8)
                raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
                path = folder / f"{stem}-{code}-ubyte{'.gz' if zipped else ''}"
                path.write_bytes(gzip.compress(raw) if zipped else raw)
        return
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()
    batches = list(zip(np.split(data["train_images"], 5), np.split(data["train_labels"], 5), strict=True))
    names = [f"data_batch_{k}" for k in range(1, 6)]
    for file, (images, labels) in zip(
        [*names, "test_batch"], [*batches, (data["test_images"], data["test_labels"])], strict=True
    ):
        batch = {b"data": images.reshape(len(images), -1), b"labels": [int(label) for label in labels]}
        (inner / file).write_bytes(pickle.dumps(batch, protocol=2))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_originals_and_an_npz_are_read_alike(name, zipped, tmp_path):
    data = arrays(name)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    write_npz(tmp_path / "one", name, data)
    write_originals(tmp_path / "two", name, data, zipped=zipped)
    first, second = (image_set(name, folder=tmp_path / folder) for folder in ("one", "two"))
    for part in ("train", "train_labels", "test", "test_labels"):
        assert torch.equal(getattr(first, part), getattr(second, part))
    assert first.train.shape == (50, 1, 28, 28) if name == "mnist" else (50, 3, 32, 32)
    assert (first.train.numpy().reshape(data["train_images"].shape) == data["train_images"]).all()


def test_channels_that_come_last_come_first(tmp_path):
    data = arrays("cifar10")
    write_npz(tmp_path, "cifar10", {k: np.moveaxis(v, 1, -1) if v.ndim == 4 else v for k, v in data.items()})
    assert (image_set("cifar10", folder=tmp_path).train.numpy() == data["train_images"]).all()


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_named_sets_are_seeded_dequantized_and_disjoint(name, tmp_path, monkeypatch):
    write_npz(tmp_path, IMAGE_SETS[name].source, arrays(IMAGE_SETS[name].source, train=100, test=30))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    data, again, other = (load_data(name, seed=seed) for seed in (1, 1, 2))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [90, 10, 30]
    assert torch.equal(data.train, again.train) and not torch.equal(data.train, other.train)
    levels = [data.scaling.quantize(part).flatten(1) for part in (data.train, data.validation, data.test)]
    everything = torch.cat(levels)
    assert len(everything.unique(dim=0)) == len(everything)  # nothing is in two parts
    assert everything.min() >= 0 and everything.max() <= 255
    assert torch.equal(
        data.scaling.quantize(data.augment(data.train, torch.Generator())), levels[0].view(data.train.shape)
    )


def test_the_split_does_not_depend_on_the_seed(tmp_path):
    write_npz(tmp_path, "mnist", arrays("mnist", train=100, test=30))
    first, second = (load_data("mnist", seed=seed, folder=tmp_path) for seed in (1, 2))
    assert torch.equal(first.scaling.quantize(first.validation), second.scaling.quantize(second.validation))


def test_the_full_set_is_dealt_as_rotation_mnist_is(tmp_path, monkeypatch):
    """The test runs at a thousandth of the size."""
    sizes = tuple(size // 100 for size in _ROTATED_SIZES)
    monkeypatch.setattr("pyro_gflows.datasets.images._ROTATED_SIZES", sizes)
    data = arrays("mnist", train=600, test=100)
    write_npz(tmp_path, "mnist", data)
    parts = IMAGE_SETS["rotated-mnist"]._split(image_set("mnist", folder=tmp_path))
    assert tuple(map(len, parts)) == sizes
    everything = torch.cat(parts).flatten(1)
    assert len(everything.unique(dim=0)) == sum(sizes)


def test_rotations_by_90_degrees_are_exact_and_images_keep_their_level():
    images = torch.from_numpy(GENERATOR.integers(0, 256, (4, 2, 8, 8)).astype(np.float32))
    for times in range(4):
        angles = torch.full((4,), times * torch.pi / 2)
        torch.testing.assert_close(
            rotate_images(images, angles), torch.rot90(images, times, dims=(-2, -1)), atol=1e-2, rtol=0
        )
    yy, xx = torch.meshgrid(torch.arange(9.0) - 4, torch.arange(9.0) - 4, indexing="ij")
    disc = ((xx.square() + yy.square()) < 6).float().expand(1, 1, 9, 9)
    assert (rotate_images(disc, torch.tensor([0.7])) - disc).abs().mean() < 0.1


def test_cifar_under_the_group_holds_rotated_originals(tmp_path):
    data = arrays("cifar10", train=100, test=30)
    write_npz(tmp_path, "cifar10", data)
    rotated = load_data("cifar10-rot", folder=tmp_path)
    pictures = rotated.scaling.quantize(rotated.test)
    originals = torch.from_numpy(data["test_images"]).long()
    poses = torch.stack([torch.rot90(originals, k, dims=(-2, -1)) for k in range(4)])
    which = (poses == pictures).flatten(2).all(2)
    assert which.any(0).all() and len(which.long().argmax(0).unique()) == 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: None, r"found no mnist in .*put mnist\.npz, or the four files"),
        (lambda folder: (folder / "mnist.npz").write_bytes(b"nonsense"), r"cannot read .*mnist\.npz"),
        (lambda folder: write_npz(folder, "mnist", {"train_images": np.zeros(3)}), "cannot read"),
        (
            lambda folder: write_npz(
                folder,
                "mnist",
                {f"{p}_{k}": np.zeros((2, 5), np.uint8) for p in ("train", "test") for k in ("images", "labels")},
            ),
            r"expected bytes of shape \(n, \(1, 28, 28\)\)",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(spoil, message, tmp_path):
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        image_set("mnist", folder=tmp_path)


def test_damaged_originals_are_named(tmp_path):
    write_originals(tmp_path, "mnist", arrays("mnist"))
    path = tmp_path / "train-images-idx3-ubyte"
    for raw, message in [(path.read_bytes()[:-5], "expected 39200 bytes"), (b"\1\2\3\4", "is no IDX file")]:
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=message):
            image_set("mnist", folder=tmp_path)


def test_a_pickle_that_asks_for_more_than_arrays_is_refused(tmp_path):
    write_originals(tmp_path, "cifar10", arrays("cifar10"))

    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(ValueError, match=r"data_batch_3 .*asks for .*print"):
        image_set("cifar10", folder=tmp_path)


def test_a_failed_download_says_what_to_put_where(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", offline)
    with pytest.raises(RuntimeError, match=rf"put cifar10\.npz.*{FOLDER_VARIABLE}"):
        image_set("cifar10")
    with pytest.raises(ValueError, match="expected one of"):
        image_set("imagenet")
