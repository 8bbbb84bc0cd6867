"""A folder of images as a data set: ``root/train/<class>/*`` and ``root/test/<class>/*``.

Flat folders work, too, as in the course's Food-5K: ``root/training/<class>_*`` and ``root/validation/<class>_*``.

If the images fit in memory, they are decoded once, kept there, and cached on disk under the fingerprint of the files.
Otherwise the files are decoded again on every access.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import torch
from torch import Tensor

from torchdl.data.duplicates import hashes
from torchdl.data.image_files import Decoding, Header, decode, read_header
from torchdl.data.tensor_cache import read_cache, write_cache
from torchdl.errors import InputError, require
from torchdl.files import PathLike, cache_folder
from torchdl.pictures import MAX_PIXELS
from torchdl.progress import progress_bar

SUFFIXES = {".apng", ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm", ".png", ".pnm"}
SUFFIXES |= {".ppm", ".tif", ".tiff", ".webp"}
SKIP = "or leave such files out (skip_corrupt)"
# names of flat folders; the first one that exists is used. The course leaves out Food-5K's evaluation part
FLAT = {"train": ("train", "training"), "test": ("test", "validation", "evaluation")}
CHEAP = 2**30  # bytes of files whose contents are hashed before the cache is trusted: a second or two
AHEAD = 64  # files that are decoded at once, or wait to be used


class Files(NamedTuple):
    """The image files of a split: their paths, the indices of their classes, the classes' names, and other files.

    ``misplaced``: images that are not directly in a class's folder. ``others``: files beside them that are not images.
    """

    paths: list[Path]
    labels: list[int]
    classes: tuple[str, ...]
    misplaced: list[Path]
    others: list[Path]


class FolderImages(NamedTuple):
    """A folder's images (N, C, H, W), labels (N,) int64, the classes' names, and the files that cannot be read.

    ``notes``: sentences about files that were passed over, and about a damaged cache.
    """

    images: Tensor | DecodedLate
    labels: Tensor
    classes: tuple[str, ...]
    corrupt: list[str]
    notes: list[str]


class Decoded(NamedTuple):
    """Decoded images (N, C, H, W), or None if they are not kept in memory, and what was found while decoding.

    ``kept``: the indices of their files (N,). ``corrupt``: the unreadable files. If the images are not kept in memory:
    ``shape``, (C, H, W) of each, and ``hashes`` of their pixels, (N,) uint64.
    """

    images: Tensor | None
    kept: Tensor
    corrupt: list[str]
    shape: tuple[int, ...] = ()
    hashes: np.ndarray = np.empty(0, np.uint64)


class DecodedLate:
    """Images (N, C, H, W) uint8 that are decoded on access, with the tensor methods that a data set needs.

    Args:
        paths: The N files.
        shape: (C, H, W) of every image.
        decoding: How to decode them.
        digest: Identifies the images in a run's record.
        hashes: (N,) uint64 of the images' pixels, to find equal images.
    """

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(
        self, paths: Sequence[Path], shape: tuple[int, ...], decoding: Decoding, digest: str, hashes: np.ndarray
    ) -> None:
        self.paths, self.decoding, self.digest, self.hashes = list(paths), decoding, digest, hashes
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
        paths = [self.paths[index] for index in chosen]
        return DecodedLate(paths, self.shape[1:], self.decoding, digest, self.hashes[chosen])

    def index_select(self, _axis: int, indices: Tensor) -> Tensor:
        """Decode the images with these indices (B,): (B, C, H, W).

        Raises:
            InputError: A file has another size than when training began.
        """
        batch = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        for row, index in zip(batch, indices.tolist(), strict=True):
            array = decode(self.paths[index], *self.decoding)
            same = array.shape == row.shape
            require(
                same, f"{self.paths[index]} has another size than when training began: leave the images as they are"
            )
            row.copy_(torch.from_numpy(array))
        return batch


def list_files(root: Path, split: str) -> Files:
    """List the image files of a split, class by class, in the order of the classes' names.

    Raises:
        InputError: A folder is missing, a class is empty, there is only one class, or the two splits have different
            classes.
    """
    require(split in FLAT, f"unknown split {split!r}: choose train or test")
    train, test = (next((f for n in names if is_flat(f := root / n)), None) for names in FLAT.values())
    misplaced, others = [], []
    if train is not None and test is not None:
        found = {"train": by_prefix(train), "test": by_prefix(test)}
        others = contents(train if split == "train" else test).others
    else:
        train, test = root / "train", root / "test"
        wanted = f"{train}/<class>/ and {test}/<class>/, with images in each of these folders"
        for folder in (train, test):
            require(folder.is_dir(), f"there is no folder {folder}: the images must be in {wanted}")
        inside = {part: {f.name: contents(f) for f in folders_in(root / part)} for part in FLAT}
        found = {part: {name: of.images for name, of in inside[part].items()} for part in FLAT}
        require(len(found["train"]) > 0, f"{train} has no folders of classes: the images must be in {wanted}")
        misplaced = [*images_in(root / split), *(path for of in inside[split].values() for path in of.nested)]
        others = [path for of in inside[split].values() for path in of.others]
    classes = sorted(found["train"])
    require(len(classes) > 1, f"{train} has only the class {classes[0]!r}: at least two are needed")
    different = ", ".join(sorted(set(classes) ^ set(found["test"])))
    require(not different, f"{train} and {test} must have the same classes, but only one of them has {different}")
    endings = ", ".join(sorted(SUFFIXES))
    for name in classes:
        folder = root / split / name
        nested = [path for path in misplaced if folder in path.parents]
        advice = f"; move up the {named(nested, root)} inside it" if nested else ""
        require(
            len(found[split][name]) > 0, f"the class {folder} is empty: it has no files ending in {endings}{advice}"
        )
    paths = [(path, label) for label, name in enumerate(classes) for path in found[split][name]]
    chosen, labels = [path for path, _ in paths], [label for _, label in paths]
    return Files(chosen, labels, tuple(classes), sorted(misplaced), sorted(others))


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, except hidden ones and those of macOS' archives."""
    return [f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".") and f.name != "__MACOSX"]


