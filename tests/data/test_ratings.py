from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from torchdl import InputError
from torchdl.data import ratings as module, read_ratings, split_ratings
from torchdl.data.download import NotFound
from torchdl.data.movielens import MOVIELENS, Archive, find_ratings, read_titles
from torchdl.data.ratings import Ratings, number, ordinal

pytestmark = pytest.mark.usefixtures("isolated")
SETTINGS = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
whole = st.integers(-(2**60), 2**60)
names = st.text(st.characters(codec="utf-8", categories=["L", "P", "S"]), min_size=1, max_size=5)
scores = st.floats(-100, 100, width=32)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def synthetic(count: int, seed: int = 0, users: int = 30, items: int = 20) -> Ratings:
    random = np.random.default_rng(seed)
    who, what = random.integers(0, users, count) * 3 + 5, random.integers(0, items, count) * 7 + 1
    return Ratings(who, what, random.random(count, np.float32) * 5, random.integers(0, 99, count), "nowhere")


# reading


@SETTINGS
@given(
    ids=st.one_of(
        st.lists(st.tuples(whole, whole, scores, whole), min_size=1, max_size=12),
        st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), scores, st.integers(0, 99)), min_size=1),
        st.lists(st.tuples(names, names, scores, st.integers(0, 99)), min_size=1, max_size=12),
        st.lists(st.tuples(whole, names, scores, st.integers(0, 99)), min_size=1, max_size=12),
    ),
    piece=st.integers(1, 5),
)
def test_what_is_written_is_read(tmp_path, ids, piece):
    path = tmp_path / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["note", "timestamp", "rating", "movieId", "userId"])
        rows.writerows(["a,b", time, rating, item, user] for user, item, rating, time in ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        found = read_ratings(path)
    users, items, ratings, times = zip(*ids, strict=True)
    for read, written in ((found.user, users), (found.item, items)):
        # a name of digits alone may be read as a number, if all are
        assert list(map(str, read.tolist())) == list(map(str, written))
    assert found.rating.dtype == np.float32
    np.testing.assert_array_equal(found.rating, np.array(ratings, np.float32))
    np.testing.assert_allclose(found.time.astype(float), np.array(times, float), rtol=1e-15)


def test_small_ids_take_twenty_bytes_a_rating_and_a_folder_will_do(tmp_path):
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp", "1,31,2.5,1260759144", "2,10,4,835355493")
    found = read_ratings(tmp_path)
    arrays = (found.user, found.item, found.rating, found.time)
    assert sum(array.itemsize for array in arrays) == 20
    assert (len(found), found.user.tolist(), found.item.tolist()) == (2, [1, 2], [31, 10])
    assert found.origin == f"2 ratings from {tmp_path / 'ratings.csv'}"


def test_own_columns_without_a_time(tmp_path):
    path = write(tmp_path / "x.csv", "who,stars,film", "ann,5,007", "bob,1,7")
    found = read_ratings(path, "who", "film", "stars")
    assert (found.user.tolist(), found.item.tolist(), found.time) == (["ann", "bob"], ["007", "7"], None)


GOOD = ["userId,movieId,rating,timestamp", *(f"{k},2,3,4" for k in range(7)), ""]


@pytest.mark.parametrize("piece", [3, 1000])
@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("1,2,nought,4", "8th row .*'nought' as 'rating'"),
        ("1,2,,4", "8th row"),
        ("1,2,inf,4", "no finite rating .*8th row"),
        ("1,2,1e39,4", "no finite rating .*8th row"),
        ("1,2,3", "8th row .*nothing as 'timestamp'"),
        ("1,2", "8th row"),
        (",2,3,4", "8th row .*nothing as 'userId'"),
        ("1, ,3,4", "8th row .*' ' as 'movieId'"),
        ("1,2,3,soon", "8th row .*'soon' as 'timestamp'"),
        ("1,2,3,5,4", "4 fields in line 10, saw 5"),  # a decimal comma
        ('"1,2,3,4', "EOF inside string"),
    ],
)
def test_a_broken_row_is_named(tmp_path, monkeypatch, piece, row, named):
    monkeypatch.setattr(module, "PIECE", piece)
    path = write(tmp_path / "x.csv", *GOOD, row)
    with pytest.raises(InputError, match=named) as caught:
        read_ratings(path)
    assert str(path) in str(caught.value)


