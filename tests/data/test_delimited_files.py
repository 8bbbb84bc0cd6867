from __future__ import annotations

import gzip

import pandas as pd
import pytest

from torchdl import InputError, TableFormat
from torchdl.data.delimited_files import notes, read_pieces, read_rows, row_number
from torchdl.data.text_files import find_encoding


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(content: str | bytes, encoding: str = "utf-8"):
        path = tmp_path / "x.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def cells(table: pd.DataFrame) -> list[list[str | None]]:
    return [[None if pd.isna(cell) else cell for cell in row] for row in table.to_numpy().tolist()]


# the number of cells in a row


def test_a_cell_more_than_the_header_never_shifts_a_column(write):
    # empty cells after the last separator are none
    assert cells(read_rows(write("a,b\n1,2,\n2,4,\n3,6,\n"))) == [["1", "2"], ["2", "4"], ["3", "6"]]
    assert cells(read_rows(write("a,b,\n1,2,\n2,4,\n"))) == [["1", "2"], ["2", "4"]]
    # evenly spaced row names, or two rows, are a RangeIndex to pandas 3
    for rows in ("1,2,3\n2,4,5\n3,6,7\n", "7,2,3\n9,4,5\n", "x,2,3\ny,4,5\nz,6,7\n"):
        with pytest.raises(InputError, match=r"3 cells in row 2, more cells than the 2 names.*separator=.*comment="):
            read_rows(write("a,b\n" + rows))
    with pytest.raises(InputError, match="3 cells in row 4, more"):
        read_rows(write("a,b\n1,2\n\n1,2,3\n"))
    with pytest.raises(InputError, match="5 cells in row 3, more"):
        read_rows(write("a,b\n1,2\n1,2,3,4,5\n"))
    with pytest.raises(InputError, match="3 cells in row 2, more cells than the 2 cells in its first row"):
        read_rows(write("1,2\n1,2,3\n"), TableFormat(header=False))


def test_rows_are_counted_as_a_spreadsheet_does(write):
    table = read_rows(write("\n\na,b\n1,2\n\n3,4\n\n"))
    assert cells(table) == [["1", "2"], [None, None], ["3", "4"]]
    assert [row_number(table, position) for position in range(3)] == [4, 5, 6]
    table = read_rows(write("# made\na,b\n# more, and, more\n1,2 # here\n\n"), TableFormat(comment="#"))
    assert cells(table) == [[None, None], ["1", "2 "]]
    assert row_number(table, 1) == 4
    assert row_number(read_rows(write("1,2\n3,4\n"), TableFormat(header=False)), 1) == 2


def test_pieces_are_the_whole(write):
    path = write("a,b\n" + "".join(f"{i},NA\n" for i in range(25)))
    pieces = list(read_pieces(path, size=10))
    assert [len(piece) for piece in pieces] == [9, 10, 6]
    pd.testing.assert_frame_equal(pd.concat(pieces), read_rows(path))
    assert [row_number(piece, 0) for piece in pieces] == [2, 11, 21]
    assert next(read_pieces(path, missing=False))["b"].tolist() == ["NA"] * 25


# headers


@pytest.mark.parametrize(
    "content",
    [
        "75,0,190.5\n54,?,160\n",
        "0,0\n1,2\n",
        "0.73,0.53,setosa\n0.05,0.64,setosa\n1.71,0.81,virginica\n",
        "5,ham,see you\n7,ham,buy\n8,spam,now\n",
        "ham,see you\nham,buy\nham,go\nspam,now\n",
        "2020-01-01,100\n2020-01-02,101\n2020-01-03,99\n",
        "12:30,x\n12:45,y\n13:00,z\n",
        "anna,34,1\nberta,41,7\nclara,29,3\n",
        "1,2,3.5,a\n2,3,4.5,b\n3,6,9.5,c\n4,2,1,d\n",
    ],
)
def test_values_in_place_of_a_header_are_refused_and_read_without_one(write, content):
    with pytest.raises(InputError, match=r"in place of its columns' names.*header=False"):
        read_rows(write(content))
    table = read_rows(write(content), TableFormat(header=False))
    assert len(table) == content.count("\n")
    assert list(table.columns) == [f"V{place + 1}" for place in range(table.shape[1])]
    names = tuple("abcdefg"[: table.shape[1]])
    assert list(read_rows(write(content), TableFormat(header=False, names=names)).columns) == list(names)
    with pytest.raises(InputError, match=r"in place of its columns' names"):  # a name for each column hides no row
        read_rows(write(content), TableFormat(names=names))


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,2\n",
        "country,2019,2020\nDE,1.5,2.5\nFR,1.7,2.2\n",
        "2019,kind\n3,red\n5,red\n",
        "label,text\nham,see you\nham,go\nspam,now\n",
        "date,close\n2020-01-01,5\n2020-01-02,6\n",
        "x1,x2\na1,b\na2,c\n",
        "name\nanna\nberta\n",
        ",0,1\nx,3,4\ny,5,6\n",
        "0,1,class\n3.5,4.5,x\n2.5,1.5,x\n",
        "sample,400.5,401.0,401.5\na,3,1,2\nb,3,2,5\nc,3,9,5\n",
    ],
)
def test_names_are_a_header(write, content):
    names = [name or "Unnamed: 0" for name in content.split("\n")[0].split(",")]
    assert list(read_rows(write(content)).columns) == names


