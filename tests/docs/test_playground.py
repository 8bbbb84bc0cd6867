"""The playground: what is built, and what the page does in a browser."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.browsers import chromium
from helpers.servers import FolderServer, serving
from PIL import Image

import torchdl
from torchdl.errors import InputError
from torchdl.predict import ImageGenerator, ImageInput, ImageReconstructor

pytest.importorskip("onnxscript", reason="needs torchdl[export]")
pytestmark = pytest.mark.slow

PEN = 20  # pixels, the width of a stroke in paper.js
# the first digit of each class among MNIST's test images that the classifier knows
DIGITS = np.array(Image.open(Path(__file__).with_name("test_digits.png"))).reshape(28, 10, 28).swapaxes(0, 1)


@pytest.fixture(scope="module")
def builder():
    """The module docs/playground/build.py."""
    path = Path(__file__).parents[2] / "docs/playground/build.py"
    spec = importlib.util.spec_from_file_location("playground_build", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(builder, tmp_path_factory) -> Path:
    """A page of the classifier and the encoder that come with torchdl, and of an autoencoder and a GAN of noise."""
    folder = tmp_path_factory.mktemp("playground")
    torch.manual_seed(0)
    pictures = ImageReconstructor.Settings(ImageInput(1, 28, 28, prepare="digit"))
    ImageReconstructor(torchdl.Autoencoder((1, 28, 28), code_size=4, width=2), pictures, "cpu").save(folder / "coder")
    ImageGenerator.of(torchdl.simple_gan(), "cpu").save(folder / "gan")
    with pytest.MonkeyPatch.context() as patch:
        if not builder.PACKAGE.is_dir():  # what is built without npm cannot be looked at
            patch.setattr(builder, "PACKAGE", folder)
            (folder / "dist").mkdir()
            for name in builder.RUNTIME:
                (folder / "dist" / name).touch()
        builder.main(
            builder.Config(
                folder / "site", autoencoder=folder / "coder", gan=folder / "gan", dataset="mnist_5k", gallery=100
            )
        )
    return folder / "site"


def test_the_gallery_holds_as_many_digits_of_each_class_with_their_codes(site):
    labels = json.loads((site / "gallery/gallery.json").read_text())["labels"]
    pixels = np.fromfile(site / "gallery/pixels.bin", np.uint8).reshape(100, 28, 28)
    codes = np.fromfile(site / "gallery/codes.bin", "<f4").reshape(100, 128)
    assert labels == [str(label) for label in range(10) for _ in range(10)]
    encoder = torchdl.pretrained("cpc-grey", "cpu")
    np.testing.assert_allclose(codes[40:42], encoder.embed(pixels[40:42]).numpy(), atol=1e-5)


def test_the_sliders_directions_are_orthonormal_and_the_first_one_changes_the_images_most(builder, site):
    noise = json.loads((site / "noise.json").read_text())
    directions = torch.tensor(noise["directions"])
    torch.testing.assert_close(directions @ directions.T, torch.eye(8), atol=1e-3, rtol=0)

    class Stretched(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z * torch.tensor([1.0, 9.0, 4.0])

    found = builder.find_directions(Stretched(), torch.randn(2, 3))
    torch.testing.assert_close(found.abs(), torch.eye(3)[[1, 2, 0]], atol=1e-3, rtol=0)


def test_runs_of_another_kind_and_of_other_pictures_are_refused(builder, site):
    with pytest.raises(InputError, match="another kind"):
        builder.find(Path("pretrained:cpc-grey"), builder.ImageClassifier)
    with pytest.raises(InputError, match="digits"):
        builder.find(Path("pretrained:lenet-fashion"), builder.ImageClassifier)
    assert builder.find(builder.NONE, builder.ImageClassifier) is None


# In a browser


@pytest.fixture(scope="module")
def browser(builder):
    if not builder.PACKAGE.is_dir():
        pytest.skip("needs npm ci in docs/playground")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(site) -> Iterator[FolderServer]:
    with serving(FolderServer(site)) as server:
        yield server


def visit(browser, server, **options):
    """Open the page; what goes wrong in it fails the test in :func:`close`."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(120_000)
    page.requests, page.errors = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector("body[data-ready]")
    return page


@pytest.fixture(scope="module")
def page(browser, server):
    page = visit(browser, server, viewport={"width": 1000, "height": 900})
    yield page
    assert not page.errors


def after(page, action) -> None:
    """Do something and wait until the page has read the drawing."""
    action()
    page.wait_for_selector("#paper[aria-busy=false]")


