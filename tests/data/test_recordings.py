from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from helpers import gaussian
from scipy.io import wavfile

from torchdl import InputError, Recordings, SignalWindows, TableFormat, read_recordings
from torchdl.data import shoulder_exercises
from torchdl.data.shoulder_exercises import load_exercises, split_exercises


def some() -> Recordings:
    signals = tuple(gaussian(2, 50 + 10 * number, seed=number) * 3 + 1 for number in range(4))
    return Recordings(signals, torch.tensor([0, 1, 1, 2]), torch.tensor([1, 1, 2, 2]), ("a", "b", "c"))


def test_recordings_are_selected_with_their_labels_and_subjects():
    recordings = some()
    for chosen in (recordings.subjects == 2, torch.tensor([2, 3])):
        part = recordings.select(chosen)
        assert torch.equal(part.signals[0], recordings.signals[2])
        assert (part.labels.tolist(), part.subjects.tolist(), len(part)) == ([1, 2], [2, 2], 2)
    assert Recordings(recordings.signals).select(torch.tensor([1])).labels is None


def test_scaled_recordings_have_mean_0_and_deviation_1_in_the_training_part():
    recordings = some()
    samples = torch.cat(recordings.scaled(*recordings.statistics()).signals, 1)
    torch.testing.assert_close(samples.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(samples.std(1, correction=0), torch.ones(2))
    with pytest.raises(InputError, match="constant channels: leave out channel 2"):
        Recordings((torch.stack([torch.arange(9.0), torch.full((9,), 0.1)]),)).statistics()


def test_segments_are_parts_of_one_recording_with_its_class():
    recordings = some()
    segments, labels = recordings.segments(20, 15)
    assert labels.tolist() == [0] * 3 + [1] * 3 + [1] * 4 + [2] * 5
    assert torch.equal(segments[4], recordings.signals[1][:, 15:35])
    for length in (0, 51):
        with pytest.raises(InputError, match=f"from 1 to 50 samples, not {length}"):
            recordings.segments(length, 5)
    with pytest.raises(InputError, match="labels"):
        Recordings(recordings.signals).segments(20, 15)


def test_the_fingerprint_knows_every_part():
    one = some()
    changed = [
        Recordings(one.signals[:3], one.labels[:3], one.subjects[:3]),
        Recordings(one.signals, one.labels, one.subjects + 1),
        Recordings((one.signals[0] + 1, *one.signals[1:]), one.labels, one.subjects),
        Recordings(one.signals),
    ]
    assert len({each.fingerprint() for each in (one, *changed)}) == 5


# files


def test_every_kind_of_file_is_read_with_channels_first(tmp_path):
    samples = (gaussian(2, 300) * 5000).round().clamp(-32768, 32767)
    np.save(tmp_path / "b.npy", samples.numpy())
    rows = "\n".join(f"{x:.0f},{y:.0f}" for x, y in samples.T.tolist())
    (tmp_path / "a.csv").write_text(f"left,right\n{rows}\n")
    (tmp_path / "notes.md").write_text("no recording")
    found = read_recordings(tmp_path)
    assert len(found) == 2
    assert all(torch.equal(signal, samples) for signal in found.signals)
    rows = "no column of times was found, so the rows are taken to be in order"
    assert found.origin == f"{tmp_path}, channels left, right; {rows}"
    windows = SignalWindows(found, 10, 10)
    assert windows.origin == f"600 samples in 2 recordings from {found.origin}"


def test_columns_are_put_in_the_order_of_the_first_file_or_refused(tmp_path):
    (tmp_path / "a.csv").write_text("left,right\n1.5,2\n3.5,2\n5,2\n")
    (tmp_path / "b.csv").write_text("right,left\n20,10.5\n40,30\n60,50\n")
    (tmp_path / "readme.txt").write_text("Recorded in May.\n")
    (tmp_path / ".c.csv").write_text("hidden\n")
    found = read_recordings(tmp_path)
    assert found.channel_names == ("left", "right")
    assert found.names == ("a.csv", "b.csv")
    assert found.signals[1].tolist() == [[10.5, 30, 50], [20, 40, 60]]
    assert read_recordings(tmp_path, columns=["right"]).signals[1].tolist() == [[20, 40, 60]]
    with pytest.raises(InputError, match="constant channels: leave out 'right'"):
        read_recordings(tmp_path / "a.csv").statistics()
    (tmp_path / "b.csv").write_text("up,left\n20,10\n40,30\n60,50\n")
    with pytest.raises(InputError, match=r"b.csv has the channels up, left, other files have left, right"):
        read_recordings(tmp_path)


def test_a_table_may_be_written_in_another_format(tmp_path):
    (tmp_path / "a.txt").write_text("1,5;2\n3;4\n5;7,25\n")
    found = read_recordings(tmp_path, TableFormat(header=False, separator=";", decimal=","))
    assert found.signals[0].tolist() == [[1.5, 3, 5], [2, 4, 7.25]]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (np.int16, [-32768, 0, 16384], [-1.0, 0.0, 0.5]),
        (np.int32, [-(2**31), 0, 2**30], [-1.0, 0.0, 0.5]),
        (np.uint8, [0, 128, 192], [-1.0, 0.0, 0.5]),
        (np.float32, [-1.0, 0.0, 0.5], [-1.0, 0.0, 0.5]),
    ],
)
def test_sounds_are_scaled_by_their_type(tmp_path, kind, values, expected):
    wavfile.write(tmp_path / "x.wav", 8000, np.array(values, kind))
    (signal,) = read_recordings(tmp_path / "x.wav").signals
    assert signal.tolist() == [expected]


