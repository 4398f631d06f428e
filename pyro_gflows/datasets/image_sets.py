"""The published images of MNIST and CIFAR-10, from a folder of the user's or downloaded through scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.cifar_batches import read_cifar_batch
from pyro_gflows.datasets.idx import read_idx

__all__ = ["FOLDER_VARIABLE", "RawImages", "image_set"]

#: The environment variable that names the folder with the files of MNIST and CIFAR-10.
FOLDER_VARIABLE = "PYRO_GFLOWS_DATA"

_SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
_OPENML = {"mnist": ("mnist_784", 60_000), "cifar10": ("CIFAR_10", 50_000)}
_WANTED = {
    "mnist": "mnist.npz, or the four files train-images-idx3-ubyte[.gz], ...",
    "cifar10": "cifar10.npz, or the folder cifar-10-batches-py of the Python version",
}


@dataclass(frozen=True)
class RawImages:
    """A set of images and its labels, with the published split into training and test images.

    Attributes:
        train: Training images, uint8, shape ``(n, C, H, W)``.
        train_labels: Their labels, int64, shape ``(n,)``.
        test: Test images, uint8, shape ``(m, C, H, W)``.
        test_labels: Their labels, int64, shape ``(m,)``.

    Example:
        >>> images, labels = torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.arange(6)
        >>> raw = RawImages(images[:4], labels[:4], images[4:], labels[4:])
        >>> len(raw.train), raw.test_labels.tolist()
        (4, [4, 5])
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def image_set(name: str, *, folder: str | Path | None = None) -> RawImages:
    """Return the images of "mnist" or "cifar10" as they were published.

    The folder may hold an ``.npz`` file with the arrays ``train_images``, ``train_labels``, ``test_images`` and
    ``test_labels``, the IDX files (MNIST), or the Python batches (CIFAR-10); the first of these that is found is read.
    Where no folder is named, scikit-learn downloads the set from OpenML, once, into its own cache.

    Args:
        name: "mnist" or "cifar10".
        folder: The folder with the files; by default the folder that the environment variable ``PYRO_GFLOWS_DATA``
            names.

    Raises:
        ValueError: If the name is another one, if the folder holds none of these files, or if a file cannot be read.
        ImportError: If no folder is named and scikit-learn is not installed.
        RuntimeError: If the download failed; the message says which file to put where.

    Example:
        >>> import tempfile
        >>> images, labels = np.zeros((6, 28, 28), dtype=np.uint8), np.arange(6)
        >>> parts = dict(train_images=images, train_labels=labels, test_images=images, test_labels=labels)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(Path(folder) / "mnist.npz", **parts)
        ...     image_set("mnist", folder=folder).train.shape
        torch.Size([6, 1, 28, 28])
    """
    if name not in _SHAPES:
        raise ValueError(f"expected one of {sorted(_SHAPES)}, got {name!r}")
    chosen = folder or os.environ.get(FOLDER_VARIABLE)
    raw = _download(name) if not chosen else _read(name, Path(chosen))
    for part in (raw.train, raw.test):
        if part.dtype != torch.uint8 or part.shape[1:] != _SHAPES[name] or len(part) == 0:
            raise ValueError(f"expected bytes of shape (n, {_SHAPES[name]}), got {part.dtype} {tuple(part.shape)}")
    return raw


def _read(name: str, folder: Path) -> RawImages:
    if (folder / f"{name}.npz").is_file():
        return _from_npz(folder / f"{name}.npz", _SHAPES[name])
    found = _IN_FOLDER[name](folder)
    if found is None:
        raise ValueError(f"found no {name} in {folder.resolve()}: put {_WANTED[name]} there")
    return found


def _from_npz(path: Path, shape: tuple[int, ...]) -> RawImages:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = [
                torch.from_numpy(stored[key]) for key in ("train_images", "train_labels", "test_images", "test_labels")
            ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    train, train_labels, test, test_labels = arrays
    return RawImages(
        _channels_first(train, shape), train_labels.long(), _channels_first(test, shape), test_labels.long()
    )


def _channels_first(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return images as (n, C, H, W); they may lack the axis of one channel, or have the channels last."""
    if images.shape[1:] == shape[1:] and shape[0] == 1:
        return images.unsqueeze(1)
    if images.shape[1:] == (*shape[1:], shape[0]):
        return images.movedim(-1, 1)
    return images


def _mnist_files(folder: Path) -> RawImages | None:
    arrays = []
    for stem in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        names = [f"{stem}-ubyte", f"{stem}-ubyte.gz", f"{stem.replace('-idx', '.idx')}-ubyte"]
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            return None
        arrays.append(read_idx(found[0]))
    train, train_labels, test, test_labels = arrays
    return RawImages(train.unsqueeze(1), train_labels.long(), test.unsqueeze(1), test_labels.long())


def _cifar_files(folder: Path) -> RawImages | None:
    inner = folder / "cifar-10-batches-py"
    place = inner if inner.is_dir() else folder
    paths = [place / f"data_batch_{number}" for number in range(1, 6)]
    if not all(path.is_file() for path in [*paths, place / "test_batch"]):
        return None
    images, labels = zip(*map(read_cifar_batch, paths), strict=True)
    return RawImages(torch.cat(images), torch.cat(labels), *read_cifar_batch(place / "test_batch"))


_IN_FOLDER: dict[str, Callable[[Path], RawImages | None]] = {"mnist": _mnist_files, "cifar10": _cifar_files}


def _download(name: str) -> RawImages:
    try:
        from sklearn.datasets import fetch_openml  # an optional dependency: the extra "data"
    except ImportError as error:
        raise ImportError(
            f"to download {name}, install scikit-learn (pip install 'pyro-gflows[data]'); or put {_WANTED[name]} into "
            f"a folder and name it by the environment variable {FOLDER_VARIABLE} (in Python, by folder=)"
        ) from error
    title, count = _OPENML[name]
    try:
        bunch = fetch_openml(title, version=1, as_frame=False, parser="liac-arff")
    except Exception as error:  # whatever a network can do
        raise RuntimeError(
            f"could not download {name} from OpenML ({error}); offline, put {_WANTED[name]} into a folder and name it "
            f"by the environment variable {FOLDER_VARIABLE} (in Python, by folder=)"
        ) from error
    images = torch.from_numpy(np.asarray(bunch.data, dtype=np.uint8)).reshape(-1, *_SHAPES[name])
    labels = torch.from_numpy(np.asarray(bunch.target, dtype=np.int64))
    return RawImages(images[:count], labels[:count], images[count:], labels[count:])
