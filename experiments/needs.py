"""What an experiment needs that may be missing here, and how to get it."""

from __future__ import annotations

import importlib.util
import os

from experiments.machine import gpu
from torchdl.data.course_files import FILES as FILE_SOURCES, find_file
from torchdl.data.movielens import MOVIELENS, find_ratings
from torchdl.data.sources import FILES, SOURCES, data_roots, find
from torchdl.errors import InputError

PACKAGES = {  # how to install them, by the name to import
    "keras": "pip install -e '.[test]'",
    "torchvision": "pip install torchvision",
    "jax": "pip install -e '.[bench]'",
    "lightning": "pip install -e '.[bench]'",
    "efficientnet_lite_pytorch": "pip install -e '.[transfer]'",
    "seglearn": "pip install -e '.[signals]'",
}
CUDA = "cuda"
FOLDERS = {"cifar10-jpeg": "CIFAR-10 as JPEG files of Pillow's default quality"}


def lacking(need: str, root: str | os.PathLike[str] | None = None) -> str:
    """Return how to get a data set, a package or a device that is missing; an empty string if it is there."""
    if need in PACKAGES:
        there = importlib.util.find_spec(need) is not None
        return "" if there else f"the package {need} is not installed: {PACKAGES[need]}"
    if need == CUDA:
        return "" if gpu() else "a CUDA device is missing: on a CPU it would take hours"
    place = data_roots(root)[0]
    if need in SOURCES:
        source = SOURCES[need]
        if all(find(source, split, root) for split in FILES):
            return ""
        names = ", ".join(name for pair in FILES.values() for name in pair)
        return (
            f"{need} was not found: put {names} (gzipped or not; {source.mirrors[0]}) into {place / source.folder}/raw"
        )
    if need in FOLDERS:
        if any((r / need / "train").is_dir() for r in data_roots(root)):
            return ""
        return f"{FOLDERS[need]}: put the images into {place / need}/train/<class>/ and {place / need}/test/<class>/"
    try:
        if need in MOVIELENS:
            find_ratings(need, root, fetch=False)
        else:
            find_file(need, root, fetch=False)
    except InputError as error:
        url = MOVIELENS[need].url if need in MOVIELENS else FILE_SOURCES[need].urls[0]
        return f"{error} ({url})"
    return ""