class Contents(NamedTuple):
    """A folder's images, the images in folders inside it, and other files in both; nothing hidden."""

    images: list[Path]
    nested: list[Path]
    others: list[Path]


def contents(folder: Path) -> Contents:
    """List the files of a folder and of all folders inside it; images in the order of their names."""
    found = Contents([], [], [])
    for place, folders, names in os.walk(folder):
        odd = [name for name in folders if Path(place, name).is_symlink() or Path(name).suffix.lower() in SUFFIXES]
        folders[:] = [name for name in folders if name not in odd and not name.startswith(".")]
        for path in (Path(place, name) for name in (*names, *odd) if not name.startswith(".")):
            kind = found.others if not is_image(path) else found.images if place == str(folder) else found.nested
            kind.append(path)
    return Contents(*map(sorted, found))


def images_in(folder: Path) -> list[Path]:
    """List the image files of a folder in the order of their names."""
    return sorted(f for f in folder.iterdir() if not f.name.startswith(".") and not f.is_dir() and is_image(f))


def is_image(path: Path) -> bool:
    """Return whether a file's name says that it is an image, or the name has no suffix and the file is one."""
    return path.suffix.lower() in SUFFIXES or (not path.suffix and read_header(path) is not None)


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


def named(paths: Sequence[str | Path], root: Path | None = None, what: str = "image") -> str:
    """Return how many files there are, with the names of the first five, relative to ``root``."""
    names = [str(path if root is None else Path(path).relative_to(root)) for path in paths[:5]]
    more = f" and {len(paths) - 5:,} more" if len(paths) > 5 else ""
    return f"{len(paths):,} {what}{'s' if len(paths) > 1 else ''} ({', '.join(names)}{more})"


def fingerprint(files: Files, split: str, decoding: Decoding, contents: bool) -> str:
    """Return a SHA-256 of the files' names, of their contents or status, and of the decoding, in hexadecimal.

    The status has the time of the last change of any kind, which no program can set: unlike the time of the last
    change of the contents, it shows that a file was replaced by one of the same size and time.
    """
    digest = hashlib.sha256(f"{split} {tuple(decoding)} {files.classes}".encode("utf-8", "surrogateescape"))
    for path, label in zip(files.paths, files.labels, strict=True):
        digest.update(f"\n{label} {path.name}\n".encode("utf-8", "surrogateescape"))
        with contextlib.suppress(OSError):  # such as a broken link: decoding it raises an error with its name
            status = path.stat()
            if not contents:
                digest.update(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}".encode())
            elif path.is_file():
                digest.update(_content(path))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()


