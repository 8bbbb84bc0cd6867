"""Seeded mutations of small files, and readers that must refuse what they make, or read it, within limits."""

from __future__ import annotations

import copy
import ctypes
import functools
import hashlib
import io
import json
import multiprocessing
import random
import resource
import signal
import struct
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchdl import InputError

SECONDS = 2  # of CPU time, per file
MEMORY = 3 * 2**29  # bytes that a reader may take beyond what the process has: a large picture and its conversion
ADDRESSES = 2**33  # bytes that a reader may ask for; with overcommitting, asking is not taking

TOKENS = [
    *(b"", b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b'"', b"'", b",", b",,,", b";", b"\t"),
    *(b"\n", b"\r\n", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"%", b"#", b" ", b"9" * 400, b"1" * 5000),
    *(b"[" * 3000, b'{"a":' * 3000, b"\xf0\x9f\x98\x80", b"=cmd()", b"../../x", b"%s%n", b"-" * 30),
]
NUMBERS = [0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**63, 2**64 - 1]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 10**9, 2**63, 10**30, -(10**9), 0.5, -0.5, float("nan"), float("inf"), 1e308),
    *("", "x", "relu", "\x00", "ü" * 300, "../x", [], {}, [1], [[1]], [None], [-1], [10**9], ["x"], {"x": 1}),
    {"class": "Sine", "arguments": {}},
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change a file's bytes in one to four places."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place, length = rng.randrange(len(changed) + 1), rng.choice([1, 1, 2, 4, 8, 40, 400])
        kind = rng.randrange(8)
        if kind == 0 and changed:
            changed[place % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = rng.choice(TOKENS)
        elif kind == 3:
            changed[place : place + length] = rng.choice(TOKENS)
        elif kind == 4:
            number = rng.choice(NUMBERS) % 2**64
            width = rng.choice([1, 2, 4, 8])
            order = rng.choice(["little", "big"])
            changed[place : place + width] = (number % 2 ** (8 * width)).to_bytes(width, order)
        elif kind == 5:
            other = rng.randrange(len(changed) + 1)
            changed[place:place] = changed[other : other + length]
        elif kind == 6:
            changed[place : place + length] = rng.randbytes(length)
        elif rng.random() < 0.2:
            del changed[place:]
    return bytes(changed)


def mutate_value(value: Any, rng: random.Random, values: list[Any] = VALUES) -> Any:
    """Change one node of a tree of containers: replace, remove, add, repeat or exchange."""
    tree = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        for key in keys:
            places.append((node, key))
            walk(node[key])

    walk(tree)
    if not places or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(values))
    for _ in range(rng.choice([1, 1, 2])):
        node, key = rng.choice(places)
        kind = rng.randrange(6)
        with suppress(LookupError, TypeError):  # a node that an earlier change has removed
            if kind < 3:
                node[key] = copy.deepcopy(rng.choice(values))
            elif kind == 3:
                del node[key]
            elif kind == 4 and isinstance(node, dict):
                node[rng.choice(["x", "", "class", "step", "is_best", "state_dict"])] = copy.deepcopy(
                    rng.choice(values)
                )
            elif kind == 4:
                node *= rng.choice([0, 2, 50])
            else:
                other, place = rng.choice(places)
                node[key] = copy.deepcopy(other[place])
    return tree


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change a JSON file: its values mostly, else its bytes."""
    if rng.random() < 0.3:
        return mutate(data, rng)
    return json.dumps(mutate_value(json.loads(data), rng)).encode()


def with_checksum(data: bytes) -> bytes:
    """Turn what ``torch.save`` writes into a checkpoint, whose checksum is right."""
    data = data[:-2] + struct.pack("<H", 64)
    return data + hashlib.sha256(data).hexdigest().encode()


@functools.cache
def state_of(data: bytes) -> Any:
    """Return what a checkpoint holds."""
    return torch.load(io.BytesIO(data), weights_only=True)


def mutate_checkpoint(data: bytes, rng: random.Random) -> bytes:
    """Change a checkpoint: its values mostly, else its bytes; the checksum is right again."""
    if rng.random() < 0.4:
        return with_checksum(mutate(data[:-64], rng))
    buffer = io.BytesIO()
    torch.save(
        mutate_value(state_of(data), rng, [*VALUES, torch.zeros(3, 3), torch.zeros(1).expand(10**11), (1, 2)]), buffer
    )
    return with_checksum(buffer.getvalue())


def mutate_arrays(data: bytes, rng: random.Random) -> bytes:
    """Change a file of NumPy arrays: an array's values, type or shape mostly, else the bytes."""
    if rng.random() < 0.3:
        return mutate(data, rng)
    with np.load(io.BytesIO(data)) as file:
        arrays = dict(file)
    name = rng.choice(list(arrays))
    array, kind = arrays[name].copy(), rng.randrange(7)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = rng.choice([array[:-1], array[None], array.reshape(-1, 1), array[:0], np.array(3)])
    elif kind == 2:
        kinds = ["S4", "U4", "O"] if array.dtype.kind == "U" else ["float64", "S4", "U4", "bool", "int8"]
        arrays[name] = array.astype(rng.choice(kinds), casting="unsafe")
    elif kind == 3:
        arrays[name] = arrays[rng.choice(list(arrays))]
    else:
        values = [0, -1, 1, 2, 99, 2**31 - 1, -(2**31), np.nan, np.inf]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = array.astype("float64") if array.dtype.kind in "fi" else array
            array[rng.randrange(len(array))] = rng.choice([7, "x"] if array.dtype.kind == "U" else values)
            arrays[name] = array if kind == 4 else array.astype(arrays[name].dtype)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


