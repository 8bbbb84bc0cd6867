"""Find a learning rate for a training script."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from helpers.scripts import assert_mistake

pytestmark = pytest.mark.slow


def test_a_rate_is_found_and_drawn_and_nothing_else_is_left(run, tmp_path):
    options = "--dataset mnist_5k --width 4 --device cpu"
    done = run(f"find_lr.py --steps 40 --lowest 1e-5 train_lenet.py {options}", tmp_path)
    assert (done.code, done.err) == (0, "")
    (rate,) = re.findall(r"learning rate (\S+): learning_rate.png", done.out)
    assert 1e-4 < float(rate) < 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["learning_rate.png"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "name a training script"),
        ("predict.py x", "predict.py is not one of the training scripts"),
        ("--steps 3 train_lenet.py --dataset mnist_5k", "more than 10 steps, not 3"),
        ("--lowest 1 --highest 0.1 train_lenet.py", "must rise"),
        ("--out lr.pdf train_lenet.py", r"lr.pdf must end in \.png"),
        ("train_lenet.py --resume runs/lenet/x --name=y", "keeps no run: drop --name, --resume"),
    ],
)
def test_a_mistake_is_one_sentence(command, message, run, tmp_path):
    assert_mistake(run, f"find_lr.py {command}", tmp_path, message)


def test_a_search_that_is_interrupted_names_no_rate(run, tmp_path):
    def interrupt(child, _):
        time.sleep(1.5)  # the search takes longer
        os.kill(child, signal.SIGINT)

    done = run("find_lr.py --steps 5000 train_lenet.py --dataset mnist_5k --width 4 --device cpu", tmp_path, interrupt)
    assert (done.code, done.out) == (130, "")
    assert re.fullmatch(r"(train_lenet|find_lr)\.py: interrupted\n", done.err)
    assert not list(tmp_path.iterdir())
