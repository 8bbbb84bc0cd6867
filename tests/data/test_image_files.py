from __future__ import annotations

import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from torchdl import InputError, load_images, pictures
from torchdl.data import folder as module

CLASSES = ("ant", "bee")
RAMP = np.arange(256).reshape(16, 16)


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """Keep this machine's own data and cache out of every test."""
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path) -> Path:
    """Write two grey images of 16 x 16 pixels for each class and part."""
    for split in ("train", "test"):
        for name in CLASSES:
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in (1, 2):
                Image.fromarray(np.roll(RAMP, number, 0).astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "images"


def tiff(greys: np.ndarray, bits: int, kind: int = 1, photometric: int = 1, most: int | None = None) -> bytes:
    """Write greys (H, W) as an uncompressed TIFF; ``kind`` 1 is unsigned, 2 signed, 3 floats."""
    height, width = greys.shape
    if bits == 12:
        packed = "".join("".join(f"{value:012b}" for value in row) for row in greys)
        data = int(packed, 2).to_bytes(len(packed) // 8, "big")
    else:
        data = greys.astype(f"<{'xuif'[kind]}{bits // 8}").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    tags |= {} if most is None else {281: most}
    tags[339] = kind
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


# --- greys of more than eight bits

WIDE = {
    "12 bits": tiff(RAMP * 16 + 7, 12),
    "16 bits": tiff(RAMP * 256 + 100, 16),
    "16 bits, white is 0": tiff(65535 - (RAMP * 256 + 100), 16, photometric=0),
    "16 bits of which 12 are said to be used": tiff(RAMP * 16, 16, most=4080),
    "32 bits from 0 to 255": tiff(RAMP, 32),
    "32 bits, signed": tiff(RAMP, 32, kind=2),
    "32 bits from 0 to 65535": tiff(RAMP * 257, 32),
    "16 bits in a PGM of 12": b"P5 16 16 4095\n" + (RAMP * 16 + 7).astype(">u2").tobytes(),
    "16 bits in a dark PGM": b"P5 16 16 65535\n" + (RAMP + 256 * 5 * (RAMP == 5)).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", WIDE)
def test_wide_greys_are_scaled_by_what_the_file_says(images, kind):
    (images / "train" / "ant" / "1.tif").write_bytes(WIDE[kind])
    found = load_images(images).images[1, 0].numpy().astype(int)
    expected = (RAMP == 5) * 5 + RAMP // 256 if "dark" in kind else RAMP
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tiff(RAMP * 16, 16), r"16 bits reach 4,080, .*white_value"),
        (tiff(RAMP, 16), r"16 bits reach 255, .*white_value"),
        (tiff(RAMP * 16, 32), r"32 bits reach 4,080, .*white_value"),
        (tiff(RAMP * 2**20, 32), r"32 bits reach 267,386,880, .*white_value"),
        (tiff(RAMP / 255, 32, kind=3), r"floats, .*white_value"),
        (tiff(RAMP - 9, 32, kind=2), r"not numbers from 0 up"),
    ],
    ids=["12 bits as 16", "8 bits as 16", "12 bits as 32", "more than 16 bits", "floats", "negative"],
)
def test_wide_greys_of_unknown_white_are_refused(images, data, said):
    path = images / "train" / "ant" / "1.tif"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{path} .*{said}"):
        load_images(images)
    assert len(load_images(images, skip_corrupt=True)) == 4


@pytest.mark.parametrize(
    ("data", "white"),
    [(tiff(RAMP * 16, 16), 4095), (tiff(RAMP / 255, 32, kind=3), 1.0), (tiff(RAMP * 4, 32), 1023)],
    ids=["12 bits as 16", "floats", "10 bits as 32"],
)
def test_the_value_of_white_can_be_named(images, data, white):
    (images / "train" / "ant" / "1.tif").write_bytes(data)
    found = load_images(images, white_value=white).images
    assert np.abs(found[1, 0].numpy().astype(int) - RAMP).max() <= 1
    assert torch.equal(found[0, 0], torch.from_numpy(np.roll(RAMP, 1, 0)))  # eight bits are as they are