def test_names_must_be_different_and_as_many_as_columns(write):
    with pytest.raises(InputError, match="several columns named a: rename"):
        read_rows(write("a,b,a\nx,y,z\n"))
    with pytest.raises(InputError, match="3 columns, but names has 2"):
        read_rows(write("a,b,c\nx,y,z\n"), TableFormat(names=("p", "q")))
    with pytest.raises(InputError, match="names has 'p' twice"):
        TableFormat(names=("p", "p"))


# how a file is written


def test_lecture_6_files_load_as_they_are(write):
    commas = read_rows(write("75,0,?\n54,?,160\n"), TableFormat(header=False, na=("?",)))
    assert cells(commas) == [["75", "0", None], ["54", None, "160"]]
    blanks = TableFormat(header=False, separator="blanks", na=("?",))
    table = read_rows(write('18.0   8  ?\t"ford  pinto"\n  9.0 4 70.  \t"vw"\n'), blanks)
    assert cells(table) == [["18.0", "8", None, "ford  pinto"], ["9.0", "4", "70.", "vw"]]


@pytest.mark.parametrize(("separator", "mark"), [("tab", "\t"), ("\\t", "\t"), ("\t", "\t"), (";", ";"), ("|", "|")])
def test_any_separator(write, separator, mark):
    assert cells(read_rows(write(f"a{mark}b\n1{mark}2,5\n"), TableFormat(separator=separator))) == [["1", "2,5"]]


@pytest.mark.parametrize(
    "format", ["separator=;;", "separator=", "decimal=;", "comment=//", "comment=,", "encoding=x", "encoding=rot13"]
)
def test_a_format_that_cannot_be_is_one_sentence(format):
    name, value = format.split("=")
    with pytest.raises(InputError, match=name):
        TableFormat(**{name: value})


def test_an_exported_row_index_is_left_out_and_said(write):
    for index in ([0, 1, 2], [1, 2, 3], [7, 2, 5]):
        for name in ("", "Unnamed: 0"):
            table = read_rows(write(f"{name},a\n" + "".join(f"{i},x\n" for i in index)))
            assert list(table.columns) == ["a"]
            assert "first column, which has no name and numbers the rows" in notes(table)[0]
    assert list(read_rows(write(",a\n0,x\n1,x\n"), row_index=True).columns) == ["Unnamed: 0", "a"]
    assert list(read_rows(write(",a\n0.5,x\n1.5,x\n")).columns) == ["Unnamed: 0", "a"]
    assert list(read_rows(write("id,a\n0,x\n1,x\n")).columns) == ["id", "a"]
    assert list(read_rows(write(",a\n0,x\n1,x\n"), TableFormat(names=("id", "a"))).columns) == ["id", "a"]


# encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings_are_detected(write, encoding):
    table = read_rows(write("näme,b\n“don’t” 5 €,2\n", encoding))
    assert list(table.columns) == ["näme", "b"]
    assert cells(table) == [["“don’t” 5 €", "2"]]
    assert len(notes(table)) == (encoding == "cp1252")


def test_one_bad_byte_is_named_and_changes_no_other_character(write):
    lines = ["a,b", *["ü,€"] * 5, "x,y"]
    table = read_rows(write("\n".join(lines).encode().replace(b"x", b"x\xff")))
    assert cells(table) == [["ü", "€"]] * 5 + [["x\ufffd", "y"]]
    assert "UTF-8 but for a byte" in notes(table)[0]
    assert "0xff, byte 2 of line 7" in notes(table)[0]
    with pytest.raises(InputError, match="is not utf-8: it has the byte 0xff"):
        read_rows(write(b"a,b\nx\xff,y\n"), TableFormat(encoding="utf-8"))
    with pytest.raises(InputError, match=r"zero bytes.*utf-16-le"):
        read_rows(write("a,b\n1,2\n", "utf-16-le"))
    assert cells(read_rows(write("a,b\n1,2\n", "utf-16-le"), TableFormat(encoding="utf-16-le"))) == [["1", "2"]]


def test_the_place_of_a_bad_byte_is_the_same_however_the_file_is_cut(write, monkeypatch):
    path = write("\n".join(["ü€,1"] * 30).encode() + b"\nab\xe9,2\n")
    whole = find_encoding(path)
    assert "byte 3 of line 31" in whole[1]
    for size in (1, 7, 50):
        monkeypatch.setattr("torchdl.data.text_files.PIECE", size)
        assert find_encoding(path) == whole


@pytest.mark.parametrize("content", [b"PK\3\4rest", b"PAR1\0\0", b"BZh91"])
def test_a_file_that_is_no_text_is_one_sentence(write, content):
    with pytest.raises(InputError, match=r"not a text file"):
        read_rows(write(content))


