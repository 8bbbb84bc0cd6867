from __future__ import annotations

import csv
import gzip
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
from torchdl.data.delimited_files import TableFormat
from torchdl.data.download import NotFound
from torchdl.data.movielens import MOVIELENS, Archive, find_ratings, read_titles
from torchdl.data.ratings import Ratings, indices_of

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


ROWS = 3  # of a piece, so that the last rows are in another one


@pytest.mark.parametrize("column", ["userId", "movieId"])
@pytest.mark.parametrize(
    ("ids", "dtype"),
    [
        (["7", "12", "-3", "0"], "int32"),
        (["7", "12", "-3", str(2**31)], "int64"),
        (["7", str(-(2**31)), "5", str(2**31 - 1)], "int32"),
        (["7", "12", "5", str(2**63 - 1)], "int64"),
        (["7", "12", "5", str(2**63)], "U"),
        (["7", "12", "5", str(2**64)], "U"),
        (["7", "12", "5", f"-{2**64}"], "U"),
        (["7", "12", "5", "07"], "U"),
        (["07", "7", "12", "5"], "U"),
        (["7", "12", "5", "+7"], "U"),
        (["7", "12", "5", "7.0"], "U"),
        (["7", "12", "5", "-0"], "U"),
        (["0", "12", "5", "00"], "U"),
        (["7", "12", "5", "-07"], "U"),
        (["7", "12", "5", "1e3"], "U"),
        (["7", "12", "5", "0x7"], "U"),
        (["7", "12", "5", "1_000"], "U"),
        (["7", "12", "5", "\u0667"], "U"),
        (["TRUE", "FALSE", "true", "0"], "U"),
        (["NA", "nan", "None", "null"], "U"),
        (["0439708184", "439708184", "043970818X", "1"], "U"),
    ],
)
def test_ids_are_texts(tmp_path, monkeypatch, column, ids, dtype):
    monkeypatch.setattr(module, "PIECE", ROWS)
    other = "movieId" if column == "userId" else "userId"
    path = write(tmp_path / "x.csv", f"{column},rating,{other}", *(f"{id_},3.5,1" for id_ in ids))
    found = read_ratings(path)
    read = found.user if column == "userId" else found.item
    assert read.dtype.kind == dtype if dtype == "U" else read.dtype == dtype
    assert [str(id_) for id_ in read.tolist()] == ids
    assert (found.item if column == "userId" else found.user).tolist() == [1] * 4
    (tmp_path / "r.csv").write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    assert read_ratings(tmp_path / "r.csv").user.tolist() == found.user.tolist()
    quoted = write(tmp_path / "q.csv", f"{column},rating,{other}", *(f' "{id_}" ,3.5, 1 ' for id_ in ids))
    assert read_ratings(quoted).user.tolist() == found.user.tolist()  # blanks around a cell are no part of an id
    assert read_ratings(quoted).item.tolist() == found.item.tolist()


def test_users_who_differ_in_a_zero_are_two_in_every_step(tmp_path):
    path = write(tmp_path / "x.csv", "userId,movieId,rating", *(f"{'0' * (k % 2)}7,0{k},{k % 5}" for k in range(40)))
    write(tmp_path / "movies.csv", "movieId,title", "00,Zero", "01,One", "1,Another", ' 011 ,"Up, again"', "015,")
    ratings = read_ratings(path)
    split = split_ratings(ratings)
    assert split.users.tolist() == ["07", "7"]
    assert len(split.items) > 20
    assert read_titles(path, np.array(["00", "01", "1", "011", "015"])) == [
        "Zero",
        "One",
        "Another",
        "Up, again",
        "015",
    ]


def test_ids_of_different_types_are_compared_as_texts():
    known = np.array([9, 10, 70])
    assert indices_of(np.array(["70", "07", "9", "9.0", "10"]), known).tolist() == [3, 0, 1, 0, 2]
    assert indices_of(np.array([7, 10]), np.array(["07", "10"])).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (np.array(["7", "07"], object), ["7", "07"]),
        (np.array([7, "8"], object), [7, 8]),
        (np.array([7.0, 8.0]), [7, 8]),
        (np.array([7, 8], np.uint64), [7, 8]),
        (np.array([7, 2**63], np.uint64), ["7", str(2**63)]),
    ],
)
def test_ids_in_memory_are_integers_or_texts(ids, found):
    ratings = Ratings(ids, ids, np.float32([1, 2]), None, "nowhere")
    assert ratings.user.tolist() == ratings.item.tolist() == found


@pytest.mark.parametrize(
    "ids", [np.array([1.5, 2]), np.array([np.nan, 2]), np.array([None, "a"]), np.array([True, False])]
)
def test_ids_of_other_types_are_refused(ids):
    with pytest.raises(InputError, match="user"):
        Ratings(ids, np.array([1, 2]), np.float32([1, 2]), None, "nowhere")


def test_other_ways_to_write_ratings_are_read(tmp_path):
    path = write(tmp_path / "x.csv", "userId;movieId;rating", "1;31;2,5", "2;10;4")
    found = read_ratings(path, format=TableFormat(separator=";", decimal=","))
    assert (found.user.dtype, found.rating.tolist()) == (np.int32, [2.5, 4])
    write(path, "userId;movieId;rating", "a;31;1.234,5", "b;10;40%", "b;10;05")
    found = read_ratings(path, format=TableFormat(separator=";", decimal=","))
    assert found.rating.tolist() == pytest.approx([1234.5, 0.4, 5])
    data = write(tmp_path / "u.data", "196\t242\t3\t881250949", "186\t302\t3\t891717742")
    names = ("user", "item", "stars", "when")
    found = read_ratings(data, *names, format=TableFormat(header=False, names=names, separator="tab"))
    assert (found.user.tolist(), found.time.tolist()) == ([196, 186], [881250949, 891717742])
    (tmp_path / "old.csv").write_bytes("userId,movieId,rating\nJosé,2,3\n".encode("cp1252"))
    found = read_ratings(tmp_path / "old.csv")
    assert found.user.tolist() == ["José"]
    assert "0xe9, byte 4 of line 2" in found.origin


