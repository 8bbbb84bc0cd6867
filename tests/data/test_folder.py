from __future__ import annotations

import io
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from helpers import gaussian
from PIL import Image

from torchdl import BatchLoader, ImageDataset, InputError, ShiftedImages, load_images
from torchdl.data import folder as module
from torchdl.data.folder import DecodedLate, FolderImages, read_folder

REAL_DATA = os.environ.get("TORCHDL_DATA")
CLASSES = ("ant", "bee", "cat")
HEIGHT, WIDTH = 5, 7


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """Keep this machine's own data and cache out of every test."""
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (HEIGHT, WIDTH, 3), np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def make(root: Path, suffix: str = ".png", grey: bool = False) -> Path:
    """Write three training and two test images of each class, all different, the last class first."""
    for number, name in enumerate(reversed(CLASSES)):
        for split, count in (("train", 3), ("test", 2)):
            for i in reversed(range(count)):
                pixels = noise(100 * number + 10 * i + len(split))
                save(root / split / name / f"{i}{suffix}", pixels[..., 0] if grey else pixels)
    return root


@pytest.fixture
def images(tmp_path) -> Path:
    return make(tmp_path / "images")


def files_of(root: Path, split: str = "train") -> list[Path]:
    """List the files as a data set has them, from the names alone."""
    return [path for name in CLASSES for path in sorted((root / split / name).iterdir())]


def decoded(paths: list[Path], size: int | None = None, mode: str = "RGB") -> torch.Tensor:
    """Decode with nothing but Pillow, one file at a time."""
    arrays = []
    for path in paths:
        picture = Image.open(path).convert(mode)
        if size is not None:
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        arrays.append(np.asarray(picture).reshape(picture.height, picture.width, -1).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(arrays))


def everything(found: FolderImages) -> torch.Tensor:
    return found.images.index_select(0, torch.arange(len(found.images)))


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def forbid_decoding(monkeypatch) -> None:
    def decode(*_):
        raise AssertionError("a file was decoded")

    monkeypatch.setattr(module, "decode", decode)