def deep_png(colours: np.ndarray) -> bytes:
    """Write colours (H, W, 3) as a PNG of 16 bits a channel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_twelve_bits_in_sixteen_are_refused_instead_of_keeping_sixteen_levels(images):
    path, colours = images / "train" / "ant" / "1.png", np.repeat(RAMP[..., None], 3, 2)
    path.write_bytes(deep_png(colours * 257))
    assert np.array_equal(load_images(images).images[0].permute(1, 2, 0), colours)
    path.write_bytes(deep_png(colours * 16))
    with pytest.raises(InputError, match=f"{path} .*colours of 16 bits use no more than 12"):
        load_images(images)


# --- what Pillow cannot parse


def jpeg(exif: bytes = b"") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.stack([RAMP.astype(np.uint8)] * 3, 2)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def exif_of(orientation: int, denominator: int = 0) -> bytes:
    """Make EXIF data with an orientation and a rational that Pillow cannot write again."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHII", 0x011A, 10, 1, 38)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4) + struct.pack("<iI", -1, denominator)


@pytest.mark.parametrize("orientation", [1, 3])
def test_a_picture_is_read_and_turned_though_its_exif_cannot_be_written(images, orientation):
    (images / "train" / "ant" / "1.jpg").write_bytes(jpeg(exif_of(orientation)))
    plain = np.asarray(Image.open(io.BytesIO(jpeg())))
    expected = plain if orientation == 1 else plain[::-1, ::-1]
    assert np.array_equal(load_images(images).images[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize("error", [struct.error, ValueError, TypeError, ZeroDivisionError, KeyError, SyntaxError])
def test_exif_that_cannot_be_parsed_turns_nothing(images, monkeypatch, error):
    def fail(self):
        raise error("of EXIF")

    (images / "train" / "ant" / "1.jpg").write_bytes(jpeg(exif_of(3)))
    monkeypatch.setattr(Image.Image, "getexif", fail)
    plain = np.asarray(Image.open(io.BytesIO(jpeg())))
    assert np.array_equal(load_images(images).images[0].permute(1, 2, 0), plain)


ERRORS = [struct.error, NotImplementedError, RuntimeError, KeyError, IndexError, AttributeError, OverflowError]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("where", ["open", "load"])
def test_whatever_a_plugin_raises_the_file_is_named_or_left_out(images, monkeypatch, error, where):
    bad = images / "train" / "bee" / "1.png"
    opened, loaded = Image.open, ImageFile.ImageFile.load

    def open_(path, *args, **options):
        if where == "open" and Path(path) == bad:
            raise error("by a plugin")
        return opened(path, *args, **options)

    def load(self):
        if where == "load" and Path(self.filename) == bad:
            raise error("by a plugin")
        return loaded(self)

    monkeypatch.setattr(Image, "open", open_)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(InputError, match=f"{bad} cannot be read as an image: .*by a plugin"):
        load_images(images)
    found = load_images(images, skip_corrupt=True)
    assert len(found) == 3
    assert str(bad) in found.origin


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("name", ["1.png", "photo"])
def test_a_file_in_a_format_that_starts_other_programs_is_not_opened(images, monkeypatch, name):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    path = images / "train" / "ant" / name
    path.write_bytes(EPS)
    if name == "1.png":
        with pytest.raises(InputError, match=str(path)):
            load_images(images)
    else:
        assert "train/ant/photo" in load_images(images).origin


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_not_waited_for(images):
    os.mkfifo(images / "train" / "ant" / "9.png")
    os.mkfifo(images / "train" / "ant" / "pipe")
    with pytest.raises(InputError, match=r"9\.png .*not a file"):
        load_images(images)
    assert "train/ant/pipe" in load_images(images, skip_corrupt=True).origin


# --- sizes


def test_a_picture_of_too_many_pixels_is_named_before_it_is_decoded(images):
    path = images / "train" / "bee" / "9.png"
    Image.new("L", (400, 300)).save(path)
    with pytest.raises(InputError, match=f"{path} .*400 x 300 pixels, more than max_pixels=100,000"):
        load_images(images, image_size=16, max_pixels=100_000)
    assert len(load_images(images, image_size=16, skip_corrupt=True, max_pixels=100_000)) == 4
    assert len(load_images(images, image_size=16, max_pixels=120_000)) == 5


def test_a_picture_beyond_pillows_own_limit_is_refused_in_the_same_words_and_read_if_asked_for(images, monkeypatch):
    path = images / "train" / "bee" / "9.png"
    Image.new("L", (300, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # errors begin at twice as many
    monkeypatch.setattr(pictures, "MAX_PIXELS", 5_000)
    with pytest.raises(InputError, match=f"{path} .*more pixels than max_pixels=5,000"):
        load_images(images, image_size=16, max_pixels=5_000)
    assert Image.MAX_IMAGE_PIXELS == 10_000
    assert len(load_images(images, image_size=16, max_pixels=30_000)) == 5


def test_resizing_a_long_picture_takes_no_more_pixels_either(images):
    path = images / "train" / "bee" / "9.png"
    Image.new("L", (1, 10_000)).save(path)
    with pytest.raises(InputError, match=r"resizing it takes 500,000 pixels, more than max_pixels=100,000"):
        load_images(images, image_size=50, max_pixels=100_000)
    with pytest.raises(InputError, match="image_size must be from 1 to 316 pixels"):
        load_images(images, image_size=317, max_pixels=100_000)


def test_files_being_decoded_or_waiting_have_a_bounded_number_of_pixels(images, monkeypatch):
    for number in range(10, 30):
        Image.new("L", (100, 10)).save(images / "train" / "ant" / f"{number}.png")
    lock, now, most, decode = threading.Lock(), 0, 0, module.decode

    def counted(path, *options):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return decode(path, *options)

    monkeypatch.setattr(module, "decode", counted)
    assert len(load_images(images, image_size=16, max_pixels=2000)) == 24
    assert 1 <= most <= 2 + 2  # two of 1,000 pixels, or the smaller ones


# --- which files are read


def test_every_common_suffix_is_read_and_a_file_without_one_by_what_it_holds(images):
    picture = Image.fromarray(RAMP.astype(np.uint8))
    for name, kind in (("3.jfif", "JPEG"), ("4.jpe", "JPEG"), ("5.pnm", "PPM"), ("6", "PNG"), ("deadbeef", "GIF")):
        picture.save(images / "train" / "ant" / name, kind)
    found = load_images(images)
    assert found.labels.tolist() == [0] * 7 + [1] * 2
    assert found.origin == f"9 images from {images / 'train'}"


def test_an_avif_is_read_where_pillow_can(images):
    from PIL import features

    path = images / "train" / "ant" / "3.avif"
    if "avif" in features.get_supported():
        Image.fromarray(RAMP.astype(np.uint8)).convert("RGB").save(path, quality=100)
        assert len(load_images(images)) == 5
    path.write_bytes(b"\0\0\0\x1cftypavif")
    with pytest.raises(InputError, match=str(path)):
        load_images(images)


def test_what_is_passed_over_is_counted_and_named(images):
    picture = Image.fromarray(RAMP.astype(np.uint8))
    before = load_images(images)
    for place in ("ant/more", "ant/more/deep", "bee/x", "."):
        (images / "train" / place).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            picture.save(images / "train" / place / f"{number}.png")
    for name in ("notes.txt", "photo.heic", "none", ".hidden.txt"):
        (images / "train" / "bee" / name).write_bytes(b"no image")
    (images / "train" / "bee" / "elsewhere").symlink_to(images / "test")
    found = load_images(images)
    assert torch.equal(found.images, before.images)
    assert "passed over 8 images (train/0.png, train/1.png, train/ant/more/0.png" in found.origin
    assert "and 3 more) not directly in a class's folder" in found.origin
    files = "train/bee/elsewhere, train/bee/none, train/bee/notes.txt, train/bee/photo.heic"
    assert f"passed over 4 files ({files}) without the name of an image" in found.origin
    assert "passed over" not in load_images(images, "test").origin


def test_a_class_whose_images_lie_deeper_is_refused_with_their_names(images):
    (images / "train" / "bee" / "more").mkdir()
    for number in (1, 2):
        (images / "train" / "bee" / f"{number}.png").rename(images / "train" / "bee" / "more" / f"{number}.png")
    with pytest.raises(InputError, match=r"train/bee is empty: .*move up the 2 images \(train/bee/more/1\.png"):
        load_images(images)


def test_file_names_that_are_no_utf8_are_read(images):
    path = os.path.join(os.fsencode(images / "train" / "ant"), b"\xff.png")
    with open(path, "wb") as file:
        Image.fromarray(RAMP.astype(np.uint8)).save(file, "PNG")
    for _ in range(2):
        assert len(load_images(images)) == 5


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_black_drawing_on_nothing_is_read_as_it_looks_on_white(images, mode):
    opacity = Image.fromarray(RAMP.astype(np.uint8))
    drawing = Image.new("RGBA", (16, 16))  # black, also where nothing is to be seen
    drawing.putalpha(opacity if mode != "P" else opacity.point(lambda value: 255 * (value > 99)))
    path = images / "train" / "ant" / "1.png"
    drawing.quantize(4).save(path) if mode == "P" else drawing.convert(mode).save(path)
    seen = 255 - RAMP if mode != "P" else np.where(RAMP > 99, 0, 255)
    assert np.abs(load_images(images).images[0, 0].numpy().astype(int) - seen).max() <= 1
