"""A folder of images as a data set: ``root/train/<class>/*`` and ``root/test/<class>/*``.

Or, as the course's Food-5K has them, flat: ``root/training/<class>_*`` and ``root/validation/<class>_*``.

The files are decoded once. Where they fit in memory they are held there, all of them, and a copy is kept in torchdl's
cache under the folder's fingerprint; where they do not, they are decoded again whenever they are asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from torchdl.data.sources import cache_folder
from torchdl.errors import InputError, require
from torchdl.files import replacing

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SKIP = "or leave such files out with --skip-corrupt"
# where a part lies flat, by the first of these that is there; the course leaves Food-5K's evaluation part out
FLAT = {"train": ("train", "training"), "test": ("test", "validation", "evaluation")}
GREY_MODES = {"1", "L", "I", "I;16", "I;16B", "LA"}


class Files(NamedTuple):
    """The image files of a split: their paths, their classes' numbers, and the classes' names."""

    paths: list[Path]
    labels: list[int]
    classes: tuple[str, ...]


class FolderImages(NamedTuple):
    """What a folder holds: images (N, C, H, W), labels (N,) int64, the classes' names, files that cannot be read."""

    images: Tensor | DecodedLate
    labels: Tensor
    classes: tuple[str, ...]
    corrupt: list[str]


class DecodedLate:
    """Images (N, C, H, W) uint8 that are decoded whenever they are selected: what of a tensor a data set needs.

    Args:
        paths: The files, N of them.
        shape: (C, H, W) of every image.
        image_size: Pixels a side that images are resized to; None where they are all of one size.
        digest: What a run's record names them by.
    """

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(self, paths: Sequence[Path], shape: tuple[int, int, int], image_size: int | None, digest: str) -> None:
        self.paths, self.image_size, self.digest = list(paths), image_size, digest
        self.shape = torch.Size((len(paths), *shape))

    def __len__(self) -> int:
        return len(self.paths)

    def dim(self) -> int:
        """Return the number of axes, as a tensor does."""
        return len(self.shape)

    def to(self, _device: str | torch.device) -> DecodedLate:
        """Stay: images are decoded by the CPU; the trainer moves the batches."""
        return self

    def __getitem__(self, indices: Tensor) -> DecodedLate:
        """Choose the files numbered ``indices`` (n,), in that order, and decode none yet."""
        numbers = indices.tolist()
        digest = hashlib.sha256(f"{self.digest} {numbers}".encode()).hexdigest()
        channels, height, width = self.shape[1:]
        paths = [self.paths[number] for number in numbers]
        return DecodedLate(paths, (channels, height, width), self.image_size, digest)

    def index_select(self, _axis: int, indices: Tensor) -> Tensor:
        """Decode the images numbered ``indices`` (B,): (B, C, H, W)."""
        batch = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        for row, number in zip(batch, indices.tolist(), strict=True):
            row.copy_(torch.from_numpy(decode(self.paths[number], self.image_size, self.shape[1] == 1)))
        return batch


