from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchdl import FrameSequences, InputError
from torchdl.data import folder as image_folder
from torchdl.data.frame_sequences import in_natural_order


def write(folder: Path, values: range, name: str = "frame{}.png", size: int = 8) -> Path:
    """Write grey frames whose value is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for value in values:
        Image.fromarray(np.full((size, size), value, np.uint8)).save(folder / name.format(value))
    return folder


def shown(data: FrameSequences) -> torch.Tensor:
    """The numbers (N, P) that the frames of all sequences show."""
    context, future = data.__getitems__(range(len(data)))
    return (torch.cat([context, future], 1)[:, :, 0, 0, 0] * 255).round().long()


@pytest.mark.parametrize("resident", [True, False])
def test_frames_are_in_natural_order_and_a_folder_is_a_recording(tmp_path, monkeypatch, resident):
    if not resident:
        monkeypatch.setattr(image_folder, "memory_for_images", lambda: 0)
    write(tmp_path / "take10", range(60, 100))
    write(tmp_path / "take9", range(5, 25), "{}.png")
    for ignored in (".hidden", "__MACOSX"):
        (tmp_path / ignored).mkdir()
    data = FrameSequences(tmp_path, terms=2, predict_terms=2, step=2)
    assert data.recordings == ("take9", "take10")
    assert isinstance(data.items.images, torch.Tensor) is resident
    found = shown(data)
    assert (found.diff(dim=1) == 2).all()
    assert ((found < 25) == (found[:, :1] < 25)).all()
    assert data.origin == f"60 frames in 2 recordings from {tmp_path}"
    one = FrameSequences(tmp_path / "take9", terms=2, predict_terms=2)
    assert (shown(one).diff(dim=1) == 1).all()
    assert one.recordings == ("take9",)
    assert one.fingerprint() != data.fingerprint()


def test_frames_are_resized_scaled_and_in_colour_if_one_is(tmp_path):
    write(tmp_path, range(12))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "frame12.png")
    context, _ = FrameSequences(tmp_path, 2, 1, image_size=4, low=-1)[0]
    assert context.shape == (2, 3, 4, 4)
    assert context.min() < -0.5


def test_names_are_sorted_by_their_numbers():
    names = ["b", "2", "10", "frame 2.png", "Frame 10.png", "frame 1.png", "a", "1a", "1.5", "\u00b2"]
    expected = ["1.5", "1a", "2", "10", "a", "b", "frame 1.png", "frame 2.png", "Frame 10.png", "\u00b2"]
    assert sorted(names, key=in_natural_order) == expected


def test_a_mistake_is_one_sentence(tmp_path):
    def refused(folder: Path, sentence: str, **options) -> None:
        with pytest.raises(InputError, match=sentence):
            FrameSequences(folder, **options)

    refused(tmp_path / "none", "no folder .*none")
    refused(tmp_path, "no images")
    write(tmp_path / "a", range(5))
    refused(tmp_path, r"^a has 5 frames: .*4 \+ 4 .*takes 8")
    refused(tmp_path, "step .*0", step=0)
    (tmp_path / "b").mkdir()
    refused(tmp_path, "/b has no images")
    write(tmp_path / "b", range(9), size=6)
    refused(tmp_path, "frame0.png has 6x6 pixels, but .*8x8.*image_size", terms=1, predict_terms=1)
    write(tmp_path, range(1))
    refused(tmp_path, "both folders and 1 image .frame0.png")
    (tmp_path / "frame0.png").unlink()
    (tmp_path / "a" / "deeper").mkdir()
    refused(tmp_path, "/a has both folders and")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.png").write_text("no picture")
    refused(tmp_path / "c", "^(?!.*skip_corrupt).*1.png")
    refused(tmp_path / "b", "image_size must be from 1 .*0", image_size=0)
