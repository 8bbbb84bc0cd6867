from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from helpers.figures import is_drawn
from helpers.image_folders import write_folder
from helpers.scripts import assert_mistake, same_weights

import torchdl
from torchdl.models.backbones import build_network

pytestmark = pytest.mark.slow

NET = "--backbone shufflenet_v2_x0_5 --weights tiny.pth --input-size 32 --batch-size 12"
SCRIPT = f"train_transfer.py {NET} --dataset pictures"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Return a folder with images, a network's weights, a file that is none, and a folder without images."""
    folder = tmp_path_factory.mktemp("transfer")
    write_folder(folder / "pictures", train=12, test=4, size=(1, 16, 16))
    torch.manual_seed(0)
    torch.save(build_network("shufflenet_v2_x0_5").state_dict(), folder / "tiny.pth")
    (folder / "file").write_text("x")
    for part in ("train", "test"):
        for name in ("0", "1"):
            (folder / "hollow" / part / name).mkdir(parents=True)
    return folder


@pytest.mark.parametrize("approach", ["augment", "features"])
def test_both_approaches_leave_a_run_that_predicts_and_goes_on(run, workplace, tmp_path, approach):
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    command = f"{SCRIPT} --levels 2 --approach {approach}"
    cut = run(f"{command} --max-steps 4 --name cut", tmp_path)
    whole = run(f"{command} --max-steps 7 --name whole", tmp_path)
    resumed = run("train_transfer.py --resume runs/transfer/cut --max-steps 7", tmp_path)
    for done in (cut, whole, resumed):
        assert done.code == 0, done.err
    path = tmp_path / "runs" / "transfer"
    assert same_weights(path / "cut", path / "whole")
    results = json.loads((path / "whole" / "results.json").read_text())
    assert all(seconds > 0 for seconds in results["seconds"].values())
    if approach == "features":
        assert "features of 36 training images, 0 from the cache" in cut.out
        assert "features of 36 training images, 36 from the cache" in whole.out
    x, labels = torchdl.load_images(tmp_path / "pictures", "test")[:]
    with torch.no_grad():
        answers = torchdl.load(path / "whole")(x).argmax(1)
    assert (answers == labels).float().mean().item() == pytest.approx(results["accuracy"])
    for name in ("history", "confusion", "misclassified"):
        assert is_drawn(path / "whole" / "plots" / f"{name}.png")
    changed = run("train_transfer.py --resume runs/transfer/cut --input-size 40", tmp_path)
    assert changed.code == 2
    assert re.search("runs/transfer/cut .*--input-size 40 .* 32", changed.err)


def test_a_dry_run_draws_images_and_fine_tunes(run, workplace, tmp_path):
    options = "--approach augment --finetune 1 --levels 1 --epochs 2 --per-class 5 --valid-per-class 2 --dry-run"
    command = SCRIPT.replace("tiny.pth", str(workplace / "tiny.pth")).replace("pictures", str(workplace / "pictures"))
    done = run(f"{command} {options}", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^data: 15 of 36 images .*5 of every class", done.out, re.MULTILINE)
    assert re.search(r"^test data: 6 of 36 images .*2 of every class", done.out, re.MULTILINE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--backbone vgg61", "'vgg61'.*alexnet"),
        ("--backbone mobilenet_v3_small", "tiny.pth .*mobilenet_v3_small"),
        ("--weights file", "file "),
        ("--weights none", "shufflenet_v2_x0_5 .*'none'.*default, IMAGENET1K_V1"),
        ("--dataset hollow", "hollow/train/0"),
        ("--input-size 0", "input.size .* 0"),
        ("--finetune 1", "--finetune .*--approach augment"),
        ("--levels 5", "shufflenet_v2_x0_5 .*4 .*levels .* 5"),
        ("--finetune 99 --approach augment", "shufflenet_v2_x0_5 .*5 "),
        ("--flip 0.5", "augmentation .--horizontal-flip"),
        ("--centred True", "--centred"),
        ("--per-class 13", "ant .*12 .*13"),
        ("--valid-per-class 2", "--validation-per-class .*--per-class"),
    ],
)
def test_mistakes_are_one_sentence_and_change_nothing(run, workplace, options, sentence):
    assert_mistake(run, f"{SCRIPT} {options}", workplace, sentence)