def test_a_packed_file_is_not_text_in_a_given_encoding_either(write):
    with pytest.raises(InputError, match="is a zip archive or a spreadsheet, not a text file"):
        read_rows(write(b"PK\3\4rest"), TableFormat(encoding="cp1252"))


def test_a_gzipped_file_is_read_up_to_a_limit(write, monkeypatch):
    packed = gzip.compress(b"a,b\n1,\xfc\n")
    assert cells(read_rows(write(packed))) == [["1", "ü"]]
    for damaged in (packed[:-12], packed[:12] + b"\0\0\0" + packed[15:], packed[:10]):
        with pytest.raises(InputError, match="damaged"):
            read_rows(write(damaged))
    monkeypatch.setattr("torchdl.data.text_files.MAX_UNPACKED", 7)
    with pytest.raises(InputError, match="more than 7 bytes unpacked"):
        read_rows(write(packed))
    assert len(read_rows(write(b"a,b\n1,\xfc\n"))) == 1


def test_what_would_take_forever_is_one_sentence(write, monkeypatch):
    monkeypatch.setattr("torchdl.data.delimited_files.MAX_COLUMNS", 100)
    with pytest.raises(InputError, match="101 columns"):
        read_rows(write("," * 100 + "\n1,2\n"))
    monkeypatch.setattr("torchdl.data.text_files.MAX_LINE", 40)
    monkeypatch.setattr("torchdl.data.text_files.PIECE", 30)
    with pytest.raises(InputError, match="line of more than 40 bytes"):
        read_rows(write("a,b\n" + " " * 200))


def test_a_column_without_a_name_is_not_taken_for_one_of_that_name(write):
    table = read_rows(write("Unnamed: 1,,x\na,b,c\n"))
    assert list(table.columns) == ["Unnamed: 1", "Unnamed: 1.1", "x"]


@pytest.mark.parametrize("separator", ["tab", ","])
def test_a_quote_that_swallows_rows_is_named(write, separator):
    mark = "\t" if separator == "tab" else ","
    rows = [
        ["ham", "1", "see you"],
        ["spam", "2", '"buy now'],
        ["ham", "3", "hello"],
        ["spam", "4", '"no'],
        ["ham", "5", "x"],
    ]
    path = write("".join(mark.join(row) + "\n" for row in [["kind", "id", "text"], *rows]))
    with pytest.raises(InputError, match=r'a quote in row 3 that is not closed .*quote="none"'):
        read_rows(path, TableFormat(separator=separator))
    assert read_rows(path, TableFormat(separator=separator, quote="none")).values.tolist() == rows
    assert len(read_rows(write('kind,text\nham,"a, b\nc, d\ne"\nspam,"x\ny"\n'))) == 2


def test_excels_first_line_is_no_header(write):
    table = read_rows(write("sep=;\r\na;b\r\n1;2\r\n"), TableFormat(separator=";"))
    assert table.values.tolist() == [["1", "2"]]
    assert row_number(table, 0) == 3


def test_the_indices_of_a_table_exported_twice_are_left_out(write):
    for header in (",Unnamed: 0,x", "Unnamed: 0.1,Unnamed: 0,x"):
        table = read_rows(write(f"{header}\n0,0,5\n1,1,7\n"))
        assert list(table.columns) == ["x"]
        assert len(table.attrs["notes"]) == 2


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "a spreadsheet"),
        (b"PAR1\x15\x04\x15\0", "Parquet"),
        (b"<!DOCTYPE html>\n<title>Not found, sorry</title>\n", "a web page"),
        (b'{"x": 1, "y": 2}\n{"x": 3, "y": 4}\n', "JSON"),
    ],
)
def test_files_of_other_formats_are_named(write, content, kind):
    with pytest.raises(InputError, match=f"{kind}.*save the table as CSV"):
        read_rows(write(content))
    assert list(read_rows(write("PK,PAR1\n1,2\n")).columns) == ["PK", "PAR1"]


def test_a_title_above_the_header_is_shown(write):
    with pytest.raises(InputError, match=r"1 names in its header \(Sales of 2020\).*remove what stands above"):
        read_rows(write("Sales of 2020\n\na,b\n1,2\n"))


def test_a_quote_that_swallows_rows_of_two_columns_is_named(write):
    rows = "spam,see you\nham,hello\n"
    for content in (f'ham,"oh\n{rows}{rows}spam,"no\n', f'ham,"oh\n{rows}'):
        with pytest.raises(InputError, match=r'a quote in row 4 that is not closed .*quote="none"'):
            read_rows(write(f"kind,text\n{rows}{content}{rows}"))
    with pytest.raises(InputError, match=r"a quote in row 3"):
        read_rows(write('text,kind\nsee you,spam\n"oh,ham\nhello,spam\n"no,ham\nx,ham\n'))


def test_a_separator_of_two_characters_is_refused_with_a_way_out():
    with pytest.raises(InputError, match="not '::': write tabs in the file in its place"):
        TableFormat(separator="::")