class Hang(BaseException):
    """A reader took too long."""


Made = tuple[Path, Callable[[], Any]]  # a file, and what reads it


def fault_of(read: Callable[[], Any], seconds: float) -> str | None:
    """Call ``read`` for ``seconds`` of CPU time; say what it raised, but for an error of one sentence."""
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except InputError as error:
        sentence = str(error)
        if "\n" in sentence or not sentence or "weights_only" in sentence:
            return f"{sentence!r} is not one sentence"
    except BaseException as error:
        *_, where = frames = traceback.extract_tb(error.__traceback__)
        own = next((frame for frame in reversed(frames) if "torchdl" in frame.filename), where)
        return (
            f"{type(error).__name__}: {str(error)[:200]!r} at {where.filename}:{where.lineno}, "
            f"called from {own.filename}:{own.lineno}"
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def check(
    make: Callable[[Path], Made], mutation: Any, folder: Path, count: int, seconds: float, memory: int
) -> list[str]:
    """Read ``count`` mutations of a file; return a line for each that was neither read nor refused in one sentence."""
    path, read = make(folder)
    data, faults = path.read_bytes(), list[str]()
    read()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        limit = pages * resource.getpagesize() + ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, stop)
    for number in range(count):
        path.unlink()  # to write over a file is slow: some file systems then flush it
        path.write_bytes(mutation(data, random.Random(f"{path.name} {number}")))
        fault = fault_of(read, seconds)
        if fault and fault.startswith(Hang.__name__):  # a machine may be slow to give memory, but gives it once
            fault = fault_of(read, seconds)
        if fault:
            faults.append(f"{number}: {fault}")
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        if taken > memory:
            faults.append(f"{number}: {taken:,} bytes")
            before += taken
    return faults


def faults_of(
    make: Callable[[Path], Made],
    mutation: Any,
    folder: Path,
    count: int,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    patience: float = 120,
) -> list[str]:
    """Call :func:`check` in a process of its own, which has limits of memory and time."""
    context = multiprocessing.get_context("fork")  # without the seconds that importing everything takes
    receiver, sender = context.Pipe(duplex=False)

    with suppress(OSError, AttributeError):  # without glibc
        # memory that earlier tests have freed, but kept, would hide what a reader takes
        ctypes.CDLL("libc.so.6").malloc_trim(0)

    def work() -> None:
        torch.set_num_threads(1)
        sender.send(check(make, mutation, folder, count, seconds, memory))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        process = context.Process(target=work)
        process.start()
    sender.close()
    try:
        if not receiver.poll(patience):
            return ["the process did not end"]
        return list(receiver.recv())
    except EOFError:
        process.join()
        return [f"the process ended with {process.exitcode}"]
    finally:
        process.kill()
        process.join()