def paint(page, digit: np.ndarray) -> None:
    """Paint a digit (28, 28) by the mouse: a stroke for each run of bright pixels, 12 pixels of the paper for each."""
    box = page.locator("#paper").bounding_box()
    for row in range(28):
        ends = np.flatnonzero(np.diff(np.concatenate([[False], digit[row] > 128, [False]]).astype(int)))
        for first, last in ends.reshape(-1, 2).tolist():
            left, right = 140 + 12 * (first - 14) + PEN / 2, 140 + 12 * (last - 14) - PEN / 2
            y = 140 + 12 * (row - 13.5)
            if left > right:
                left = right = (left + right) / 2
            page.mouse.move(box["x"] + left, box["y"] + y)
            page.mouse.down()
            page.mouse.move(box["x"] + right, box["y"] + y)
            page.mouse.up()


def canvas(page, name: str) -> np.ndarray:
    """What is on a canvas: greys (H, W)."""
    _, encoded = page.evaluate("name => document.getElementById(name).toDataURL()", name).split(",")
    return np.array(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("L"))


@pytest.fixture(scope="module")
def classifier():
    return torchdl.pretrained("lenet-mnist", "cpu")


@pytest.mark.parametrize("label", range(10))
def test_a_painted_digit_is_called_by_its_name_with_the_probabilities_that_python_computes(page, classifier, label):
    page.get_by_role("button", name="Clear").click()
    after(page, lambda: paint(page, DIGITS[label]))
    assert page.inner_text("#verdict").startswith(f"It looks like {label} ")
    shown = [float(text.strip(" %")) / 100 for text in page.locator("#bars .share").all_inner_texts()]
    expected = classifier.predict(canvas(page, "paper")[None]).probabilities[0]
    np.testing.assert_allclose(shown, expected.numpy(), atol=1e-3)
    nearest = [text.strip()[0] for text in page.locator("#nearest button").all_inner_texts()]
    assert len(nearest) == 10
    assert nearest.count(str(label)) >= 5


def test_a_drawing_by_the_keyboard_alone(page):
    page.get_by_role("button", name="Clear").focus()
    after(page, lambda: page.keyboard.press("Enter"))
    assert page.inner_text("#verdict") == "There is no digit on the paper."
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "paper"
    for keys in (["ArrowUp"] * 9, [" "], ["ArrowDown"] * 18):
        for key in keys:
            page.keyboard.press(key)
    after(page, lambda: page.keyboard.press(" "))
    assert page.inner_text("#verdict").startswith("It looks like 1 ")
    after(page, lambda: page.keyboard.press("7"))
    assert page.inner_text("#verdict").startswith("It looks like 7 ")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "clear"


def test_sliders_change_the_generated_picture_and_go_back(page):
    shown = "document.getElementById('generated').toDataURL()"
    first = page.evaluate(shown)
    page.get_by_role("slider", name="Direction 1").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"picture => {shown} !== picture", arg=first)
    page.get_by_role("button", name="Sliders to 0").click()
    page.wait_for_function(f"picture => {shown} === picture", arg=first)
    page.get_by_role("button", name="Other noise").click()
    page.wait_for_function(f"picture => {shown} !== picture", arg=first)


def test_the_first_noise_makes_the_first_picture_of_seed_0(browser, server, site):
    page = visit(browser, server)
    shown = canvas(page, "generated").astype(int)
    expected = torchdl.load_predictor(site.parent / "gan", "cpu").predict(1, seed=0)
    assert np.abs(shown - expected[0, 0].numpy()).max() <= 1


def test_the_page_fits_a_phone_in_the_dark_and_takes_touches(browser, server):
    size = {"width": 375, "height": 700}
    page = visit(browser, server, viewport=size, color_scheme="dark", has_touch=True, is_mobile=True)
    paper = page.locator("#paper").bounding_box()
    after(page, lambda: page.touchscreen.tap(paper["x"] + 140, paper["y"] + 140))
    assert (canvas(page, "paper") < 128).sum() > 100
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(red, green, blue) < 60
    controls = page.locator("button:visible, input:visible, canvas[tabindex]")
    heights = [controls.nth(i).bounding_box()["height"] for i in range(controls.count())]
    assert min(heights) >= 16
    assert not page.errors


def test_nothing_is_sent_anywhere(page, server, site):
    assert page.requests
    assert all(url.startswith((server.url, "data:")) for url in page.requests)
    with serving(FolderServer(site)) as other:  # another origin: the page's policy refuses it
        answer = page.evaluate("url => fetch(url, { mode: 'no-cors' }).then(() => 'sent', () => 'refused')", other.url)
    assert answer == "refused"