def test_ratings_have_columns_of_one_length():
    two, three = np.arange(2), np.arange(3)
    with pytest.raises(InputError, match=r"\[3, 2, 2\]"):
        Ratings(three, two, two.astype(np.float32), None, "nowhere")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "x.csv"),
        (b"userId,movieId,rating\n", "no ratings"),
        (b"userId,rating\n1,2\n", "0 columns 'movieId'"),
        (b"userId,movieId,rating,rating\n1,2,3,4\n", "2 columns 'rating'"),
        (b"userId,movieId,rating\n1,2,3,4\n", "more cells in the first row"),
        (b"userId,movieId,rating\n\xe9,2,3\n", "utf-8"),
        (b"\xff\xfeu,\xe9\n", "x.csv"),
    ],
)
def test_a_file_that_holds_no_ratings_is_refused(tmp_path, content, named):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(InputError, match=named):
        read_ratings(tmp_path / "x.csv")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"ratings\.csv"):
        read_ratings(tmp_path)


def test_ordinals():
    found = [ordinal(k) for k in (1, 2, 3, 4, 11, 12, 13, 21, 112, 1003)]
    assert found == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th", "1,003rd"]


# numbering and splitting


@given(known=st.sets(whole, min_size=1), asked=st.lists(whole))
def test_a_number_is_the_place_among_the_known_or_0(known, asked):
    ordered = sorted(known)
    ids = np.array([*asked, *ordered], np.int64)
    expected = [ordered.index(k) + 1 if k in known else 0 for k in ids.tolist()]
    assert number(ids, np.array(ordered, np.int64)).tolist() == expected


@pytest.mark.parametrize("by_time", [False, True])
def test_a_split_keeps_every_rating_once_and_numbers_by_the_training_part(monkeypatch, by_time):
    monkeypatch.setattr(module, "PIECE", 7)
    ratings = synthetic(101, items=80)
    split = split_ratings(ratings, 0.3, by_time, seed=4)
    assert (len(split.train), len(split.test)) == (71, 30)
    given_ids = sorted(zip(ratings.user.tolist(), ratings.item.tolist(), ratings.rating.tolist(), strict=True))
    back = []
    users, items = ([None, *ids.tolist()] for ids in (split.users, split.items))
    for part in (split.train, split.test):
        assert part.inputs.dtype == torch.int32
        rows = zip(part.inputs.tolist(), part.targets.tolist(), strict=True)
        back += [(users[user], items[item], rating) for (user, item), rating in rows]
    assert sorted(rating for *_, rating in back) == sorted(rating for *_, rating in given_ids)
    known = {row[2]: row for row in given_ids}
    for user, item, rating in back:  # ratings are all different, and so say whose they are
        assert user in (known[rating][0], None)
        assert item in (known[rating][1], None)
    assert int(split.train.inputs.min()) == 1
    assert set(split.train.inputs[:, 0].tolist()) == set(range(1, len(split.users) + 1))
    unseen = (split.test.inputs == 0).any(0)
    assert unseen[1]
    for user, item, rating in back[71:]:
        assert (item is None) == (known[rating][1] not in split.items)
        assert (user is None) == (known[rating][0] not in split.users)
    assert split.mean == pytest.approx(split.train.targets.double().mean().item())


def test_the_same_seed_gives_the_same_split_and_another_another():
    ratings = synthetic(50)
    prints = [split_ratings(ratings, seed=seed).train.fingerprint() for seed in (1, 1, 2)]
    assert prints[0] == prints[1] != prints[2]


def test_the_latest_are_held_out_whatever_the_order_of_rows():
    ratings = synthetic(200)
    split = split_ratings(ratings, 0.25, by_time=True)
    time_of = dict(zip(ratings.rating.tolist(), ratings.time.tolist(), strict=True))
    train, test = ([time_of[rating] for rating in part.targets.tolist()] for part in (split.train, split.test))
    assert max(train) <= min(test)


def test_a_split_that_cannot_be_is_refused():
    ratings = synthetic(3)
    for share in (0, 1, -1, float("nan")):
        with pytest.raises(InputError, match=f"share.*{share}"):
            split_ratings(ratings, share)
    with pytest.raises(InputError, match=r"3 ratings .*0.01"):
        split_ratings(ratings, 0.01)
    timeless = Ratings(ratings.user, ratings.item, ratings.rating, None, "nowhere")
    with pytest.raises(InputError, match="times"):
        split_ratings(timeless, by_time=True)


# MovieLens


def packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


