"""What is read from runs, what a record keeps of code, data and machine, and what may be missing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.registry import ROOT
from PIL import Image

import torchdl
from experiments import machine, needs
from experiments.imports import files_of, hash_code
from experiments.made_up_data import make_data
from experiments.records import Records, copy_picture, fingerprints, is_fallback, read_figure
from experiments.registry import Figure, find, load

# what is read


@pytest.mark.parametrize(
    ("file", "text", "key", "expected"),
    [
        ("results.json", '{"a": {"b": [1, 2, 6]}}', ("a", "b"), 3.0),
        ("results.json", '{"a": {"b": [1, 2, 6]}}', ("a", "b", -1), 6.0),
        ("results.json", '{"a": 0.25}', ("a",), 0.25),
        ("metrics.csv", "epoch,val/x\n1,0.5\n2,0.75\n3,\n", ("val/x",), 0.75),
    ],
)
def test_figures_are_read_from_json_and_from_the_last_row_of_csv(tmp_path, file, text, key, expected):
    (tmp_path / file).write_text(text)
    assert read_figure(tmp_path, Figure("m", key, file=file, scale=10)) == {"value": 10 * expected}


def test_of_a_figure_of_several_seeds_each_is_kept(tmp_path):
    (tmp_path / "results.json").write_text('{"a": [1, 2, 6], "b": [3, 3, 3]}')
    figure = Figure("m", ("a",), reference_key=("b",), scale=10, of_seeds=True)
    assert read_figure(tmp_path, figure) == {"value": 30, "reference": 30, "values": [10, 20, 60]}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("results.json", "{"),
        ("results.json", "[]"),
        ("results.json", '{"a": "b"}'),
        ("results.json", '{"a": []}'),
        ("results.json", '{"a": null}'),
        ("results.json", '{"b": 1}'),
        ("results.json", '{"a": true}'),
        ("results.json", '{"a": ["1"]}'),
        ("results.json", '{"a": 1' + "0" * 400 + "}"),
        ("results.json", '{"a": ' * 10_000),
        ("metrics.csv", "a\n" + "1" * 200_000 + "\n"),
        ("metrics.csv", "b\n1\n"),
        ("metrics.csv", "a\n"),
        ("metrics.csv", ""),
    ],
)
def test_a_damaged_file_of_figures_is_named(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(torchdl.InputError, match=rf"{file}.*'a'.*'m'|{file} cannot be read"):
        read_figure(tmp_path, Figure("m", ("a",), file=file))


def test_a_file_of_figures_that_is_not_there_is_named(tmp_path):
    with pytest.raises(torchdl.InputError, match=r"results\.json"):
        read_figure(tmp_path, Figure("m", ("a",)))


RECORD = '"experiment": "a", "seed": 0, "settings": "x", "finished": true'


@pytest.mark.parametrize(
    "text",
    [
        *("{", "{}", '[{"seed": 1}]', "[3]", "[" * 100_000, "9" * 5_000),
        *(
            f"[{{{RECORD}, {more}}}]"
            for more in ('"seconds": "9"', '"figures": {"m": 3}', '"failed": 1', '"seed": "0"')
        ),
    ],
    ids=lambda text: text[:80],
)
def test_damaged_records_are_named(tmp_path, text):
    (tmp_path / "records.json").write_text(text)
    with pytest.raises(torchdl.InputError, match=r"records\.json"):
        Records.load(tmp_path / "records.json")


def test_an_older_record_is_one_of_other_code_or_of_code_that_was_not_recorded(tmp_path):
    one = find("moore", load().experiments)
    record = {"experiment": "moore", "seed": 0, "settings": one.settings, "finished": True, "figures": {}}
    records = Records(tmp_path / "records.json", [record, {**record, "seed": 1, "code": "abc"}])
    assert [records.is_older(one, seed, "abc") for seed in (0, 1, 2)] == [True, False, False]
    assert records.is_older(one, 1, "def")


def test_pictures_are_copied_and_made_small_enough(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "plain.png")
    assert (tmp_path / "noise.png").stat().st_size > 20_000
    copy_picture(tmp_path / "noise.png", tmp_path / "small" / "noise.png", 20_000)
    assert (tmp_path / "small" / "noise.png").stat().st_size <= 20_000
    with Image.open(tmp_path / "small" / "noise.png") as image:
        assert image.size[0] / image.size[1] == pytest.approx(1.5, abs=0.03)
        assert np.asarray(image.convert("L")).std() > 5
    copy_picture(tmp_path / "plain.png", tmp_path / "small" / "plain.png")
    assert (tmp_path / "small" / "plain.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


def test_what_is_missing_is_named_with_how_to_get_it_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(needs.SOURCES["fashion_mnist"].__class__, "system_folders", (), raising=False)
    wanted = sorted({n for e in load().experiments for n in e.needs} - {*needs.PACKAGES, needs.CUDA, "fashion_mnist"})
    assert len(wanted) >= 6
    for need in wanted:
        sentence = needs.lacking(need, tmp_path / "data")
        assert str(tmp_path / "data") in sentence, need
        assert "http" in sentence or need == "cifar10-jpeg"
    made = make_data(tmp_path / "data")
    assert [needs.lacking(need, made) for need in wanted] == [""] * len(wanted)
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda name: None)
    assert "pip install -e '.[test]'" in needs.lacking("keras")
    monkeypatch.setattr(needs, "gpu", lambda: "")
    assert "CUDA" in needs.lacking(needs.CUDA)
    monkeypatch.setattr(needs, "gpu", lambda: "A100")
    assert needs.lacking(needs.CUDA) == ""


def test_a_machine_is_described_with_its_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(machine, "gpu", lambda: "A100")
    found = machine.machine()
    assert (found["gpu"], found["cores"]) == ("A100", os.cpu_count())
    monkeypatch.setattr(machine, "gpu", lambda: "")
    assert machine.machine() == {key: value for key, value in found.items() if key != "gpu"}
    assert set(machine.versions()) == {"python", "torch", "numpy", "scikit-learn"}


def test_made_up_data_is_the_same_for_a_seed_and_read_by_the_library(tmp_path):
    one, two = make_data(tmp_path / "one"), make_data(tmp_path / "two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in files)
    digits = torchdl.load_images("mnist", "train", one, fetch=False)
    assert (len(digits), digits.fallback) == (600, False)
    assert digits.labels[:100].bincount(minlength=10).tolist() == [10] * 10
    assert len(torchdl.load_images("cifar10-jpeg", "test", one)) == 30
    assert len(torchdl.load_prices(one, fetch=False)) == 120


def test_what_a_run_says_of_its_data_is_read_from_its_configuration():
    config = {"data": {"origin": "a folder", "stand_in": True, "fingerprint": "ab", "held_out_fingerprint": "cd"}}
    assert is_fallback(config)
    assert fingerprints(config) == {"fingerprint": "ab", "held_out_fingerprint": "cd"}
    assert (is_fallback({}), fingerprints({})) == (False, {})


# the code that a record depends on

CLONE = {
    "scripts/train.py": "import _clone\nimport torchdl\ntorchdl.GAN()\n",
    "scripts/show.py": "from torchdl import plots\ndef f():\n    import torchdl.data.text\n    plots.bars()\n",
    "scripts/sweep.py": 'command = ["train.py", "no_script.py"]\n',
    "scripts/_clone.py": "import sys\n",
    "torchdl/__init__.py": "import lazy_loader\n__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__)\n",
    "torchdl/__init__.pyi": "from .models import GAN as GAN\nfrom .training import Trainer as Trainer\n",
    "torchdl/models/__init__.py": "from torchdl.models.gan import GAN\nfrom torchdl.models.text import Reader\n",
    "torchdl/models/gan.py": '"""A GAN."""\nfrom ..losses import hinge\nclass GAN:\n    """Two."""\n',
    "torchdl/models/text.py": "class Reader: pass\n",
    "torchdl/losses.py": "def hinge(x):\n    return x  # as it is\n",
    "torchdl/training/__init__.py": "from torchdl.training.trainer import Trainer\n",
    "torchdl/training/trainer.py": "class Trainer: pass\n",
    "torchdl/plots/__init__.py": "from torchdl.plots.bars import bars\nfrom torchdl.plots.lines import lines\n",
    "torchdl/plots/bars.py": "def bars(): pass\n",
    "torchdl/plots/lines.py": "def lines(): pass\n",
    "torchdl/data/__init__.py": "",
    "torchdl/data/text.py": "words = []\n",
}


@pytest.fixture
def clone(tmp_path):
    """Return a function that writes a small clone, a file changed perhaps, and returns its folder."""

    def write(changes: dict[str, str] | None = None) -> Path:
        folder = tmp_path / f"clone{len(list(tmp_path.iterdir()))}"
        for name, text in {**CLONE, **(changes or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return write


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("train.py", {"scripts/_clone.py", "torchdl/models/gan.py", "torchdl/losses.py"}),
        ("show.py", {"torchdl/plots/bars.py", "torchdl/data/text.py"}),
        ("sweep.py", {"scripts/train.py", "scripts/_clone.py", "torchdl/models/gan.py", "torchdl/losses.py"}),
    ],
)
def test_a_script_depends_on_the_files_that_define_what_it_uses(clone, script, expected):
    folder = clone()
    found = {path.relative_to(folder).as_posix() for path in files_of(script, folder)}
    assert found == expected | {f"scripts/{script}"}


@pytest.mark.parametrize(
    ("path", "text", "changes"),
    [
        ("torchdl/models/gan.py", 'from ..losses import hinge\n\n\nclass GAN:\n    """Other."""  # new\n', False),
        ("torchdl/models/gan.py", '"""A GAN."""\nfrom ..losses import hinge\nclass GAN:\n    size = 1\n', True),
        ("torchdl/losses.py", "def hinge(x):\n    return -x\n", True),
        ("torchdl/models/text.py", "class Reader:\n    size = 1\n", False),
        ("torchdl/__init__.pyi", "from .models import Reader as Reader\nfrom .models import GAN as GAN\n", False),
        ("scripts/_clone.py", "import os\n", True),
    ],
)
def test_the_hash_changes_with_the_code_that_is_used_and_with_nothing_else(clone, path, text, changes):
    before, after = clone(), clone({path: text})
    assert (hash_code(["train.py"], before) != hash_code(["train.py"], after)) == changes


def test_the_scripts_of_this_repository_depend_on_what_they_import_alone():
    names = {path.relative_to(ROOT).as_posix() for path in files_of("forecast.py")}
    assert {"scripts/forecast.py", "torchdl/models/rnn.py", "torchdl/data/series.py", "torchdl/errors.py"} <= names
    assert not {"torchdl/models/gan.py", "torchdl/data/text.py", "torchdl/__init__.py"} & names
    assert {ROOT / "scripts" / name for name in ("train_gan.py", "evaluate_gan.py")} <= files_of("sweep_gan.py")
    assert ROOT / "experiments" / "benchmark" / "gan.py" in files_of("benchmark.py")
