"""Download and check files, in the same way for every data set."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import queue
import threading
import time
import urllib.request
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torchdl.data.idx import read_at_most
from torchdl.errors import FallbackWarning, InputError, require
from torchdl.files import replacing

StandInT = TypeVar("StandInT", bound=Any)

TIMEOUT = 10.0  # seconds that a server may be silent
PATIENCE, SLOWEST = 60.0, 10_000  # after so many seconds, so many bytes per second on average
MAX_BYTES = 2**29  # per file; ml-20m has 190 million


class NotFound(InputError):
    """A data set is not on this machine and was not downloaded."""


IN_ITS_PLACE = ". IN ITS PLACE: "  # between why data are missing, and the origin of those that replace them


def standing_in(found: StandInT, error: NotFound, stacklevel: int) -> StandInT:
    """Return data that replace others, which say so in their origin, and warn of it at the caller's line.

    Args:
        found: The data, a dataclass with ``origin`` and ``fallback``.
        error: Why the others are missing.
        stacklevel: As for :func:`warnings.warn`, called in place of this function.
    """
    origin = f"{error}{IN_ITS_PLACE}{found.origin}"
    warnings.warn(origin, FallbackWarning, stacklevel=stacklevel + 1)
    return replace(found, origin=origin, fallback=True)


@contextmanager
def downloading(name: str, looked: Sequence[Path], advice: str, fetch: bool) -> Iterator[None]:
    """Raise one error if a download fails: what is missing, where torchdl looked for it, and what to do.

    Args:
        name: The data set.
        looked: The places where torchdl looked for it.
        advice: What the user can do instead.
        fetch: Whether downloads are allowed.

    Raises:
        NotFound: The block raised InputError, or downloads are not allowed.
    """
    missing = f"{name} was not found in {', '.join(map(str, looked))}, and"
    if not fetch:
        raise NotFound(f"{missing} downloading was turned off: {advice}")
    try:
        yield
    except InputError as error:
        raise NotFound(f"{missing} {error}: {advice}") from error


def read_url(url: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Return all bytes at a URL.

    Args:
        url: The URL.
        max_bytes: The maximum number of bytes.

    Raises:
        InputError: There is no answer, it is incomplete or too long, or it is so slow that it might never end: after
            :data:`PATIENCE` seconds, :data:`SLOWEST` bytes a second are expected on average.
    """
    blocks: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    done, data, began = threading.Event(), bytearray(), time.monotonic()
    # in a thread, because a server can keep every call waiting, a byte at a time
    threading.Thread(target=_receive, args=(url, blocks, done), daemon=True).start()
    try:
        while True:
            due = began + PATIENCE + len(data) / SLOWEST
            block = blocks.get(timeout=max(0.0, due - time.monotonic()))
            if isinstance(block, Exception):
                raise block
            if not block:
                return bytes(data)
            data += block
            require(len(data) <= max_bytes, f"it has more bytes than {max_bytes=:,}")
    except queue.Empty as error:
        slow = f"it sent {len(data):,} bytes in {time.monotonic() - began:.0f} seconds, too few to wait for more"
        raise InputError(f"{url}: {slow}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"{url}: {getattr(error, 'reason', None) or str(error) or type(error).__name__}") from error
    finally:
        done.set()


def _receive(url: str, blocks: queue.SimpleQueue[bytes | Exception], done: threading.Event) -> None:
    """Put what a URL sends into a queue, as it comes: blocks of bytes, then an empty one, or an error."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            while not done.is_set() and (block := response.read1(2**16)):
                blocks.put(block)
            missing = getattr(response, "length", 0) or 0  # of the promised bytes
            require(missing == 0, f"the connection closed {missing:,} bytes too early")
        blocks.put(b"")
    except Exception as error:  # raised by the caller
        blocks.put(error)


def require_checksum(data: bytes | bytearray, url: str, expected: str, algorithm: str = "SHA-256") -> None:
    """Raise InputError unless the bytes from a URL have the expected checksum (hexadecimal)."""
    found = hashlib.new(algorithm.replace("-", ""), data, usedforsecurity=False).hexdigest()
    require(found == expected, f"{url}: {algorithm} {found[:12]}... where {expected[:12]}... was expected")


def download(urls: Sequence[str], path: Path, sha256: str, max_bytes: int = MAX_BYTES) -> None:
    """Download from the first of ``urls`` whose file has this SHA-256 to ``path``.

    A ``*.gz`` file is unpacked first, unless ``path`` ends in ``.gz``, too. The file gets its name only when it is
    complete and verified. It may have ``max_bytes``, packed and unpacked.

    Raises:
        InputError: No URL gave the expected bytes; the message has the reason for each.
    """
    failures = []
    for url in urls:
        try:
            data: bytes | bytearray = read_url(url, max_bytes)
            if url.endswith(".gz") and path.suffix != ".gz":
                with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                    data = read_at_most(packed, max_bytes + 1)
                require(len(data) <= max_bytes, f"{url}: unpacked, it has more bytes than {max_bytes=:,}")
            require_checksum(data, url, sha256)
        except (OSError, EOFError, zlib.error) as error:
            failures.append(f"{url}: {error}")
            continue
        except InputError as error:
            failures.append(str(error))
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}): name another data root") from error
        return
    raise InputError(f"{path.name} could not be downloaded ({'; '.join(failures)})")