FILES = {
    "ml/ratings.csv": "userId,movieId,rating\n1,2,3\n",
    "ml/movies.csv": 'movieId,title\n2,"A, B ($)"\n',
    "ml/links.csv": "x",
    "../../evil.csv": "x",
}


@pytest.fixture
def tiny(server, monkeypatch):
    """Serve a small archive in ml-20m's place; returns the server."""
    body = packed(FILES)
    server.pages["/ml.zip"] = (200, body)
    archive = Archive(f"{server.url}/ml.zip", hashlib.md5(body).hexdigest())
    monkeypatch.setitem(MOVIELENS, "ml-20m", archive)
    return server


def test_a_missing_set_is_downloaded_once_and_only_its_two_files_are_taken(tiny, tmp_path):
    folder = tmp_path / "a" / "b" / "c"
    for _ in range(2):
        path = find_ratings("ml-20m", folder)
    assert path == folder / "ml-20m" / "ratings.csv"
    assert tiny.asked == ["/ml.zip"]
    assert {p.name: p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == {
        "ratings.csv": FILES["ml/ratings.csv"],
        "movies.csv": FILES["ml/movies.csv"],
    }
    assert read_titles(path, np.array([2, 9])) == ["A, B ($)", "9"]
    assert read_titles(tmp_path / "none.csv", np.array([2])) == ["2"]


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ((404, b""), "Not Found"),
        ((200, b"no zip"), "ml.zip .*zip"),
        ((200, packed({"ml/ratings.csv": "x"})), "movies.csv"),
        ((200, packed(FILES)[:200] + b"?" + packed(FILES)[201:]), ""),
        ((200, packed(FILES)[:100], len(packed(FILES))), "ml.zip"),
    ],
)
def test_a_bad_download_leaves_nothing(tiny, tmp_path, answer, named, monkeypatch):
    monkeypatch.setitem(MOVIELENS, "ml-20m", Archive(f"{tiny.url}/ml.zip"))
    tiny.pages["/ml.zip"] = answer
    if not named:
        body = bytearray(packed({**FILES, "ml/movies.csv": "a" * 9999}))
        body[body.index(b"ml/movies.csv") + 15] ^= 0xFF  # within the packed bytes
        tiny.pages["/ml.zip"], named = (200, bytes(body)), "ml.zip"
    with pytest.raises(NotFound, match=named):
        find_ratings("ml-20m", tmp_path)
    assert not (tmp_path / "ml-20m" / "ratings.csv").exists()
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tmp"]


def test_the_published_md5_is_compared(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(MOVIELENS, "ml-20m", Archive(f"{tiny.url}/ml.zip", "0" * 32))
    with pytest.raises(InputError, match=r"MD5 [0-9a-f]{12}.*0{12}"):
        find_ratings("ml-20m", tmp_path)
    assert not list(tmp_path.rglob("*.csv"))


def test_a_zip_of_a_file_too_large_is_not_unpacked(tiny, tmp_path, monkeypatch):
    archive = MOVIELENS["ml-20m"]
    bomb = packed({**FILES, "ml/movies.csv": "a" * 10_000})
    tiny.pages["/ml.zip"] = (200, bomb)
    monkeypatch.setitem(MOVIELENS, "ml-20m", Archive(archive.url, max_bytes=9_999))
    with pytest.raises(InputError, match=r"movies.csv has 10,000 bytes, more than 9,999"):
        find_ratings("ml-20m", tmp_path)
    monkeypatch.setitem(MOVIELENS, "ml-20m", Archive(archive.url, max_bytes=10))
    with pytest.raises(InputError, match="max_bytes=10"):
        find_ratings("ml-20m", tmp_path)
    assert all(real.md5 or real.max_bytes <= 2**26 for name, real in MOVIELENS.items() if name != "ml-20m")
    assert not list(tmp_path.rglob("*.csv"))


def test_nothing_is_fetched_where_it_is_turned_off_and_own_paths_are_taken_as_they_are(tiny, tmp_path):
    with pytest.raises(NotFound, match=f"turned off.*{tmp_path}"):
        find_ratings("ml-20m", tmp_path, fetch=False)
    assert tiny.asked == []
    with pytest.raises(InputError, match=r"nothing.*ml-latest-small, ml-20m"):
        find_ratings(tmp_path / "nothing")
    path = write(tmp_path / "ratings.csv", *GOOD)
    assert find_ratings(tmp_path) == find_ratings(path) == path