# --- what is read


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".JPG", ".jpeg", ".gif", ".ppm", ".tif", ".webp"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_are_the_files_class_by_class_in_the_order_of_their_names(tmp_path, split, suffix):
    root = make(tmp_path / "images", suffix)
    found = load_images(root, split, low=-1)
    each = {"train": 3, "test": 2}[split]
    assert found.classes == CLASSES
    assert found.labels.tolist() == [label for label in range(3) for _ in range(each)]
    assert found.labels.dtype == torch.int64
    assert found.image_shape == (3, HEIGHT, WIDTH)
    assert found.images.dtype == torch.uint8
    assert torch.equal(found.images, decoded(files_of(root, split)))
    assert found.origin == f"{3 * each} images from {root / split}"
    assert not found.fallback
    batch, labels = found.__getitems__([3, 0])
    torch.testing.assert_close(batch, found.images[[3, 0]].float() * 2 / 255 - 1, rtol=0, atol=1e-6)
    assert labels.tolist() == [3 // each, 0]


def test_the_pixels_are_those_that_were_saved(images):
    # class "ant" was written last, so it is number 2 in `make`
    assert np.array_equal(load_images(images).images[1].permute(1, 2, 0), noise(200 + 10 + len("train")))


def test_images_are_resized_to_a_square(images):
    found = load_images(images, image_size=4)
    assert found.image_shape == (3, 4, 4)
    assert torch.equal(found.images, decoded(files_of(images), 4))


def test_images_without_colours_have_one_channel(tmp_path):
    root = make(tmp_path / "images", grey=True)
    for split in ("train", "test"):
        found = load_images(root, split)
        assert found.image_shape == (1, HEIGHT, WIDTH)
        assert torch.equal(found.images, decoded(files_of(root, split), mode="L"))
    assert torch.equal(load_images(root, image_size=3).images, decoded(files_of(root), 3, "L"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_coloured_image_in_either_part_makes_all_of_both_coloured(tmp_path, split):
    root = make(tmp_path / "images", grey=True)
    for part in ("train", "test"):  # and keeps a copy
        assert load_images(root, part).image_shape[0] == 1
    save(root / split / "bee" / "1.png", noise(1))
    for part in ("train", "test"):
        assert torch.equal(load_images(root, part).images, decoded(files_of(root, part)))


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Do what EXIF's orientation says is to be done to a picture (H, W, C) before it is shown."""
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels, 1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_lies_on_its_side_by_its_exif_is_turned(images, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = noise(5)
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    save(images / "train" / "ant" / "1.png", orient(upright, inverse), exif=exif)
    found = load_images(images)
    assert np.array_equal(found.images[1].permute(1, 2, 0), upright)


def palette(path: Path) -> np.ndarray:
    colours, numbers = noise(1, 16, 3), noise(2, HEIGHT, WIDTH) % 16
    picture = Image.fromarray(numbers).convert("P")
    picture.putdata(numbers.flatten().tolist())
    picture.putpalette(colours.flatten().tolist())
    picture.save(path)
    return colours[numbers]


def on_white(pixels: np.ndarray) -> np.ndarray:
    opacity = pixels[..., -1:] / 255
    return np.round(pixels[..., :-1] * opacity + 255 * (1 - opacity)).astype(np.uint8)


def transparent(path: Path) -> np.ndarray:
    pixels = noise(3, HEIGHT, WIDTH, 4)
    save(path, pixels)
    return on_white(pixels)


def black_and_white(path: Path) -> np.ndarray:
    bits = noise(4, HEIGHT, WIDTH) > 127
    Image.fromarray(bits).save(path)
    return np.repeat(255 * bits[..., None], 3, 2)


def grey(path: Path) -> np.ndarray:
    pixels = noise(5, HEIGHT, WIDTH)
    save(path, pixels)
    return np.repeat(pixels[..., None], 3, 2)


def transparent_grey(path: Path) -> np.ndarray:
    pixels = noise(6, HEIGHT, WIDTH, 2)
    Image.fromarray(pixels, "LA").save(path)
    return np.repeat(on_white(pixels), 3, 2)


def printed(path: Path) -> np.ndarray:
    inks = noise(7, HEIGHT, WIDTH, 4)
    inks[..., 3] = 0  # no black: each ink takes away its own colour
    Image.fromarray(inks, "CMYK").save(path, "TIFF")
    return 255 - inks[..., :3]


MODES = {"P": palette, "RGBA": transparent, "1": black_and_white, "L": grey, "LA": transparent_grey, "CMYK": printed}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_every_kind_become_rgb_among_coloured_ones(images, mode):
    path = images / "train" / "bee" / f"0.{'tif' if mode == 'CMYK' else 'png'}"
    (images / "train" / "bee" / "0.png").unlink()
    expected = MODES[mode](path)
    assert Image.open(path).mode == mode
    assert np.array_equal(load_images(images).images[3].permute(1, 2, 0), expected)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_the_grey_kinds_alone_keep_a_set_grey(tmp_path, mode):
    root = make(tmp_path / "images", ".tif" if mode == "CMYK" else ".png", grey=True)
    expected = MODES[mode](files_of(root)[3])
    found = load_images(root)
    if mode in ("1", "L", "LA"):
        assert found.image_shape == (1, HEIGHT, WIDTH)
        assert np.array_equal(found.images[3, 0], expected[..., 0])
    else:
        assert found.image_shape == (3, HEIGHT, WIDTH)
        assert np.array_equal(found.images[3].permute(1, 2, 0), expected)


@pytest.mark.parametrize("among", ["grey", "coloured"])
@pytest.mark.parametrize(("suffix", "order"), [(".png", "<"), (".tif", "<"), (".tif", ">")])
def test_wide_greys_keep_their_contrast(tmp_path, among, suffix, order):
    root = make(tmp_path / "images", suffix, grey=among == "grey")
    wide = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    save(root / "train" / "bee" / f"0{suffix}", wide.astype(f"{order}u2"))
    found = load_images(root)
    assert found.image_shape[0] == {"grey": 1, "coloured": 3}[among]
    for channel in found.images[3]:
        assert np.abs(channel.numpy() - wide / 257).max() <= 1  # a 16-bit picture as bytes, not white all over


def test_what_is_hidden_or_no_image_is_passed_over(images):
    expected = load_images(images)
    for path in (
        images / "README.txt",
        images / ".DS_Store",
        images / "train" / "Thumbs.db",
        images / "train" / "stray.png",
        images / "train" / ".ipynb_checkpoints" / "0.png",
        images / "train" / "ant" / ".hidden.png",
        images / "train" / "ant" / "notes.txt",
        images / "train" / "ant" / "no suffix",
        images / "valid" / "dog" / "0.png",
    ):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("no image")
    found = load_images(images)
    assert found.classes == CLASSES
    assert torch.equal(found.images, expected.images)


# --- where it is looked for


@pytest.mark.parametrize("where", ["argument", "environment", "here"])
def test_a_folder_is_found_by_its_name_within_a_data_root_or_from_here(tmp_path, monkeypatch, where):
    root = make(tmp_path / "roots" / "pets" / "small")
    if where == "environment":
        monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "roots"))
    if where == "here":
        monkeypatch.chdir(tmp_path / "roots")
    found = load_images("pets/small", root=tmp_path / "roots" if where == "argument" else None)
    assert torch.equal(found.images, decoded(files_of(root)))


def test_a_folder_from_here_comes_first_then_the_root_named_then_the_environments(tmp_path, monkeypatch):
    sizes = {"here": 2, "argument": 3, "environment": 4}
    for place, size in sizes.items():
        for split in ("train", "test"):
            for name in CLASSES:
                save(tmp_path / place / "pets" / split / name / "0.png", noise(0, size, size, 3))
    monkeypatch.setenv("TORCHDL_DATA", str(tmp_path / "environment"))
    argument = tmp_path / "argument"
    monkeypatch.chdir(tmp_path)
    assert load_images("pets").image_shape == (3, 4, 4)
    assert load_images("pets", root=argument).image_shape == (3, 3, 3)
    monkeypatch.chdir(tmp_path / "here")
    assert load_images("pets", root=argument).image_shape == (3, 2, 2)
    assert load_images(tmp_path / "environment" / "pets", root=argument).image_shape == (3, 4, 4)


@pytest.mark.parametrize("image_size", [None, 4])
@pytest.mark.parametrize("name", ["nowhere", "./nowhere/else", "/nowhere", ""])
def test_a_name_that_is_no_folder_and_no_data_set_is_refused_with_what_there_is(name, image_size):
    with pytest.raises(InputError, match=r"data set .*mnist, .*train/<class>"):
        load_images(name, image_size=image_size)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "mnist_5k"])
