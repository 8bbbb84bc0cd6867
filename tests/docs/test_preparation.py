"""The playground prepares a drawn digit in JavaScript as predict.py does in Python."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.photographs import photograph
from PIL import Image, ImageDraw

import torchdl

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")


def drawing(points: list[tuple[float, float]], size: tuple[int, int] = (280, 280), pen: int = 22) -> np.ndarray:
    """Draw a line through points (x, y) in [0, 1], black on white: greys (H, W)."""
    paper = Image.new("L", size, 255)
    draw = ImageDraw.Draw(paper)
    places = [(x * size[0], y * size[1]) for x, y in points]
    draw.line(places, 0, pen, joint="curve")
    for x, y in places:
        draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), 0)
    return np.array(paper)


SEVEN = [(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)]
ONE = [(0.5, 0.15), (0.48, 0.85)]
ROUND = [(0.5 + 0.25 * np.sin(t), 0.5 + 0.35 * np.cos(t)) for t in np.linspace(0, 2 * np.pi, 40)]


def shadowed(bright_ink: bool = False) -> np.ndarray:
    """Draw a photograph of a seven, whose light and noise are uneven."""
    digit = Image.fromarray(255 - drawing(SEVEN)).resize((28, 28))
    return photograph(torch.from_numpy(np.array(digit)), 1, (480, 360), bright_ink=bright_ink).numpy()


def parts() -> np.ndarray:
    """Draw two parts of a digit, and a speck."""
    paper = np.minimum(drawing(ONE), drawing([(0.75, 0.3), (0.75, 0.7)]))
    paper[20:22, 20:22] = 0
    return paper


PICTURES = {
    "a line with a corner": drawing(SEVEN),
    "a thin line": drawing(SEVEN, pen=6),
    "a thick ring": drawing(ROUND, pen=40),
    "a single line": drawing(ONE),
    "bright on dark": 255 - drawing(ROUND),
    "grey on light grey": (200 - 0.4 * (255 - drawing(SEVEN))).astype(np.uint8),
    "in a corner": drawing([(0.1 + 0.3 * x, 0.6 + 0.3 * y) for x, y in SEVEN], pen=9),
    "beyond the border": drawing([(0.5, -0.1), (0.5, 1.1)]),
    "a dot": drawing([(0.5, 0.5), (0.5, 0.5)], pen=12),
    "two parts and a speck": parts(),
    "not square, of odd sides": drawing(SEVEN, (201, 333)),
    "smaller than a prepared digit": drawing(SEVEN, (17, 19), pen=2),
    "larger than is read": drawing(ROUND, (900, 1000), pen=60),
    "a photograph in uneven light": shadowed(),
    "chalk in uneven light": shadowed(bright_ink=True),
}


@pytest.fixture(scope="module")
def prepared() -> dict[str, np.ndarray | None]:
    """What the playground makes of each picture."""
    blank = {"no ink": np.full((100, 100), 255, np.uint8)}
    given = [
        {"height": greys.shape[0], "width": greys.shape[1], "greys": base64.b64encode(greys.tobytes()).decode()}
        for greys in (PICTURES | blank).values()
    ]
    script = Path(__file__).with_name("prepare.mjs")
    run = subprocess.run(["node", script], input=json.dumps(given), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    found = [None if digit is None else np.array(digit).reshape(28, 28) for digit in json.loads(run.stdout)]
    return dict(zip([*PICTURES, *blank], found, strict=True))


@pytest.mark.parametrize("name", PICTURES)
def test_a_drawing_becomes_the_same_digit(name, prepared):
    expected = torchdl.prepare_digit(PICTURES[name])[0].numpy().astype(int)
    assert np.abs(prepared[name] - expected).max() <= 1
    assert expected.max() == 255


def test_paper_without_ink_is_no_digit(prepared):
    assert prepared["no ink"] is None
