"""Text files in any encoding, gzipped or not."""

from __future__ import annotations

import codecs
import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from torchdl.errors import InputError, require
from torchdl.files import PathLike

PACKED = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of old Excel",
    b"PAR1\x15": "in the Parquet format",
    b"BZh": "compressed (bzip2)",
    b"\xfd7zX": "compressed (xz)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)",
    b"<!DO": "a web page",
    b"<!do": "a web page",
    b"<htm": "a web page",
    b'{"': "in the JSON format",
    b'[{"': "in the JSON format",
}
PIECE = 2**24  # bytes decoded at a time to find the encoding
MAX_LINE, MAX_UNPACKED = 2**28, 2**32  # bytes


def find_encoding(path: PathLike, encoding: str = "") -> tuple[str, str]:
    """Return a text file's encoding, and a note if it cannot be decoded without loss; read it with errors="replace".

    A byte-order mark decides. A file that is UTF-8, but for fewer bytes than it has other characters beyond ASCII, is
    UTF-8. Any other file is cp1252.

    Args:
        path: The file.
        encoding: The encoding, if it is known.

    Raises:
        InputError: The file has zero bytes, as UTF-16 without its mark and files that are not text have.
    """
    bad = good = lines = size = 0
    first, rest = "", b""
    with open_bytes(path) as file:
        head = file.read(8)
        require_text(path, head)
        if encoding:
            return encoding, ""
        for mark, name in (
            (codecs.BOM_UTF32_LE, "utf-32"),
            (codecs.BOM_UTF32_BE, "utf-32"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        ):
            if head.startswith(mark):
                return name, ""
        file.seek(0)
        while True:
            piece = file.read(PIECE)
            data, size = rest + piece, size + len(piece)
            limit = MAX_UNPACKED if isinstance(file, gzip.GzipFile) else math.inf
            require(size <= limit, f"{path} has more than {MAX_UNPACKED:,} bytes unpacked: unpack it, if you trust it")
            require(len(rest) <= MAX_LINE, f"{path} has a line of more than {MAX_LINE:,} bytes: it is not a table")
            end = data.rfind(b"\n") + 1 if piece else len(data)  # no character goes over the end of a line
            data, rest = data[:end], data[end:]
            require(
                b"\0" not in data,
                f'{path} has zero bytes: it is not a text file, or UTF-16 without its mark (encoding="utf-16-le")',
            )
            if not data.isascii():
                text = data.decode("utf-8", "replace")
                wrong = text.count("\ufffd") - data.count("\ufffd".encode())
                good += len(text) - len(text.encode("ascii", "ignore")) - wrong
                if wrong and not first:
                    first = _first_bad_byte(data, lines)
                bad += wrong
            lines += data.count(b"\n")
            if not piece:
                break
    if not bad:
        return "utf-8-sig", ""
    if good > bad:
        others = (
            f"{bad:,} bytes, which are read as \ufffd; the first is" if bad > 1 else "a byte, which is read as \ufffd:"
        )
        return "utf-8-sig", f"{path} is UTF-8 but for {others} {first}"
    doubt = "; name its encoding if letters look wrong"
    return "cp1252", f"{path} is read as cp1252, since it is not UTF-8: it has {first}{doubt}"


def require_text(path: PathLike, head: bytes) -> None:
    """Raise InputError if a file's first bytes are those of another format."""
    for mark, kind in PACKED.items():
        require(not head.startswith(mark), f"{path} is {kind}, not a text file: unpack it, or save the table as CSV")


def _first_bad_byte(data: bytes, lines: int) -> str:
    """Say which byte is not UTF-8, and where, if ``lines`` lines come before the data."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + lines + 1
        place = error.start - data.rfind(b"\n", 0, error.start)
        return f"0x{data[error.start]:02x}, byte {place} of line {line:,}"
    return ""


def open_bytes(path: PathLike) -> BinaryIO:
    """Open a file, gzipped or not."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else open(path, "rb")


@contextmanager
def open_text(path: Path, encoding: str, errors: str, comment: str = "") -> Iterator[io.TextIOBase]:
    """Open a file as text, gzipped or not; lines that are comments become blank, so that they are counted as rows."""
    with io.TextIOWrapper(open_bytes(path), encoding, errors, newline="") as file:
        if not comment:
            yield file
            return
        # a quoted cell may have such lines, too
        lines = re.compile(rf'"[^"]*"|^[ \t]*{re.escape(comment)}[^\r\n]*', re.MULTILINE)
        yield io.StringIO(lines.sub(lambda found: found[0] if found[0][0] == '"' else "", file.read()), newline="")


@contextmanager
def reading(path: PathLike, encoding: str) -> Iterator[None]:
    """Convert the errors of decoding and unpacking a file into an :class:`InputError` that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not {encoding}: it has the byte 0x{error.object[error.start]:02x}, which {encoding} does not "
            f"({error.reason}): name another encoding, or none to detect it"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged: it cannot be unpacked ({error})") from error