def test_a_named_set_is_not_resized(name):
    with pytest.raises(InputError, match="image_size"):
        load_images(name, fetch=False, image_size=28)


def test_a_data_sets_name_is_not_taken_for_a_folder_from_here(tmp_path, monkeypatch):
    make(tmp_path / "cifar10")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cifar10"):
        load_images("cifar10", fetch=False)
    assert len(load_images("./cifar10")) == 9


# --- folders that are not as they should be


def remove(path: Path) -> None:
    shutil.rmtree(path)


def empty(path: Path) -> None:
    remove(path)
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda root: remove(root / "train"), "images/train: .*/train/<class>/"),
        (lambda root: remove(root / "test"), "images/test: .*/test/<class>/"),
        (lambda root: empty(root), "images/train: "),
        (lambda root: empty(root / "train"), "images/train .*<class>"),
        (lambda root: empty(root / "test"), "same classes.* ant, bee, cat$"),
        (lambda root: [remove(root / "train" / name) for name in CLASSES[1:]], "images/train .*'ant'"),
        (lambda root: empty(root / "train" / "bee"), r"images/train/bee is empty: .* \.bmp, .*\.webp"),
        (lambda root: empty(root / "test" / "bee"), "images/test/bee is empty"),
        (lambda root: save(root / "test" / "dog" / "0.png", noise(0)), "same classes.* dog$"),
        (lambda root: save(root / "train" / "dog" / "0.png", noise(0)), "same classes.* dog$"),
        (lambda root: remove(root / "test" / "cat"), "same classes.* cat$"),
    ],
    ids=[
        "no train",
        "no test",
        "nothing",
        "no classes",
        "no test classes",
        "one class",
        "empty class",
        "empty test class",
        "class in test alone",
        "class in train alone",
        "class not in test",
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_that_is_no_data_set_is_refused_with_what_is_wrong(images, damage, named, split):
    load_images(images, split)  # what is kept of it before does not hide that
    damage(images)
    with pytest.raises(InputError, match=named):
        load_images(images, split)


def test_one_class_in_both_parts_is_one_too_few(images):
    for split in ("train", "test"):
        for name in CLASSES[:2]:
            remove(images / split / name)
    with pytest.raises(InputError, match=r"train .*'cat'"):
        load_images(images, "test")


def test_an_unknown_split_is_refused(images):
    with pytest.raises(InputError, match=r"'valid'.*train or test"):
        load_images(images, "valid")


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_of_no_pixels_is_refused(images, size):
    with pytest.raises(InputError, match=f"image_size.*{size}"):
        load_images(images, image_size=size)


@pytest.mark.parametrize("resident", [None, False])
def test_images_of_several_sizes_are_refused_by_name_until_a_size_is_chosen(images, resident):
    odd = save(images / "train" / "bee" / "1.png", noise(0, 9, 4, 3))
    first = files_of(images)[0]
    with pytest.raises(InputError, match=rf"{odd} .*9x4.*{first} .*{HEIGHT}x{WIDTH}.*image_size"):
        read_folder(images, resident=resident)
    found = read_folder(images, image_size=6, resident=resident)
    assert torch.equal(everything(found), decoded(files_of(images), 6))
    assert len(read_folder(images, "test", resident=resident).images) == 6  # where all are of one size


# --- files that cannot be read


def truncated(path: Path) -> Path:
    path = save(path.with_suffix(".jpg"), noise(0, 64, 64, 3))
    path.write_bytes(path.read_bytes()[:1500])
    return path


def text(path: Path) -> Path:
    path.write_text("no image")
    return path


def of_no_bytes(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def dangling(path: Path) -> Path:
    path.symlink_to("nowhere.png")
    return path


CORRUPT = [truncated, text, of_no_bytes, folder, dangling]


@pytest.mark.parametrize("resident", [None, False])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("how", CORRUPT, ids=lambda how: how.__name__)
def test_a_file_that_cannot_be_read_is_named_or_left_out(images, how, split, resident):
    good = files_of(images, split)
    bad = how(images / split / "bee" / "00.png")
    with pytest.raises(InputError) as caught:
        read_folder(images, split, resident=resident)
    assert str(caught.value).startswith(f"{bad} cannot be read")
    assert "skip_corrupt" in str(caught.value)
    assert "\n" not in str(caught.value)
    found = read_folder(images, split, skip_corrupt=True, resident=resident)
    assert found.corrupt == [str(bad)]
    assert torch.equal(everything(found), decoded(good))
    assert found.labels.tolist() == [CLASSES.index(path.parent.name) for path in good]


def test_how_many_files_were_left_out_is_told_and_the_first_five_of_them(images):
    bad = [text(images / "train" / name / f"x{i}.png") for name in CLASSES for i in range(2)]
    found = load_images(images, skip_corrupt=True)
    assert len(found) == len(found.labels) == 9
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.origin == (
        f"9 images from {images / 'train'}; left out 6 unreadable images ({', '.join(map(str, bad[:5]))} and 1 more)"
    )
    assert "left out" not in load_images(images, "test", skip_corrupt=True).origin


def test_the_first_file_may_be_the_one_that_cannot_be_read(images):
    bad = text(files_of(images)[0])
    found = load_images(images, skip_corrupt=True)
    assert str(bad) in found.origin
    assert torch.equal(found.images, decoded(files_of(images)[1:]))
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]


def test_a_file_that_cannot_be_read_does_not_make_grey_images_coloured(tmp_path):
    root = make(tmp_path / "images", grey=True)
    text(root / "test" / "ant" / "x.png")
    assert load_images(root).image_shape[0] == 1
    assert load_images(root, "test", skip_corrupt=True).image_shape[0] == 1


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("resident", [None, False])
def test_a_class_of_which_nothing_can_be_read_is_an_error_even_where_such_files_are_left_out(images, name, resident):
    for path in (images / "train" / name).iterdir():
        text(path)
    with pytest.raises(InputError, match=f"class '{name}'"):
        read_folder(images, skip_corrupt=True, resident=resident)


def test_nothing_that_can_be_read_at_all_is_an_error(images):
    for path in files_of(images):
        text(path)
    with pytest.raises(InputError, match="class 'ant'"):
        load_images(images, skip_corrupt=True)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_first_file_that_cannot_be_read_ends_the_decoding_of_the_others(images, monkeypatch, terminal):
    asked = []
    stream = io.StringIO()
    stream.isatty = lambda: terminal

    def decode(path, *_):
        asked.append(path)
        if path.name == "0.png":
            raise InputError(f"{path} is bad")
        time.sleep(0.01)
        return noise(0).transpose(2, 0, 1)

    for number in range(100):
        (images / "train" / "bee" / f"x{number}.png").touch()
    monkeypatch.setattr(module, "decode", decode)
    monkeypatch.setattr("sys.stderr", stream)
    with pytest.raises(InputError, match="is bad"):
        read_folder(images)
    assert len(asked) < 60  # the rest of a large folder would take minutes, and perhaps more memory than there is


# --- what is kept


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_that_was_read_before_is_not_decoded_again(images, tmp_path, monkeypatch, split):
    first = load_images(images, split)
    assert len(cached(tmp_path)) == 1
    forbid_decoding(monkeypatch)
    second = load_images(images, split)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert (first.classes, first.origin) == (second.classes, second.origin)
    assert first.fingerprint() == second.fingerprint()
    with pytest.raises(AssertionError, match="decoded"):
        load_images(images, "test" if split == "train" else "train")


def test_what_was_left_out_is_kept_too_and_refused_where_it_is_not_to_be(images, monkeypatch):
    bad = text(images / "train" / "bee" / "00.png")
    first = load_images(images, skip_corrupt=True)
    forbid_decoding(monkeypatch)
    second = load_images(images, skip_corrupt=True)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert first.origin == second.origin
    with pytest.raises(InputError, match=f"{bad} .*skip_corrupt"):
        load_images(images)


def test_a_mended_file_is_read(images):
    bad = text(images / "train" / "bee" / "00.png")
    assert len(load_images(images, skip_corrupt=True)) == 9
    save(bad, noise(8))
    assert torch.equal(load_images(images).images, decoded(files_of(images)))


def later(path: Path) -> None:
    """Make a file a second younger, whatever the file system's clock shows."""
    moment = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(moment, moment))


