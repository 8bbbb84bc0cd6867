"""Files that are written whole or not at all, and the names of the files in a run's folder."""

from __future__ import annotations

import errno
import json
import operator
import os
import secrets
import stat
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypedDict, TypeVar

import msgspec

from torchdl.errors import InputError, require

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")
PathLike = str | os.PathLike[str]

CONFIG = "config.json"  # every setting, the versions and the data's fingerprint
METRICS = "metrics.csv"  # one row per epoch
RESULTS = "results.json"  # the results at the end of a run
FORECASTS = "forecasts.csv"  # the terms that a forecaster was tested on, and its forecasts of them
EVALUATION = "evaluation.json"  # the evaluation of a trained generator
PLOTS = "plots"  # the folder of the figures
SAMPLES = "samples"  # the folder of preview images
LOGGERS = "loggers"  # what names the run in other programs
PROBE = "probe"  # the folder of what a probe has found
EMBEDDING = "00000"  # the folder of what TensorBoard's projector shows
CHECKPOINT, PREVIOUS, BEST = "checkpoint.pt", "checkpoint.previous.pt", "best.pt"
ARCHITECTURE, WEIGHTS = "architecture.json", "weights.safetensors"
PREPROCESSING = "preprocessing.json"  # what is between raw inputs and tensors, and between outputs and answers
MAX_JSON = 2**28  # bytes
PLAIN: tuple[type[Any], ...] = (bool, int, float, str, bytes)


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run can be resumed; a run killed between two renames has only the previous checkpoint."""
    return (folder / CHECKPOINT).is_file() or (folder / PREVIOUS).is_file()


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary file to write to; then flush it to the disk and rename it to ``path``.

    If anything goes wrong before the rename (a full disk, a killed process), the old file stays as it was. The
    temporary file is new and its name random, so that no link that somebody else has made is followed.

    Args:
        path: The file to write or to replace.
        previous: The name that the old file gets; None to remove it.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666))
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it; raise :class:`InputError` if there is a file in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} cannot be a folder, because there is a file: choose another name") from error


def cache_folder() -> Path:
    """Return torchdl's folder for downloads and caches: ``$XDG_CACHE_HOME/torchdl`` or ``~/.cache/torchdl``.

    A user without a home, as in some containers, has a folder of their own among the temporary ones instead.

    Raises:
        InputError: That folder is somebody else's.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "torchdl"
    try:
        return Path.home() / ".cache" / "torchdl"
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"torchdl-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022
        require(own, f"there is no home folder, and others may write to {folder}: set XDG_CACHE_HOME to a folder")
        return folder


def require_suffix(path: PathLike, *suffixes: str) -> None:
    """Raise :class:`InputError` unless ``path`` ends in one of ``suffixes``, which name what will be written."""
    wanted = " or ".join(suffixes)
    require(Path(path).suffix.lower() in suffixes, f"{path} must end in {wanted}, because that is what is written")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a renamed file keeps its new name after a power cut."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems flush no folders
            raise
    finally:
        os.close(descriptor)


def plain(value: Any, keep: type | tuple[type, ...] = ()) -> Any:
    """Convert values of other types, in containers too, to the types that Python and JSON have.

    NumPy's and PyTorch's numbers and arrays, members of enumerations, paths, and containers of classes of their own
    are converted. A container that holds only plain values is returned as it is, and so is a value of an unknown type.

    Args:
        value: Any value.
        keep: Types whose values stay as they are.

    Example:
        >>> import numpy as np
        >>> torchdl.files.plain({"rate": np.float32(0.5), "sizes": (np.int64(3), 4)})
        {'rate': 0.5, 'sizes': (3, 4)}
    """
    if value is None or type(value) in PLAIN or isinstance(value, keep):
        return value
    if isinstance(value, Enum):
        return plain(value.value, keep)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        items = [(key, item, plain(key, keep), plain(item, keep)) for key, item in value.items()]
        same = type(value) in (dict, OrderedDict) and all(key is k and item is i for key, item, k, i in items)
        return value if same else {k: i for _, _, k, i in items}
    if isinstance(value, (list, tuple)):
        parts = [plain(item, keep) for item in value]
        if type(value) in (list, tuple) and all(map(operator.is_, parts, value)):
            return value
        return parts if isinstance(value, list) else tuple(parts)
    for kind in PLAIN:
        if isinstance(value, kind):
            return kind(value)
    return plain(value.tolist(), keep) if callable(getattr(value, "tolist", None)) else value


