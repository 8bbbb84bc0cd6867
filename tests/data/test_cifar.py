from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.servers import FolderServer, serving

from torchdl import InputError, load_images
from torchdl.data.download import NotFound, download
from torchdl.data.sources import CIFAR, load_cifar, load_labelled

torchvision = pytest.importorskip("torchvision")

ORIGINAL = dict(CIFAR)
SPLITS = {
    "cifar10": {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]},
    "cifar100": {"train": ["train"], "test": ["test"]},
}
NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "cifar100": [f"class {i}" for i in range(100)],
}


class Made(NamedTuple):
    """A tiny set: its files, the archive of them, and what is in its splits."""

    files: dict[str, bytes]
    archive: bytes
    images: dict[str, np.ndarray]
    labels: dict[str, list[int]]


def make(name: str) -> Made:
    """Write the format by its description: rows of 1,024 red, 1,024 green, 1,024 blue, row by row of the picture."""
    rng = np.random.default_rng(len(name))
    key, meta = {"cifar10": ("labels", "label_names"), "cifar100": ("fine_labels", "fine_label_names")}[name]
    files: dict[str, bytes] = {}
    images: dict[str, np.ndarray] = {}
    labels: dict[str, list[int]] = {}
    for split, parts in SPLITS[name].items():
        pixels, numbers = [], []
        for part in parts:
            images_of_part = rng.integers(0, 256, (4, 3, 32, 32), np.uint8)
            labels_of_part = rng.integers(0, len(NAMES[name]), 4).tolist()
            entry: dict[str, Any] = {"data": images_of_part.reshape(4, 3072), key: labels_of_part}
            if name == "cifar100":
                entry["coarse_labels"] = [0] * 4
            files[part] = pickle.dumps(entry)
            pixels.append(images_of_part)
            numbers += labels_of_part
        images[split], labels[split] = np.concatenate(pixels), numbers
    files["batches.meta" if name == "cifar10" else "meta"] = pickle.dumps({meta: NAMES[name]})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for file, data in files.items():
            member = tarfile.TarInfo(f"{ORIGINAL[name].folder}/{file}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return Made(files, packed.getvalue(), images, labels)


MADE = {name: make(name) for name in ORIGINAL}
both = pytest.mark.parametrize("name", ORIGINAL)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(FolderServer(folder)) as server:
        yield server


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path, server):
    """Have torchvision and torchdl expect the tiny sets, at the local server, and keep this machine's own out."""
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    for name, source in ORIGINAL.items():
        made, reader = MADE[name], getattr(torchvision.datasets, source.reader)
        url = f"{server.url}/{source.url.rpartition('/')[2]}"
        for split, parts in SPLITS[name].items():
            monkeypatch.setattr(reader, f"{split}_list", [[part, md5(made.files[part])] for part in parts])
        monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(made.files[reader.meta["filename"]])})
        monkeypatch.setattr(reader, "tgz_md5", md5(made.archive))
        monkeypatch.setattr(reader, "url", url)
        sha256 = hashlib.sha256(made.archive).hexdigest()
        monkeypatch.setitem(CIFAR, name, dataclasses.replace(source, url=url, sha256=sha256))


def archive(name: str) -> str:
    return ORIGINAL[name].url.rpartition("/")[2]


def unpack(name: str, root: Path) -> Path:
    folder = root / ORIGINAL[name].folder
    folder.mkdir(parents=True)
    for file, data in MADE[name].files.items():
        (folder / file).write_bytes(data)
    return folder


def pack(name: str, folder: Path, data: bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / archive(name)).write_bytes(MADE[name].archive if data is None else data)
    return folder / archive(name)


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def assert_right(name: str, split: str, root: Path, **options) -> None:
    found = load_labelled(name, split, root, **options)
    assert found.images.shape == (len(MADE[name].images[split]), 3, 32, 32)
    assert found.images.dtype == torch.uint8
    assert found.images.is_contiguous()
    assert np.array_equal(found.images, MADE[name].images[split])
    assert found.labels.tolist() == MADE[name].labels[split]
    assert found.labels.dtype == torch.int64
    assert found.classes == tuple(NAMES[name])
    assert not found.fallback


# --- what is on this machine