def test_a_mistake_is_one_sentence(tmp_path):
    def refused(name: str, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            read_recordings(tmp_path / name)

    refused("none.npy", "no file or folder .*none.npy")
    (tmp_path / "empty").mkdir()
    refused("empty", r"empty has no recordings.*\.wav")
    (tmp_path / "x.mp3").write_bytes(b"ID3")
    refused("x.mp3", r"x.mp3 is no recording.*\.wav")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    refused("x.npy", "x.npy is damaged")
    (tmp_path / "x.npy").write_bytes(b"no array")
    refused("x.npy", "^(?!.*pickle).*x.npy is damaged")
    np.save(tmp_path / "cube.npy", np.zeros((1, 2, 3)))
    refused("cube.npy", r"cube.npy must have the shape .*\(1, 2, 3\)")
    np.save(tmp_path / "object.npy", np.array([{}]))
    refused("object.npy", "object.npy")
    np.save(tmp_path / "nan.npy", np.array([0.0, 1.0, np.nan]))
    refused("nan.npy", "nan.npy has NaN or an infinite value at sample 2")
    np.save(tmp_path / "turned.npy", np.zeros((300, 2)))
    refused("turned.npy", "turned.npy has 300 channels of 2 samples: transpose")
    wavfile.write(tmp_path / "cut.wav", 8000, np.zeros(1000, np.int16))
    (tmp_path / "cut.wav").write_bytes((tmp_path / "cut.wav").read_bytes()[:500])
    refused("cut.wav", "cut.wav cannot be read")
    (tmp_path / "two").mkdir()
    np.save(tmp_path / "two" / "a.npy", np.zeros(300))
    np.save(tmp_path / "two" / "b.npy", np.zeros((2, 300)))
    refused("two", "a.npy has 1 channels, but .*b.npy has 2")
    (tmp_path / "rates").mkdir()
    for rate in (8000, 16000):
        wavfile.write(tmp_path / "rates" / f"{rate}.wav", rate, np.zeros(100, np.int16))
    refused("rates", "16000.wav has 16,000 samples a second and .*8000.wav has 8,000")


def test_labels_and_subjects_are_one_for_each_recording():
    signals = some().signals
    for wrong in ({"labels": torch.tensor([0, 1])}, {"subjects": torch.zeros(4, 1)}, {"signals": ()}):
        with pytest.raises(InputError, match="one"):
            Recordings(**{"signals": signals, **wrong})
    with pytest.raises(InputError, match="hop"):
        some().segments(20, 0)


# the exercises


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make up a file like seglearn's: two recordings for each of ten people."""
    signals = [gaussian(60 + number, 6, seed=number).double().numpy() for number in range(20)]
    data = {"X": signals, "y": np.arange(20) % 2, "subject": np.arange(20) // 2 + 1, "y_labels": ["up", "down"]}
    path = tmp_path / "watch_dataset.npy"
    np.save(path, data)
    monkeypatch.setattr(shoulder_exercises, "exercises_file", lambda: path)
    monkeypatch.setattr(shoulder_exercises, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_exercises_are_loaded_and_split_by_people(package):
    recordings = load_exercises()
    assert (len(recordings), recordings.channels, recordings.classes) == (20, 6, ("up", "down"))
    assert recordings.signals[3].dtype == torch.float32
    tested = []
    for fold in range(5):
        parts = split_exercises(recordings, fold)
        people = [set(part.subjects.tolist()) for part in parts]
        assert [len(each) for each in people] == [6, 2, 2]
        assert set.union(*people) == set(range(1, 11))
        tested += people[2]
    assert sorted(tested) == list(range(1, 11))
    with pytest.raises(InputError, match=r"fold .*5"):
        split_exercises(recordings, 5)


def test_another_file_or_none_is_refused_before_it_is_unpickled(package, monkeypatch):
    package.write_bytes(package.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"watch_dataset.npy is not the file of seglearn"):
        load_exercises()
    monkeypatch.setattr(shoulder_exercises, "exercises_file", lambda: None)
    with pytest.raises(InputError, match="pip install"):
        load_exercises()


@pytest.mark.skipif(shoulder_exercises.exercises_file() is None, reason="install the extra signals for its recordings")
def test_the_real_recordings_are_those_of_ten_people_in_seven_exercises():
    recordings = load_exercises()
    assert (len(recordings), recordings.channels) == (140, 6)
    counts = torch.zeros(11, 7, dtype=torch.int64)
    counts.index_put_((recordings.subjects, recordings.labels), torch.tensor(1), accumulate=True)
    assert (counts[1:] == 2).all()
    assert sum(signal.shape[1] for signal in recordings.signals) == 244_102
    assert len(recordings.classes) == 7


def test_the_end_of_each_recording_is_for_validation():
    recordings = Recordings((torch.arange(20.0)[None], torch.arange(9.0)[None]))
    first, rest = recordings.split_in_time(2)
    assert [signal.flatten().tolist() for signal in rest.signals] == [[16, 17, 18, 19], [7, 8]]
    assert [signal.shape for signal in first.signals] == [(1, 16), (1, 7)]
    with pytest.raises(InputError, match="recording 2 has only 2 samples there, fewer than the 3"):
        recordings.split_in_time(3)