def touch(root: Path) -> None:
    later(root / "train" / "bee" / "1.png")


def change(root: Path) -> None:
    later(save(root / "train" / "bee" / "1.png", noise(77)))


def add(root: Path) -> None:
    save(root / "train" / "bee" / "15.png", noise(78))


def drop(root: Path) -> None:
    (root / "train" / "bee" / "1.png").unlink()


def move_to_another_class(root: Path) -> None:
    (root / "train" / "bee" / "2.png").rename(root / "train" / "ant" / "3.png")


def rename_a_class(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "bee").rename(root / split / "bat")


@pytest.mark.parametrize("how", [touch, change, add, drop, move_to_another_class], ids=lambda how: how.__name__)
def test_a_change_of_the_files_is_seen(images, monkeypatch, how):
    before = load_images(images)
    how(images)
    found = load_images(images)
    paths = files_of(images)
    assert torch.equal(found.images, decoded(paths))
    assert found.labels.tolist() == [CLASSES.index(path.parent.name) for path in paths]
    assert len(found) == len(before) + {add: 1, drop: -1}.get(how, 0)
    if how is touch:  # the files are the same
        later(files_of(images)[0])
        forbid_decoding(monkeypatch)
        load_images(images)


@pytest.mark.parametrize("cheap", [0, module.CHEAP])
def test_a_file_replaced_by_one_of_the_same_name_size_and_time_is_seen(tmp_path, monkeypatch, cheap):
    monkeypatch.setattr(module, "CHEAP", cheap)  # beyond it, contents are not read
    root = make(tmp_path / "images", ".bmp")  # not packed, so that all are of one size
    before = load_images(root)
    path = root / "train" / "bee" / "1.bmp"
    status = path.stat()
    save(path, noise(77))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    found = load_images(root)
    assert torch.equal(found.images, decoded(files_of(root)))
    assert found.fingerprint() != before.fingerprint()