@both
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_are_those_of_the_files_with_their_labels_and_names(tmp_path, server, name, split):
    folder = unpack(name, tmp_path / "root")
    assert_right(name, split, tmp_path / "root", fetch=False)
    count = len(MADE[name].labels[split])
    assert load_cifar(name, split, tmp_path / "root", False).origin == f"{count} images from {folder}"
    assert server.asked == []
    assert files_below(tmp_path / "root") == sorted(MADE[name].files)


@both
def test_they_are_given_as_any_images(tmp_path, name):
    unpack(name, tmp_path / "root")
    data = load_images(name, "test", tmp_path / "root", low=-1, high=1, fetch=False)
    assert data.image_shape == (3, 32, 32)
    assert (len(data), data.classes) == (4, tuple(NAMES[name]))
    images, labels = data[:]
    expected = torch.from_numpy(MADE[name].images["test"] * (2 / 255) - 1).float()
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert labels.tolist() == MADE[name].labels["test"]


@pytest.mark.parametrize("where", ["argument", "environment", "cache"])
def test_every_data_root_is_looked_in(tmp_path, monkeypatch, where):
    root = {"argument": "root", "environment": "environment", "cache": "cache/torchdl"}[where]
    unpack("cifar10", tmp_path / root)
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "environment"))
    assert_right("cifar10", "test", tmp_path / "root", fetch=False)


def test_the_root_that_is_named_comes_first(tmp_path, monkeypatch):
    for place in ("root", "environment"):
        unpack("cifar10", tmp_path / place)
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "environment"))
    assert str(tmp_path / "root") in load_labelled("cifar10", "test", tmp_path / "root", fetch=False).origin
    assert str(tmp_path / "environment") in load_labelled("cifar10", "test", fetch=False).origin


@both
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "missing"])
@pytest.mark.parametrize("part", [0, -2, -1])  # of training, of testing, of the classes' names
def test_a_damaged_file_is_one_sentence_with_the_remedy(tmp_path, server, name, split, damage, part):
    folder = unpack(name, tmp_path / "root")
    path = folder / list(MADE[name].files)[part]
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"changed": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "cut": data[:-1], "empty": b""}[damage]
        )
    with pytest.raises(InputError) as caught:
        load_labelled(name, split, tmp_path / "root")
    sentence = str(caught.value)
    for part in (name, str(tmp_path / "root"), "damaged", ORIGINAL[name].folder, archive(name)):
        assert part in sentence
    assert "\n" not in sentence
    assert server.asked == []


@both
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_archive_put_into_a_data_root_is_unpacked(tmp_path, server, name, split):
    pack(name, tmp_path / "root")
    assert_right(name, split, tmp_path / "root", fetch=False)
    assert server.asked == []
    assert files_below(tmp_path / "root" / ORIGINAL[name].folder) == sorted(MADE[name].files)
    (tmp_path / "root" / archive(name)).unlink()  # which is not needed any more
    assert_right(name, split, tmp_path / "root", fetch=False)


@pytest.mark.parametrize("where", ["environment", "cache"])
def test_an_archive_is_unpacked_where_it_lies(tmp_path, monkeypatch, where):
    place = tmp_path / {"environment": "environment", "cache": "cache/torchdl"}[where]
    pack("cifar10", place)
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "environment"))
    assert_right("cifar10", "test", tmp_path / "root", fetch=False)
    assert (place / ORIGINAL["cifar10"].folder).is_dir()
    assert not (tmp_path / "root").exists()


def test_a_folder_unpacked_by_half_is_mended_from_the_archive(tmp_path, server):
    folder = unpack("cifar10", tmp_path / "root")
    (folder / "data_batch_5").unlink()
    (folder / "test_batch").write_bytes(b"")
    pack("cifar10", tmp_path / "root")
    assert_right("cifar10", "train", tmp_path / "root", fetch=False)
    assert server.asked == []


@pytest.mark.parametrize("damage", [b"", b"<html>", MADE["cifar10"].archive[:-30]], ids=["empty", "garbage", "cut"])
def test_a_damaged_archive_is_an_error_and_nothing_is_asked_for_behind_ones_back(tmp_path, server, damage):
    path = pack("cifar10", tmp_path / "root", damage)
    pack("cifar10", server.folder)
    with pytest.raises(InputError, match=rf"cifar10 .*{tmp_path / 'root'} .*damaged .*cifar-10-python"):
        load_labelled("cifar10", "train", tmp_path / "root", fetch=False)
    assert server.asked == []
    assert path.read_bytes() == damage


# --- what is downloaded


