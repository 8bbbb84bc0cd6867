from __future__ import annotations

import json
import sys

import pytest
import torch
from helpers.hub import hub  # noqa: F401  (a fixture)

import torchdl
from torchdl import InputError, LenetLike
from torchdl.predict import ImageClassifier, ImageInput

PICTURES = torch.randint(256, (3, 1, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture
def finished(tmp_path):
    """Make the folder of a run with everything that a training leaves."""
    torch.manual_seed(0)
    folder = tmp_path / "run"
    settings = ImageClassifier.Settings(ImageInput(1, 12, 12), ("ant", "bee"))
    ImageClassifier(LenetLike((1, 12, 12), 2, width=2, depth=1, hidden=4), settings, "cpu").save(folder)
    (folder / "config.json").write_text('{"config": {"data_root": "/home/somebody"}}')
    (folder / "checkpoint.pt").write_bytes(b"a pickle")
    (folder / "results.json").write_text('{"accuracy": 0.75, "accuracy by class": {"ant": 0.5}}')
    return folder


def test_a_published_run_answers_the_same_to_the_bit(hub, finished):  # noqa: F811
    address = torchdl.push_to_hub(finished, "somebody/ants", private=True, token="hf_x")
    files = hub.repositories["somebody/ants"]
    assert address == f"{hub.url}/somebody/ants/commit/{hub.commit('somebody/ants')}"
    names = {"architecture.json", "weights.safetensors", "preprocessing.json", "results.json", "README.md"}
    assert files.keys() == names  # no pickle, and nothing that names folders of this machine
    assert b"somebody/ants" in files["README.md"]
    assert b"- accuracy: 0.75\n" in files["README.md"]
    expected = torchdl.load_predictor(finished, "cpu").predict(PICTURES).probabilities
    loaded = torchdl.from_hub("somebody/ants", device="cpu")
    assert torch.equal(loaded.predict(PICTURES).probabilities, expected)
    assert not any("results" in path or "README" in path for path in hub.asked if path.startswith("GET /somebody"))


def test_a_second_commit_leaves_the_card_alone(hub, finished):  # noqa: F811
    (finished / "card.md").write_text("# My ants\n")
    torchdl.push_to_hub(finished, "somebody/ants", token="hf_x")
    files = hub.repositories["somebody/ants"]
    assert files["README.md"].decode().endswith("---\n\n# My ants\n")
    files["README.md"] = b"edited"
    (finished / "results.json").write_text('{"accuracy": 1.0}')
    torchdl.push_to_hub(finished, "somebody/ants", message="Better", token="hf_x")
    assert files["README.md"] == b"edited"
    assert json.loads(files["results.json"]) == {"accuracy": 1.0}


def test_a_strangers_repository_is_data_and_refused_if_it_is_no_run(hub, finished):  # noqa: F811
    hub.repositories["a/empty"] = {"pytorch_model.bin": b"a pickle"}
    with pytest.raises(InputError, match="a/empty is no run of torchdl: it has no architecture"):
        torchdl.from_hub("a/empty")
    assert not any("pytorch_model" in path for path in hub.asked)
    torchdl.push_to_hub(finished, "a/damaged", token="hf_x")
    hub.repositories["a/damaged"]["weights.safetensors"] += b"x"
    with pytest.raises(InputError, match="damaged"):
        torchdl.from_hub("a/damaged")


def test_what_goes_wrong_is_one_sentence(hub, finished, monkeypatch):  # noqa: F811
    with pytest.raises(InputError, match="a/missing: the Hub cannot do that") as caught:
        torchdl.from_hub("a/missing")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not the folder of a run"):
        torchdl.push_to_hub(finished.parent, "a/b")
    for name in ("b", "a/b/c", "../b/c", ""):
        with pytest.raises(InputError, match="like user/name"):
            torchdl.push_to_hub(finished, name)
    assert hub.repositories == {}
    hub.shutdown()
    hub.server_close()
    with pytest.raises(InputError, match="the Hub cannot do that"):
        torchdl.push_to_hub(finished, "a/b", token="hf_x")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'torchdl\[hub\]'"):
        torchdl.from_hub("a/b")