def test_a_class_by_another_name_is_seen(images):
    load_images(images)
    rename_a_class(images)
    assert load_images(images).classes == ("ant", "bat", "cat")


def test_each_size_is_kept_apart(images, monkeypatch):
    sizes = (None, 4, 6)
    first = [load_images(images, image_size=size).images for size in sizes]
    forbid_decoding(monkeypatch)
    for size, expected in zip(sizes, first, strict=True):
        assert torch.equal(load_images(images, image_size=size).images, expected)


def age(root: Path) -> None:
    """Give all files one time, as unpacking a reproducible archive does."""
    for path in root.rglob("*.bmp"):
        os.utime(path, (10**9, 10**9))


def test_the_parts_are_kept_apart_though_their_files_have_the_same_names_sizes_and_times(tmp_path):
    root = make(tmp_path / "images", ".bmp")  # not packed, so that all are of one size
    for name in CLASSES:
        (root / "train" / name / "2.bmp").unlink()
    age(root)
    for split in ("train", "test"):
        assert torch.equal(load_images(root, split).images, decoded(files_of(root, split)))


def test_folders_are_kept_apart_though_their_files_have_the_same_names_sizes_and_times(tmp_path):
    roots = [make(tmp_path / "one", ".bmp"), make(tmp_path / "two", ".bmp")]
    for path in files_of(roots[1]):
        save(path, 255 - np.asarray(Image.open(path)))
    for root in roots:
        age(root)
        assert torch.equal(load_images(root).images, decoded(files_of(root)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: b"<html>" * 100,
        lambda data: bytes(len(data)),
        lambda data: data.replace(b'"kept"', b'"left"'),
        lambda data: data.replace(b'"note"', b'"nope"'),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data.replace(b"[]", b"{}"),
    ],
    ids=["empty", "cut", "cut short", "garbage", "zeros", "other tensor", "no note", "one bit", "other note"],
)
def test_a_damaged_copy_is_not_used_and_replaced(images, tmp_path, monkeypatch, damage):
    load_images(images)
    (copy,) = cached(tmp_path)
    whole = copy.read_bytes()
    copy.write_bytes(damage(whole))
    assert copy.read_bytes() != whole
    found = load_images(images)
    assert torch.equal(found.images, decoded(files_of(images)))
    assert "the cached images were damaged" in found.origin
    assert copy.read_bytes() == whole
    forbid_decoding(monkeypatch)
    assert "were damaged" not in load_images(images).origin


