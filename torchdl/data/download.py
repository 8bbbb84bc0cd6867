"""Download and check files, in the same way for every data set."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchdl.errors import InputError, require
from torchdl.files import replacing

TIMEOUT = 10.0  # seconds that a server may be silent


class NotFound(InputError):
    """A data set is not on this machine and was not downloaded."""


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


def read_url(url: str) -> bytes:
    """Return all bytes at a URL; if that fails, InputError names the URL and the reason."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return response.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"{url}: {getattr(error, 'reason', None) or str(error) or type(error).__name__}") from error


def require_checksum(data: bytes, url: str, expected: str, algorithm: str = "SHA-256") -> None:
    """Raise InputError unless the bytes from a URL have the expected checksum (hexadecimal)."""
    found = hashlib.new(algorithm.replace("-", ""), data, usedforsecurity=False).hexdigest()
    require(found == expected, f"{url}: {algorithm} {found[:12]}... where {expected[:12]}... was expected")


def download(urls: Sequence[str], path: Path, sha256: str) -> None:
    """Download from the first of ``urls`` whose file has this SHA-256 to ``path``.

    A ``*.gz`` file is unpacked first, unless ``path`` ends in ``.gz``, too. The file gets its name only when it is
    complete and verified.

    Raises:
        InputError: No URL gave the expected bytes; the message has the reason for each.
    """
    failures = []
    for url in urls:
        try:
            data = read_url(url)
            if url.endswith(".gz") and path.suffix != ".gz":
                data = gzip.decompress(data)
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