def list_files(root: Path, split: str) -> Files:
    """List the image files of a split, class by class, the classes in the order of their names.

    Raises:
        InputError: The folders are not there, there is one class only, one is empty, or a test class is no training
            class.
    """
    wanted = f"{root}/train/<class>/ and {root}/test/<class>/, with images in every folder of a class"
    require(split in ("train", "test"), f"unknown split {split!r}: choose train or test")
    flat = {part: next((f for n in names if is_flat(f := root / n)), None) for part, names in FLAT.items()}
    if flat["train"] is not None and flat["test"] is not None:
        return list_flat(flat["train"], flat["test"], split)
    names: dict[str, list[str]] = {}
    for part in ("train", "test"):
        require((root / part).is_dir(), f"{root / part} is not there: the images must be in {wanted}")
        names[part] = sorted(f.name for f in (root / part).iterdir() if f.is_dir() and not f.name.startswith("."))
    classes = names["train"]
    require(len(classes) > 0, f"{root / 'train'} holds no classes: the images must be in {wanted}")
    require(len(classes) > 1, f"{root / 'train'} holds the class {classes[0]!r} alone: it takes two to tell apart")
    if classes != names["test"]:
        different = ", ".join(sorted(set(classes) ^ set(names["test"])))
        raise InputError(f"{root}: train and test must have the same classes, but not both have {different}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = root / split / name
        found = images_in(folder)
        require(
            len(found) > 0, f"the class {folder} is empty: it holds no file ending in {', '.join(sorted(SUFFIXES))}"
        )
        paths += found
        labels += [label] * len(found)
    return Files(paths, labels, tuple(classes))


def images_in(folder: Path) -> list[Path]:
    """List the image files of a folder by their names."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def is_flat(folder: Path) -> bool:
    """Say whether a folder holds images and no folders of classes."""
    return (
        folder.is_dir()
        and not any(f.is_dir() and not f.name.startswith(".") for f in folder.iterdir())
        and bool(images_in(folder))
    )


def list_flat(train: Path, test: Path, split: str) -> Files:
    """List the images of a split whose names begin with their class and an underscore, class by class."""
    found: dict[str, dict[str, list[Path]]] = {}
    for part, folder in (("train", train), ("test", test)):
        found[part] = {}
        for path in images_in(folder):
            name, underscore, _ = path.name.partition("_")
            require(
                bool(name and underscore),
                f"{path} does not say its class: in a folder without folders of classes a name must be <class>_*",
            )
            found[part].setdefault(name, []).append(path)
    classes = sorted(found["train"])
    require(len(classes) > 1, f"{train} holds the class {classes[0]!r} alone: it takes two to tell apart")
    different = ", ".join(sorted(set(classes) ^ set(found["test"])))
    require(not different, f"{train} and {test} must have the same classes, but not both have {different}")
    paths = [(path, label) for label, name in enumerate(classes) for path in found[split][name]]
    return Files([path for path, _ in paths], [label for _, label in paths], tuple(classes))


def fingerprint(files: Files, split: str, image_size: int | None, grey: bool) -> str:
    """Return a SHA-256 of the files' names, sizes and times, and of how they are to be decoded, in hexadecimal."""
    digest = hashlib.sha256(f"{split} {image_size} {grey} {files.classes}".encode())
    for path, label in zip(files.paths, files.labels, strict=True):
        try:
            status = path.stat()
        except OSError:  # a link to nowhere: it is named when it is to be decoded
            continue
        digest.update(f"{label} {path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def decode(path: Path, image_size: int | None, grey: bool) -> np.ndarray:
    """Decode an image to (1, H, W) or (3, H, W) uint8; resized to a square if ``image_size`` is given.

    Transparent and palette images become RGB, of wider greys the upper eight of 16 bits are kept; a picture that lies
    on its side by its EXIF is turned.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # else converting would clip all but the darkest to white
                upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
            if upright.mode == "F":
                raise ValueError("its pixels are real numbers, of which nothing says how bright they are")
            picture = upright.convert("L" if grey else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is no image that can be read: {error}") from error
    if image_size is not None and picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    array = np.array(picture)
    return array[None] if grey else np.moveaxis(array, 2, 0)  # (H, W) -> (1, H, W); (H, W, 3) -> (3, H, W)


def is_grey(path: Path) -> bool:
    """Say whether a file's images have no colours; of a file that cannot be read, yes."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode in GREY_MODES
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return True


Decoded = tuple["Tensor | DecodedLate", Tensor, list[str]]  # the images, which of the files they are, the others


def memory_for_images() -> int:
    """Return how many bytes of images are held in memory at most: a quarter of the machine's."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def read_folder(
    root: str | os.PathLike[str],
    split: str = "train",
    image_size: int | None = None,
    skip_corrupt: bool = False,
    resident: bool | None = None,
) -> FolderImages:
    """Read the images of ``root/<split>/<class>/*``; RGB, or grey where none of them has colours.

    Args:
        root: The folder.
        split: ``train`` or ``test``.
        image_size: Pixels a side that every image is resized to; None where they are all of one size.
        skip_corrupt: Leave out files that cannot be read and say which, instead of stopping at the first.
        resident: Whether to hold all images in memory; None for doing so where they take a quarter of it at most.

    Raises:
        InputError: As :func:`list_files`; or a file cannot be read, or the images are of several sizes.
    """
    root = Path(root)
    require(image_size is None or image_size >= 1, f"the image size must be 1 or more pixels, not {image_size}")
    files, other = (list_files(root, part) for part in (split, "test" if split == "train" else "train"))
    grey = all(is_grey(path) for path in (*files.paths, *other.paths))  # a network must fit both parts
    digest = fingerprint(files, split, image_size, grey)
    place = hashlib.sha256(f"{root.resolve()} {digest}".encode()).hexdigest()  # other folders may look alike
    cached = cache_folder() / "folders" / f"{place}.safetensors"
    found: Decoded | None = read_cache(cached) if resident is not False else None
    if found is None:
        found = decode_all(files, image_size, grey, skip_corrupt, resident, digest)
        if isinstance(found[0], Tensor):
            write_cache(cached, found[0], *found[1:])
    images, kept, corrupt = found
    if corrupt and not skip_corrupt:
        raise InputError(f"{corrupt[0]} is no image that can be read; mend or remove it, {SKIP}")
    return FolderImages(images, torch.tensor(files.labels)[kept], files.classes, corrupt)


def decode_all(
    files: Files, image_size: int | None, grey: bool, skip_corrupt: bool, resident: bool | None, digest: str
) -> Decoded:
    """Decode every image once: to hold them, or to see that they can be read and are of one size."""
    images: Tensor | None = None
    shape: tuple[Any, ...] = ()
    kept: list[int] = []
    corrupt: list[str] = []

    def attempt(path: Path) -> np.ndarray | InputError:
        try:
            return decode(path, image_size, grey)
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(desc="decoding", total=len(files.paths), leave=False, disable=None))
        stack.callback(pool.shutdown, cancel_futures=True)  # an error does not wait for the rest
        decoded = pool.map(attempt, files.paths)
        for number, array in enumerate(decoded):
            bar.update()
            if isinstance(array, InputError):
                if not skip_corrupt:
                    raise InputError(f"{array}; mend or remove it, {SKIP}")
                corrupt.append(str(files.paths[number]))
                continue
            if not kept:
                shape = array.shape
                room = len(files.paths) * array.nbytes <= memory_for_images()
                if resident or (resident is None and room):
                    images = torch.empty((len(files.paths), *shape), dtype=torch.uint8)
            if array.shape != shape:
                first, this = (f"{height}x{width}" for height, width in (shape[1:], array.shape[1:]))
                raise InputError(
                    f"{files.paths[number]} has {this} pixels, {files.paths[kept[0]]} {first}: choose one size for all "
                    "with --image-size"
                )
            if images is not None:
                images[len(kept)] = torch.from_numpy(array)
            kept.append(number)
    labels = {files.labels[number] for number in kept}
    for label, name in enumerate(files.classes):
        require(label in labels, f"no image of the class {name!r} can be read")
    if images is not None:
        return images[: len(kept)], torch.tensor(kept), corrupt
    late = DecodedLate([files.paths[number] for number in kept], shape, image_size, digest)
    return late, torch.tensor(kept), corrupt


def write_cache(path: Path, images: Tensor, kept: Tensor, corrupt: list[str]) -> None:
    """Keep decoded images; where nothing can be written there, they are decoded again the next time."""
    with contextlib.suppress(OSError, safetensors.SafetensorError):  # the latter is its word for a full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            safetensors.torch.save_file({"images": images, "kept": kept}, temporary, {"corrupt": json.dumps(corrupt)})


def read_cache(path: Path) -> tuple[Tensor, Tensor, list[str]] | None:
    """Read what :func:`write_cache` kept; None where there is nothing, or nothing whole."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.get_tensor("images"), file.get_tensor("kept"), json.loads(file.metadata()["corrupt"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return None
