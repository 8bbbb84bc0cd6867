"""A folder of images as a data set: ``root/train/<class>/*`` and ``root/test/<class>/*``.

Flat folders work, too, as in the course's Food-5K: ``root/training/<class>_*`` and ``root/validation/<class>_*``.

If the images fit in memory, they are decoded once, kept there, and cached on disk under the folder's fingerprint.
Otherwise the files are decoded again on every access.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

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
SKIP = "or leave such files out (skip_corrupt)"
# names of flat folders; the first one that exists is used. The course leaves out Food-5K's evaluation part
FLAT = {"train": ("train", "training"), "test": ("test", "validation", "evaluation")}
GREY_MODES = {"1", "L", "I", "I;16", "I;16B", "LA"}


class Files(NamedTuple):
    """The image files of a split: their paths, the indices of their classes, and the classes' names."""

    paths: list[Path]
    labels: list[int]
    classes: tuple[str, ...]


class FolderImages(NamedTuple):
    """A folder's images (N, C, H, W), labels (N,) int64, the classes' names, and the files that cannot be read."""

    images: Tensor | DecodedLate
    labels: Tensor
    classes: tuple[str, ...]
    corrupt: list[str]


class DecodedLate:
    """Images (N, C, H, W) uint8 that are decoded on access, with the tensor methods that a data set needs.

    Args:
        paths: The N files.
        shape: (C, H, W) of every image.
        image_size: The side in pixels to which images are resized; None if all have the same size.
        digest: Identifies the images in a run's record.
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
        """Return the images unchanged: the CPU decodes them, and the trainer moves the batches."""
        return self

    def __getitem__(self, indices: Tensor) -> DecodedLate:
        """Select the files with these indices (n,), in that order, without decoding them."""
        chosen = indices.tolist()
        digest = hashlib.sha256(f"{self.digest} {chosen}".encode()).hexdigest()
        channels, height, width = self.shape[1:]
        paths = [self.paths[index] for index in chosen]
        return DecodedLate(paths, (channels, height, width), self.image_size, digest)

    def index_select(self, _axis: int, indices: Tensor) -> Tensor:
        """Decode the images with these indices (B,): (B, C, H, W)."""
        batch = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        for row, index in zip(batch, indices.tolist(), strict=True):
            row.copy_(torch.from_numpy(decode(self.paths[index], self.image_size, self.shape[1] == 1)))
        return batch


def list_files(root: Path, split: str) -> Files:
    """List the image files of a split, class by class, in the order of the classes' names.

    Raises:
        InputError: A folder is missing, a class is empty, there is only one class, or the two splits have different
            classes.
    """
    require(split in FLAT, f"unknown split {split!r}: choose train or test")
    train, test = (next((f for n in names if is_flat(f := root / n)), None) for names in FLAT.values())
    if train is not None and test is not None:
        found = {"train": by_prefix(train), "test": by_prefix(test)}
    else:
        train, test = root / "train", root / "test"
        wanted = f"{train}/<class>/ and {test}/<class>/, with images in each of these folders"
        for folder in (train, test):
            require(folder.is_dir(), f"there is no folder {folder}: the images must be in {wanted}")
        found = {part: {f.name: images_in(f) for f in folders_in(root / part)} for part in FLAT}
        require(len(found["train"]) > 0, f"{train} has no folders of classes: the images must be in {wanted}")
    classes = sorted(found["train"])
    require(len(classes) > 1, f"{train} has only the class {classes[0]!r}: at least two are needed")
    different = ", ".join(sorted(set(classes) ^ set(found["test"])))
    require(not different, f"{train} and {test} must have the same classes, but only one of them has {different}")
    endings = ", ".join(sorted(SUFFIXES))
    for name in classes:
        require(
            len(found[split][name]) > 0,
            f"the class {root / split / name} is empty: it has no files ending in {endings}",
        )
    paths = [(path, label) for label, name in enumerate(classes) for path in found[split][name]]
    return Files([path for path, _ in paths], [label for _, label in paths], tuple(classes))


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, except hidden ones."""
    return [f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")]


def images_in(folder: Path) -> list[Path]:
    """List the image files of a folder in the order of their names."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def is_flat(folder: Path) -> bool:
    """Return whether a folder has images and no folders of classes."""
    return folder.is_dir() and not folders_in(folder) and bool(images_in(folder))


def by_prefix(folder: Path) -> dict[str, list[Path]]:
    """List a flat folder's images by class; their names begin with the class and an underscore."""
    found: dict[str, list[Path]] = {}
    for path in images_in(folder):
        name, underscore, _ = path.name.partition("_")
        require(
            bool(name and underscore),
            f"{path} has no class in its name: in a folder without folders of classes, names must be <class>_*",
        )
        found.setdefault(name, []).append(path)
    return found


def fingerprint(files: Files, split: str, image_size: int | None, grey: bool) -> str:
    """Return a SHA-256 of the files' names, sizes and times and of the decoding options, in hexadecimal."""
    digest = hashlib.sha256(f"{split} {image_size} {grey} {files.classes}".encode())
    for path, label in zip(files.paths, files.labels, strict=True):
        try:
            status = path.stat()
        except OSError:  # a broken link: decoding it raises an error with its name
            continue
        digest.update(f"{label} {path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def decode(path: Path, image_size: int | None, grey: bool) -> np.ndarray:
    """Decode an image to (1, H, W) or (3, H, W) uint8; resize it to a square if ``image_size`` is given.

    Transparency is dropped, and palettes become colours. Only the upper eight bits of 16-bit greys are kept. Images are
    rotated as their EXIF data says.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # convert() would clip all but the darkest to white
                upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
            if upright.mode == "F":
                raise ValueError("its pixels are floats of unknown range")
            picture = upright.convert("L" if grey else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    if image_size is not None and picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    array = np.array(picture)
    return array[None] if grey else np.moveaxis(array, 2, 0)  # (H, W) -> (1, H, W); (H, W, 3) -> (3, H, W)


def is_grey(path: Path) -> bool:
    """Return whether an image is grey; True for a file that cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode in GREY_MODES
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return True


Decoded = tuple["Tensor | DecodedLate", Tensor, list[str]]  # images, indices of their files, corrupt files


def memory_for_images() -> int:
    """Return the maximum number of bytes of images to keep in memory: a quarter of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def read_folder(
    root: str | os.PathLike[str],
    split: str = "train",
    image_size: int | None = None,
    skip_corrupt: bool = False,
    resident: bool | None = None,
) -> FolderImages:
    """Read the images of ``root/<split>/<class>/*``: as RGB, or as grey if no image has colours.

    Args:
        root: The folder.
        split: ``train`` or ``test``.
        image_size: The side in pixels to which every image is resized; None if all have the same size.
        skip_corrupt: Whether to leave out files that cannot be read, instead of stopping at the first.
        resident: Whether to keep all images in memory; None does so if they take at most a quarter of it.

    Raises:
        InputError: As for :func:`list_files`; or a file cannot be read, or the images have different sizes.
    """
    root = Path(root)
    require(image_size is None or image_size >= 1, f"image_size must be 1 or more pixels, not {image_size}")
    files, other = (list_files(root, part) for part in (split, "test" if split == "train" else "train"))
    grey = all(is_grey(path) for path in (*files.paths, *other.paths))  # both splits get the same number of channels
    digest = fingerprint(files, split, image_size, grey)
    place = hashlib.sha256(f"{root.resolve()} {digest}".encode()).hexdigest()  # another folder may have the same digest
    cached = cache_folder() / "folders" / f"{place}.safetensors"
    found: Decoded | None = read_cache(cached) if resident is not False else None
    if found is None:
        found = decode_all(files, image_size, grey, skip_corrupt, resident, digest)
        if isinstance(found[0], Tensor):
            write_cache(cached, found[0], *found[1:])
    images, kept, corrupt = found
    if corrupt and not skip_corrupt:
        raise InputError(f"{corrupt[0]} cannot be read as an image: repair or remove it, {SKIP}")
    return FolderImages(images, torch.tensor(files.labels)[kept], files.classes, corrupt)


def decode_all(
    files: Files, image_size: int | None, grey: bool, skip_corrupt: bool, resident: bool | None, digest: str
) -> Decoded:
    """Decode every image once, to keep it or just to check that it can be read and has the same size as the others."""
    images: Tensor | None = None
    shape = (0, 0, 0)
    kept: list[int] = []
    corrupt: list[str] = []

    def attempt(path: Path) -> np.ndarray | InputError:
        try:
            return decode(path, image_size, grey)
        except InputError as error:
            return error

    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(desc="decoding", total=len(files.paths), leave=False, disable=None))
        stack.callback(pool.shutdown, cancel_futures=True)  # on an error, skip the rest
        decoded = pool.map(attempt, files.paths)
        for index, array in enumerate(decoded):
            bar.update()
            if isinstance(array, InputError):
                if not skip_corrupt:
                    raise InputError(f"{array}; repair or remove it, {SKIP}")
                corrupt.append(str(files.paths[index]))
                continue
            if not kept:
                shape = array.shape
                fits = len(files.paths) * array.nbytes <= memory_for_images()
                if resident or (resident is None and fits):
                    images = torch.empty((len(files.paths), *shape), dtype=torch.uint8)
            if array.shape != shape:
                first, this = (f"{height}x{width}" for height, width in (shape[1:], array.shape[1:]))
                raise InputError(
                    f"{files.paths[index]} has {this} pixels, but {files.paths[kept[0]]} has {first}: choose one size "
                    "for all (image_size)"
                )
            if images is not None:
                images[len(kept)] = torch.from_numpy(array)
            kept.append(index)
    labels = {files.labels[index] for index in kept}
    for label, name in enumerate(files.classes):
        require(label in labels, f"no image of the class {name!r} can be read")
    late = DecodedLate([files.paths[index] for index in kept], shape, image_size, digest)
    return late if images is None else images[: len(kept)], torch.tensor(kept), corrupt


def write_cache(path: Path, images: Tensor, kept: Tensor, corrupt: list[str]) -> None:
    """Save decoded images; if the file cannot be written, they will be decoded again next time."""
    with contextlib.suppress(OSError, safetensors.SafetensorError):  # the latter for a full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            safetensors.torch.save_file({"images": images, "kept": kept}, temporary, {"corrupt": json.dumps(corrupt)})


def read_cache(path: Path) -> tuple[Tensor, Tensor, list[str]] | None:
    """Read the file that :func:`write_cache` wrote; return None if it is missing or damaged."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return file.get_tensor("images"), file.get_tensor("kept"), json.loads(file.metadata()["corrupt"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return None
