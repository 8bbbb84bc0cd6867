"""The frames of recordings, which are folders of images, in sequences for contrastive predictive coding."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from torchdl.data import folder as image_folder
from torchdl.data.arrays import ArrayLike
from torchdl.data.folder import DecodedLate, Files, decode_all, folders_in, images_in, named
from torchdl.data.image_files import Decoding, read_header
from torchdl.data.images import ImageDataset
from torchdl.data.ordered_sequences import OrderedSequences
from torchdl.errors import require
from torchdl.files import PathLike
from torchdl.pictures import MAX_PIXELS


def in_natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts names by the numbers in them: ``frame2.png`` comes before ``frame10.png``.

    Example:
        >>> from torchdl.data.frame_sequences import in_natural_order
        >>> sorted(["b1", "a10", "a9", "a09"], key=in_natural_order)
        ['a09', 'a9', 'a10', 'b1']
    """
    parts = [part for part in re.split("([0-9]+)", name.casefold()) if part]
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], name


class FrameSequences(OrderedSequences):
    """Sequences of frames of a recording, a folder of images in the natural order of their names (2 before 10).

    If the folder has folders instead of images, each of them is a recording, and no sequence is in two. The images are
    in grey if all files are. They are kept in memory if they fit, and otherwise decoded for each batch.
    :class:`OrderedSequences` says how recordings are cut into sequences, and what the loader needs.

    Args:
        folder: The folder.
        terms: T, the number of frames of context.
        predict_terms: K, the number of frames of future.
        step: The distance from one frame of a sequence to the next; 2 takes every other one.
        image_size: The side in pixels to which every image is resized; None if all have the same size.
        low: The new value of black pixels.
        high: The new value of white pixels.
        labels: A class for each recording or for each frame; None without classes.
        seed: The seed of the places and of the order.
        max_pixels: The maximum width times height of an image.

    ``recordings`` has the names of the recordings, and ``items`` all frames in order, an :class:`ImageDataset`.

    Raises:
        InputError: There are no images, a recording is too short, or an image cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> from torchdl.pictures import save_png
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for number in range(1, 13):
        ...     save_png(torch.full((1, 16, 16), 20 * number, dtype=torch.uint8), folder / f"{number}.png", scale=1)
        >>> frames = torchdl.FrameSequences(folder, terms=3, predict_terms=1)
        >>> context, future = frames[0]
        >>> context.shape, future.shape
        (torch.Size([3, 1, 16, 16]), torch.Size([1, 1, 16, 16]))
        >>> (context[:, 0, 0, 0] * 12.75).round()  # the numbers of the frames
        tensor([3., 4., 5.])
    """

    nouns = "frames", "step"

    def __init__(
        self,
        folder: PathLike,
        terms: int = 4,
        predict_terms: int = 4,
        step: int = 1,
        image_size: int | None = None,
        low: float = 0.0,
        high: float = 1.0,
        labels: ArrayLike | None = None,
        seed: int = 0,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        found = recordings_in(Path(folder))
        self.recordings = tuple(found)
        paths = [path for frames in found.values() for path in frames]
        lengths = [len(frames) for frames in found.values()]
        items = read_frames(paths, image_size, low, high, max_pixels, os.fspath(folder))
        super().__init__(items, terms, predict_terms, step, lengths, labels, seed)


def recordings_in(folder: Path) -> dict[str, list[Path]]:
    """Return the frames of each recording in a folder, by the recording's name.

    Raises:
        InputError: There is no such folder, it has images beside folders, or a recording has no images.
    """
    require(folder.is_dir(), f"there is no folder {folder}: name a folder of images, or of folders of images")
    advice = "put each recording's images into a folder of its own"
    parts = sorted(folders_in(folder), key=lambda path: in_natural_order(path.name))
    found = {part: images_in(part) for part in [folder, *parts]}
    for place, frames in found.items():
        mixed = f"{place} has both folders and {named(frames, place)}: {advice}"
        require(not (frames and folders_in(place)), mixed)
    if parts:
        del found[folder]
    for place, frames in found.items():
        require(len(frames) > 0, f"{place} has no images: {advice}, with names like frame2.png, frame10.png")
        frames.sort(key=lambda path: in_natural_order(path.name))
    return {place.name: frames for place, frames in found.items()}


def read_frames(
    paths: Sequence[Path], image_size: int | None, low: float, high: float, max_pixels: int, origin: str
) -> ImageDataset:
    """Read images of one size in the order of their paths, without labels."""
    image_folder.require_size(image_size, max_pixels)
    headers = (read_header(path, max_pixels) for path in paths)
    decoding = Decoding(image_size, all(header is None or header.grey for header in headers), None, max_pixels)
    files = Files(list(paths), [0] * len(paths), ("frames",), [], [])
    found = decode_all(files, decoding, skip_corrupt=False, resident=None, advice="")
    if found.images is not None:
        return ImageDataset(found.images, None, low, high, origin=origin)
    digest = image_folder.fingerprint(files, "frames", decoding, contents=True)
    of_names = hashlib.sha256(f"{digest} {[path.parent.name for path in paths]}".encode("utf-8", "surrogateescape"))
    late = DecodedLate(paths, found.shape, decoding, of_names.hexdigest(), found.hashes)
    return ImageDataset(late, None, low, high, origin=origin)