def write_json(path: Path, value: Any, default: Callable[[Any], Any] | None = None) -> None:
    """Write ``value`` as indented JSON, whole or not at all, and read it back before it replaces the old file.

    Args:
        path: The file.
        value: The value; :func:`plain` is applied to it.
        default: Converts the remaining values that JSON lacks.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plain(value), indent=2, default=default) + "\n", encoding="utf-8")
        read_json(temporary)


def encodable(value: Any) -> Any:
    """Return a value; in a text, characters that UTF-8 lacks, as names of files may have, are written as in Python.

    Example:
        >>> torchdl.files.encodable(b"caf\\xe9.png".decode("utf-8", "surrogateescape"))
        'caf\\\\udce9.png'
    """
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def write_table(path: Path, table: pandas.DataFrame) -> None:
    """Write a table's rows, without its index, whole or not at all: as JSON if ``path`` ends in ``.json``, else as CSV.

    Texts are written as :func:`encodable` returns them.
    """
    from pandas.api.types import is_numeric_dtype  # imported late: it takes a second

    with replacing(path) as temporary:
        if path.suffix.lower() != ".json":
            table.to_csv(temporary, index=False, errors="backslashreplace")
            return
        cells = table.apply(lambda column: column if is_numeric_dtype(column) else column.map(encodable))
        options: dict[str, Any] = {"double_precision": 15, "force_ascii": False, "date_format": "iso"}
        cells.columns = [encodable(name) for name in cells]  # by rename, pyarrow would meet the old names again
        cells.to_json(temporary, orient="records", indent=2, **options)


def write_array(path: Path, array: Any) -> None:
    """Write an array of numbers as ``.npy``, whole or not at all."""
    import numpy  # imported late, as pandas is

    with replacing(path) as temporary, temporary.open("wb") as file:
        numpy.save(file, array, allow_pickle=False)


def read_json(path: PathLike, kind: Any = Any, limit: int = MAX_JSON) -> Any:
    """Read a JSON file that may be anybody's, and check what it holds.

    Args:
        path: The file.
        kind: What it must hold: a type such as ``dict[str, float]``, a dataclass or a ``TypedDict``. Values that JSON
            lacks are converted: a list to a tuple, an object to a dataclass.
        limit: The maximum size in bytes.

    Returns:
        The value, of type ``kind``.

    Raises:
        InputError: The file is missing, too large, damaged, nested too deeply, or holds something else.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "classes.json")
        >>> with open(path, "w") as file:
        ...     _ = file.write('["ham", 3]')
        >>> torchdl.files.read_json(path, list[str])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: .../classes.json cannot be read: Expected `str`, got `int` - at `$[1]`
    """
    try:
        with open(path, "rb") as file:
            text = file.read(limit + 1)
        require(len(text) <= limit, f"{path} cannot be read: it is larger than {limit:,} bytes")
        return msgspec.convert(json.loads(text.decode("utf-8")), kind)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path} cannot be read: it is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except ValueError as error:  # JSON's and UTF-8's errors are ValueErrors
        raise InputError(f"{path} cannot be read: it is not JSON, or damaged ({error})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def check_archive(file: IO[bytes]) -> None:
    """Check that a zip archive's members are no larger than the archive, before anything reads them.

    ``torch.save`` compresses nothing, but a stranger's compressed member may grow a thousandfold.

    Raises:
        InputError: The bytes are not a zip archive, or its members are compressed or overlap.
    """
    try:
        size = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        file.seek(0)
    except Exception as error:  # a damaged archive raises many kinds
        raise InputError("it is not a zip archive, as torch.save writes") from error
    stored = all(m.compress_type == zipfile.ZIP_STORED and m.file_size == m.compress_size for m in members)
    whole = sum(m.file_size for m in members) <= size
    require(stored and whole, "its members are compressed or overlap, unlike those that torch.save writes")


def leaves(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what nested dictionaries, ``value``, hold, each with the keys that lead to it; however deep."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while stack:
        keys, each = stack.pop()
        if isinstance(each, dict):
            stack += [((*keys, str(key)), item) for key, item in reversed(each.items())]
        else:
            yield keys, each


class Record(TypedDict, total=False):
    """What a run's ``config.json`` holds that others read."""

    config: dict[str, Any]
    data: dict[str, Any]
    parameters: int | None


def require_run(folder: Path) -> None:
    """Raise :class:`InputError` if there is no folder of a run."""
    require(folder.is_dir(), f"there is no folder {folder}: name that of a run")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the ``config.json`` in a run's ``folder``.

    Raises:
        InputError: It is missing or damaged, or holds something else.
    """
    require_run(folder)
    try:
        read_json(folder / CONFIG, Record)
        return dict(read_json(folder / CONFIG))  # with all its keys
    except InputError as error:
        reason = str(error).split(": ", 1)[-1]
        raise InputError(f"{folder} is not a run's folder: its {CONFIG} cannot be read ({reason})") from error


def read_settings(folder: Path, kind: type[T]) -> T:
    """Read those settings of a run that ``kind`` (a ``TypedDict``) declares, from the ``config.json`` in ``folder``.

    Raises:
        InputError: There is no such file, or a setting is missing or of another type.
    """
    try:
        return msgspec.convert(read_config(folder).get("config", {}), kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{folder / CONFIG} has other settings: {error}") from error