def test_where_nothing_can_be_kept_the_files_are_decoded_every_time(images, tmp_path):
    (tmp_path / "cache").touch()  # a file where the folder should be; permissions do not stop root
    for _ in range(2):
        assert torch.equal(load_images(images).images, decoded(files_of(images)))
    assert (tmp_path / "cache").read_bytes() == b""


def test_a_full_disk_leaves_nothing_behind(images, tmp_path, monkeypatch):
    def save_file(_tensors, path, _metadata):
        path.write_bytes(b"a beginning")
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)
    assert torch.equal(load_images(images).images, decoded(files_of(images)))
    assert not cached(tmp_path)


# --- what does not fit in memory


def test_files_decoded_late_give_the_images_of_those_held_in_memory(images, tmp_path):
    late = read_folder(images, resident=False)
    assert isinstance(late.images, DecodedLate)
    assert not cached(tmp_path)
    here = read_folder(images)
    assert isinstance(here.images, torch.Tensor)
    assert late.images.shape == here.images.shape
    assert late.images.dim() == here.images.dim()
    assert late.images.dtype == here.images.dtype
    assert len(late.images) == len(here.images)
    assert torch.equal(late.labels, here.labels)
    assert (late.classes, late.corrupt) == (here.classes, here.corrupt)
    for indices in ([8, 0, 3, 3], [5]):
        assert torch.equal(late.images.index_select(0, torch.tensor(indices)), here.images[indices])
    # a copy that is kept by now is not taken for those that must not be held
    assert isinstance(read_folder(images, resident=False).images, DecodedLate)