@pytest.mark.parametrize("second", ["10", "07"])
def test_packed_ratings_are_read(tmp_path, second):
    path = tmp_path / "ratings.csv.gz"
    path.write_bytes(gzip.compress(f"userId,movieId,rating\n7,1,2\n{second},1,3\n".encode()))
    assert [str(user) for user in read_ratings(path).user.tolist()] == ["7", second]


def test_a_decimal_comma_that_is_not_said_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"row 2.*'2,5' as 'rating'"):
        read_ratings(write(tmp_path / "x.csv", "userId;movieId;rating", "1;31;2,5"), format=TableFormat(separator=";"))


@pytest.mark.parametrize(
    "times",
    [
        ["2020-03-01 00:00:00", "2019-12-31", "2020-03-01 00:00:01", "2020-02-29 23:59:59"],
        ["2020-03-01T01:00:00+01:00", "2019-12-31T12:00:00Z", "2020-02-29T20:00:01-04:00", "2020-02-29T23:59:59+00:00"],
        ["4e3", "1.5", "5e3", "300"],
    ],
)
def test_times_are_numbers_or_dates(tmp_path, monkeypatch, times):
    monkeypatch.setattr(module, "PIECE", ROWS)
    rows = (f"{user},1,{user},{time}" for user, time in enumerate(times))
    ratings = read_ratings(write(tmp_path / "x.csv", "userId,movieId,rating,timestamp", *rows))
    assert ratings.time.argsort().tolist() == [1, 3, 0, 2]
    if times[0].startswith("2020"):
        assert ratings.time[0] == 1583020800
        old = write(
            tmp_path / "y.csv", "userId,movieId,rating,timestamp", "1,2,3,1700-01-01", "1,2,3,1970-01-01T00:00:00.5"
        )
        assert read_ratings(old).time.tolist() == [-8520336000, 0.5]
    assert split_ratings(ratings, 0.25, by_time=True).test.targets.tolist() == [2]


@pytest.mark.parametrize("bad", ["soon", "", "2019-02-29"])
@pytest.mark.parametrize("good", ["4", "2020-03-01"])
def test_a_time_that_cannot_be_read_matters_only_where_it_is_needed(tmp_path, good, bad):
    path = write(
        tmp_path / "x.csv", "userId,movieId,rating,timestamp", f"1,2,3,{good}", f"2,2,3,{bad}", f"3,2,3,{good}"
    )
    ratings = read_ratings(path)
    assert len(split_ratings(ratings, 0.4).train) == 2
    with pytest.raises(InputError, match="time of rating 2 "):
        split_ratings(ratings, 0.4, by_time=True)
    assert read_ratings(path, time=None).time is None


def test_a_named_column_of_times_must_be_there(tmp_path):
    path = write(tmp_path / "x.csv", "userId,movieId,rating", "1,2,3")
    with pytest.raises(InputError, match=r"no column 'when'.* userId, movieId, rating"):
        read_ratings(path, time="when")


GOOD = ["userId,movieId,rating,timestamp", *(f"{k},2,3,4" for k in range(7)), ""]


@pytest.mark.parametrize("piece", [3, 1000])
@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("1,2,nought,4", "row 10: .*'nought' as 'rating'"),
        ("1,2,,4", "row 10:"),
        ("1,2,inf,4", "no finite rating .*row 10"),
        ("1,2,1e39,4", "no finite rating .*row 10"),
        ("1,2", "row 10:"),
        (",2,3,4", "row 10: .*nothing as 'userId'"),
        ("1, ,3,4", "row 10: .*nothing as 'movieId'"),
        ("1,2,3,5,4", "5 cells in row 10, more cells than the 4 names"),  # a decimal comma
        ('"1,2,3,4', "a quote in row 10 that is not closed"),
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
        (b"userId,rating\n1,2\n", "no column 'movieId'.* userId, rating; .*item=\"...\""),
        (b"user,item,rating\n1,2,3\n", "no column 'userId'.* user, item, rating; .*user=\"user\"$"),
        (b"userId,item,rating\n1,2,3\n", "no column 'movieId'.*item=\"item\"$"),
        (b"userId,film,rating\n1,2,3\n", "no column 'movieId'.*item=\"film\"$"),
        (b"userId,movieId,rating,rating\n1,2,3,4\n", "several columns named rating"),
        (b"userId,movieId,rating\n1,2,3,4\n", "row 2, more cells than the 3 names"),
        (b"1,2,3\n2,2,3\n", "values in place of its columns' names"),
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


# numbering and splitting


@given(known=st.sets(whole, min_size=1), asked=st.lists(whole))
def test_a_number_is_the_place_among_the_known_or_0(known, asked):
    ordered = sorted(known)
    ids = np.array([*asked, *ordered], np.int64)
    expected = [ordered.index(k) + 1 if k in known else 0 for k in ids.tolist()]
    assert indices_of(ids, np.array(ordered, np.int64)).tolist() == expected


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


def test_a_decimal_comma_in_ratings_is_named(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("userId;movieId;rating\n1;2;3,5\n")
    with pytest.raises(InputError, match=r"'3,5' as 'rating'.*decimal=\",\""):
        read_ratings(path, format=TableFormat(separator=";"))
    assert read_ratings(path, format=TableFormat(separator=";", decimal=",")).rating.tolist() == [3.5]