def memory_for_images() -> int:
    """Return the maximum number of bytes of images to keep in memory: a quarter of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def read_folder(
    root: PathLike,
    split: str = "train",
    image_size: int | None = None,
    skip_corrupt: bool = False,
    resident: bool | None = None,
    white_value: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> FolderImages:
    """Read the images of ``root/<split>/<class>/*``: as RGB, or as grey if no image has colours.

    Args:
        root: The folder.
        split: ``train`` or ``test``.
        image_size: The side in pixels to which every image is resized; None if all have the same size.
        skip_corrupt: Whether to leave out files that cannot be read, instead of stopping at the first.
        resident: Whether to keep all images in memory; None does so if they take at most a quarter of it.
        white_value: See :func:`torchdl.data.image_files.decode`.
        max_pixels: The maximum number of pixels of a file, and of all files that are being decoded.

    Raises:
        InputError: As for :func:`list_files`; or a file cannot be read, or the images have different sizes.
    """
    root = Path(root)
    require_size(image_size, max_pixels)
    files, other = (list_files(root, part) for part in (split, "test" if split == "train" else "train"))
    headers = (read_header(path, max_pixels) for path in (*files.paths, *other.paths))
    grey = all(header is None or header.grey for header in headers)  # both splits get the same number of channels
    decoding = Decoding(image_size, grey, white_value, max_pixels)
    key = fingerprint(files, split, decoding, contents=_bytes(files) <= CHEAP)
    place = hashlib.sha256(f"{root.resolve()} {key} on white".encode("utf-8", "surrogateescape")).hexdigest()
    cached = cache_folder() / "folders" / f"{place}.safetensors"
    found = read_images(cached) if resident is not False else None
    damaged = found is None and resident is not False and cached.exists()
    if found is None:
        found = decode_all(files, decoding, skip_corrupt, resident)
        if found.images is not None:
            with contextlib.suppress(OSError, safetensors.SafetensorError):  # on a full disk: decode again next time
                write_cache(cached, {"images": found.images, "kept": found.kept}, json.dumps(found.corrupt))
    images: Tensor | DecodedLate | None = found.images
    if found.corrupt and not skip_corrupt:
        raise InputError(f"{found.corrupt[0]} cannot be read as an image: repair or remove it, {SKIP}")
    if images is None:
        paths = [files.paths[index] for index in found.kept.tolist()]
        digest = fingerprint(files, split, decoding, contents=True)
        images = DecodedLate(paths, found.shape, decoding, digest, found.hashes)
    notes = {
        f"passed over {named(files.misplaced, root)} not directly in a class's folder": files.misplaced,
        f"passed over {named(files.others, root, 'file')} without the name of an image": files.others,
        "the cached images were damaged and have been decoded again": damaged,
    }
    labels = torch.tensor(files.labels)[found.kept]
    return FolderImages(images, labels, files.classes, found.corrupt, [note for note, true in notes.items() if true])


def _bytes(files: Files) -> int:
    """Return the size of all files; those without a size, such as broken links, count as 0."""
    return sum(path.stat().st_size for path in files.paths if path.is_file())


def read_images(cached: Path) -> Decoded | None:
    """Read decoded images from the cache; None if they are not there, or damaged."""
    found = read_cache(cached)
    return None if found is None else Decoded(found[0]["images"], found[0]["kept"], json.loads(found[1]))


def decode_in_order(paths: Sequence[Path], decoding: Decoding) -> Generator[np.ndarray | InputError, None, None]:
    """Decode files in threads; yield arrays, or the errors of unreadable files.

    The files that are being decoded or wait to be used have ``max_pixels`` pixels at most, all together.
    """

    def attempt(path: Path) -> np.ndarray | InputError:
        try:
            return decode(path, *decoding)
        except InputError as error:
            return error

    waiting: deque[tuple[int, Future[np.ndarray | InputError]]] = deque()
    with ThreadPoolExecutor() as pool:
        try:
            for path in paths:
                header = read_header(path, decoding.max_pixels) or Header(grey=True, pixels=0)
                while waiting and (
                    len(waiting) == AHEAD or header.pixels + sum(pixels for pixels, _ in waiting) > decoding.max_pixels
                ):
                    yield waiting.popleft()[1].result()
                waiting.append((header.pixels, pool.submit(attempt, path)))
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            pool.shutdown(cancel_futures=True)  # on an error, skip the rest


def require_size(image_size: int | None, max_pixels: int) -> None:
    """Raise :class:`InputError` unless images can be resized to this side in pixels."""
    largest = math.isqrt(max(1, max_pixels))
    valid = image_size is None or (isinstance(image_size, (int, np.integer)) and 1 <= image_size <= largest)
    require(valid, f"image_size must be from 1 to {largest:,} pixels (max_pixels), not {image_size}")


def decode_all(
    files: Files, decoding: Decoding, skip_corrupt: bool, resident: bool | None, advice: str = f", {SKIP}"
) -> Decoded:
    """Decode every image once, to keep it or just to check that it can be read and has the same size as the others.

    An error for a file that cannot be read ends with ``advice``.
    """
    images: Tensor | None = None
    shape: tuple[int, ...] = ()
    kept: list[int] = []
    corrupt: list[str] = []
    seen: list[np.ndarray] = []
    bar = progress_bar(desc="decoding", total=len(files.paths), leave=False)
    with bar, contextlib.closing(decode_in_order(files.paths, decoding)) as decoded:
        for index, array in enumerate(decoded):
            bar.update()
            if isinstance(array, InputError):
                if not skip_corrupt:
                    raise InputError(f"{array}; repair or remove it{advice}")
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
            if images is None:
                seen.append(hashes(torch.from_numpy(array)[None]))
            else:
                images[len(kept)] = torch.from_numpy(array)
            kept.append(index)
    labels = {files.labels[index] for index in kept}
    for label, name in enumerate(files.classes):
        require(label in labels, f"no image of the class {name!r} can be read")
    if images is None:
        return Decoded(None, torch.tensor(kept), corrupt, shape, np.concatenate(seen))
    return Decoded(images[: len(kept)], torch.tensor(kept), corrupt)