def pair(images: Path, **options) -> tuple[ImageDataset, ImageDataset]:
    """Give the data set held in memory and the one decoded late."""
    found = [read_folder(images, resident=resident, **options) for resident in (True, False)]
    here, late = (ImageDataset(f.images, f.labels, -1, 1, f.classes) for f in found)
    return here, late


@pytest.mark.parametrize("kind", ["colour", "grey", "resized", "corrupt"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_files_decoded_late_are_identical(tmp_path, workers, kind):
    root = make(tmp_path / "images", grey=kind == "grey")
    if kind == "corrupt":
        text(files_of(root)[4])
    here, late = pair(root, image_size=4 if kind == "resized" else None, skip_corrupt=kind == "corrupt")
    assert here.image_shape == late.image_shape
    loaders = BatchLoader(here, 4, shuffle=True), BatchLoader(late, 4, shuffle=True, workers=workers)
    seen = 0
    for (x, labels), (y, late_labels) in zip(*loaders, strict=True):
        assert torch.equal(x, y)
        assert x.dtype == y.dtype
        assert torch.equal(labels, late_labels)
        seen += len(y)
    assert seen == len(late) == (8 if kind == "corrupt" else 9)


def test_a_data_set_of_files_decoded_late_is_used_as_any_other(images):
    here, late = pair(images)
    for part in (slice(2, 5), slice(None, None, 4), slice(3, 3)):
        assert [x.tolist() for x in late[part]] == [x.tolist() for x in here[part]]
    assert torch.equal(late[7][0], here[7][0])
    assert torch.equal(late.spread(4)[0], here.spread(4)[0])
    assert len(list(late)) == 9  # a for loop ends
    with pytest.raises(IndexError):
        late[9]
    bare = late.without_labels()
    assert torch.equal(bare[3], here[3][0])
    shifted, late_shifted = (ShiftedImages(data, 0.3, 0.5, seed=1) for data in (here, late))
    assert torch.equal(shifted.__getitems__(range(9))[0], late_shifted.__getitems__(range(9))[0])


def test_files_decoded_late_stay_where_the_processor_is_with_their_labels(images):
    _, late = pair(images)
    BatchLoader(late, 4).to(torch.device("meta"))
    assert late.device.type == late.labels.device.type == "cpu"
    assert late[2][1] == 0


def test_images_that_take_more_than_their_share_of_the_memory_are_decoded_late(images, monkeypatch):
    size = 9 * 3 * HEIGHT * WIDTH
    monkeypatch.setattr(module, "memory_for_images", lambda: size - 1)
    assert isinstance(load_images(images).images, DecodedLate)
    assert isinstance(read_folder(images, resident=True).images, torch.Tensor)


def test_images_that_just_fit_are_held(images, monkeypatch):
    monkeypatch.setattr(module, "memory_for_images", lambda: 9 * 3 * HEIGHT * WIDTH)
    assert isinstance(load_images(images).images, torch.Tensor)


def test_the_memory_for_images_is_a_share_of_the_machines():
    assert 2**20 < module.memory_for_images() < 2**50


def test_a_file_that_breaks_later_is_named_then(images):
    _, late = pair(images)
    bad = text(files_of(images)[4])
    with pytest.raises(InputError, match=str(bad)):
        late[4]
    late[3]


def test_the_fingerprint_of_files_decoded_late_is_of_the_files_and_labels(images):
    def fingerprint(labels=None, **options) -> str:
        found = read_folder(images, resident=False, **options)
        return ImageDataset(found.images, found.labels if labels is None else labels).fingerprint()

    first = fingerprint()
    assert fingerprint() == first
    assert len(bytes.fromhex(first)) == 32
    others = [fingerprint(image_size=4), fingerprint(image_size=6), fingerprint(split="test")]
    others.append(fingerprint(labels=torch.zeros(9, dtype=torch.int64)))
    touch(images)
    assert fingerprint() == first  # the same contents
    change(images)
    others.append(fingerprint())
    assert len({first, *others}) == 6


# --- labels and classes


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_classes_are_refused(label):
    pixels, labels = gaussian(4, 2, 2).to(torch.uint8), torch.tensor([0, 1, label, 2])
    with pytest.raises(InputError, match=r"labels .*from 0 to 2"):
        ImageDataset(pixels, labels, classes=CLASSES)
    if label < 0:  # which a loss would leave out
        with pytest.raises(InputError, match=r"labels .*0 or more"):
            ImageDataset(pixels, labels)
    else:
        ImageDataset(pixels, labels)  # without names for them there may be more
    with pytest.raises(InputError, match=r"int64.*torch\.float32"):
        ImageDataset(pixels, labels.float())
    ImageDataset(pixels, labels.clamp(0, 2), classes=CLASSES)
    ImageDataset(pixels, classes=CLASSES)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA, reason="set TORCHDL_DATA to a folder with cifar10-jpeg to read its files")
def test_a_real_folder_of_photographs_is_what_pillow_reads():
    root = Path(REAL_DATA or "") / "cifar10-jpeg"
    if not root.is_dir():
        pytest.skip("$TORCHDL_DATA holds no cifar10-jpeg")
    found = load_images(root, "test")
    paths = sorted((root / "test").rglob("*.jpg"))
    assert len(found) == len(paths)
    assert found.classes == tuple(sorted({path.parent.name for path in paths}))
    chosen = list(range(0, len(paths), 97))
    assert torch.equal(found.images[chosen], decoded([paths[i] for i in chosen]))
    assert [found.classes[found.labels[i]] for i in chosen] == [paths[i].parent.name for i in chosen]


# --- flat folders, as the course's Food-5K is


def make_flat(root: Path, parts: tuple[str, ...] = ("training", "validation", "evaluation")) -> Path:
    for seed, part in enumerate(parts):
        for number in (10, 9, 3):
            for label in (1, 0):
                save(root / part / f"{label}_{number}.jpg", noise(seed * 100 + 10 * number + label))
    return root


@pytest.mark.parametrize(
    "parts", [("training", "validation", "evaluation"), ("train", "test"), ("train", "evaluation")]
)
def test_flat_folders_are_read_by_the_beginnings_of_their_files_names(tmp_path, parts):
    root = make_flat(tmp_path / "food", parts)
    for split, part in zip(("train", "test"), parts, strict=False):
        found = read_folder(root, split)
        paths = [root / part / f"{label}_{number}.jpg" for label in (0, 1) for number in (10, 3, 9)]
        assert found.classes == ("0", "1")
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert torch.equal(everything(found), decoded(paths))


def test_flat_folders_must_say_every_class_in_both_parts(tmp_path):
    root = make_flat(tmp_path / "food")
    unnamed = save(root / "training" / "photo.jpg", noise(1))
    with pytest.raises(InputError, match=r"training/photo\.jpg .*<class>_\*"):
        read_folder(root)
    unnamed.rename(root / "training" / "2_1.jpg")
    with pytest.raises(InputError, match=r"same classes.* 2$"):
        read_folder(root)
    for path in [*(root / "training").glob("[12]_*"), *(root / "validation").glob("1_*")]:
        path.unlink()
    with pytest.raises(InputError, match=r"training .*'0'"):
        read_folder(root)


def test_an_empty_folder_is_no_flat_one(tmp_path):
    for part in ("training", "validation"):
        (tmp_path / "food" / part).mkdir(parents=True)
    with pytest.raises(InputError, match=r"food/train: .*/train/<class>/"):
        read_folder(tmp_path / "food")