@both
@pytest.mark.parametrize("root", ["root", None])
def test_a_missing_set_is_downloaded_and_unpacked_once(tmp_path, server, name, root):
    pack(name, server.folder)
    place = tmp_path / root if root else tmp_path / "cache" / "torchdl"
    for split in ("train", "test"):
        assert_right(name, split, tmp_path / root if root else None)
    assert server.asked == [f"/{archive(name)}"]
    assert files_below(place) == sorted([*MADE[name].files, archive(name)])


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_set_that_is_not_there_and_not_to_be_fetched_is_one_sentence(tmp_path, monkeypatch, server, name):
    pack(name, server.folder)
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "environment"))
    root, environment, cache = (tmp_path / place for place in ("root", "environment", "cache/torchdl"))
    with pytest.raises(NotFound) as caught:
        load_labelled(name, "test", root, fetch=False)
    for part in (name, f"{root}, {environment}, {cache}", "turned off", f"{archive(name)}, ", f"into {root}"):
        assert part in str(caught.value)
    assert server.asked == []
    assert not root.exists()


def test_a_download_that_fails_says_why_and_what_to_do(tmp_path, server):
    with pytest.raises(InputError) as caught:
        load_labelled("cifar10", "train", tmp_path / "root")
    sentence = str(caught.value)
    for part in (
        f"cifar10 was not found in {tmp_path / 'root'}",
        f"{server.url}/cifar-10-python.tar.gz: ",
        "File not found",
        f"into {tmp_path / 'root'}",
    ):
        assert part in sentence
    assert "\n" not in sentence
    assert not files_below(tmp_path / "root")


@pytest.mark.parametrize(
    "wrong",
    [b"", b"<html>", MADE["cifar10"].archive[:-1], MADE["cifar100"].archive],
    ids=["empty", "html", "cut", "other"],
)
def test_what_has_another_sha256_is_refused_and_nothing_is_left(tmp_path, server, wrong):
    pack("cifar10", server.folder, wrong)
    expected = hashlib.sha256(MADE["cifar10"].archive).hexdigest()
    found = hashlib.sha256(wrong).hexdigest()
    with pytest.raises(InputError, match=f"SHA-256 {found[:12]}.*{expected[:12]}"):
        load_labelled("cifar10", "train", tmp_path / "root")
    assert not files_below(tmp_path / "root")
    pack("cifar10", server.folder)
    assert_right("cifar10", "train", tmp_path / "root")


def test_an_archive_is_downloaded_as_it_is_and_not_unpacked(tmp_path, server):
    data = MADE["cifar10"].archive
    pack("cifar10", server.folder)
    path = tmp_path / "new" / "x.tar.gz"
    download(
        [f"{server.url}/none.tar.gz", f"{server.url}/{archive('cifar10')}"], path, hashlib.sha256(data).hexdigest()
    )
    assert path.read_bytes() == data
    assert files_below(tmp_path / "new") == ["x.tar.gz"]


def test_a_root_that_cannot_be_written_to_is_refused(tmp_path, server):
    pack("cifar10", server.folder)
    (tmp_path / "file").touch()  # a file where a folder should be; permissions do not stop root
    with pytest.raises(InputError, match="cannot be written"):
        load_labelled("cifar10", "train", tmp_path / "file" / "root")


def test_a_root_where_nothing_can_be_unpacked_is_not_called_damaged(tmp_path):
    pack("cifar10", tmp_path / "root")
    (tmp_path / "root" / "cifar-10-batches-py").touch()  # a file where the folder should be
    with pytest.raises(InputError) as caught:
        load_labelled("cifar10", "train", tmp_path / "root")
    assert str(tmp_path / "root") in str(caught.value)
    assert "\n" not in str(caught.value)


@both
def test_an_unknown_split_is_refused(name):
    with pytest.raises(InputError, match=r"'valid'.*train or test"):
        load_labelled(name, "valid")


# --- what the real ones are


@both
def test_our_addresses_and_folders_are_torchvisions(monkeypatch, name):
    monkeypatch.undo()
    ours, theirs = ORIGINAL[name], getattr(torchvision.datasets, ORIGINAL[name].reader)
    assert ours.url == theirs.url
    assert ours.url.rpartition("/")[2] == theirs.filename
    assert ours.folder == theirs.base_folder
    assert len(bytes.fromhex(ours.sha256)) == 32
    assert CIFAR[name] == ours
