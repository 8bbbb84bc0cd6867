"""HDF5 files as h5py writes them for Keras, read in Python alone.

HDF5's own library is not made for strangers' files: on damaged ones it loops without end or crashes, and links and
external storage let a file read others. This reader knows what Keras needs and nothing else: groups, hard links, texts
as attributes, and arrays that stand in the file as they are. See "HDF5 File Format Specification", version 3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from torchdl.errors import require

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NEWER = "it is written in a newer form of HDF5 than h5py writes for Keras: load it in Keras and save it again"
NOWHERE = 2**64 - 1
DATASPACE, DATATYPE, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE, CONTINUATION, SYMBOLS = 1, 3, 7, 8, 11, 12, 16, 17
NEW_MESSAGES = (2, 6)  # of groups whose links may lead to other files
LINK = 2  # the cache type of a symbolic link
FLOATS = {  # precision: bits of exponent and mantissa, where they begin, and the exponent's bias
    2: (0, 16, 10, 5, 0, 10, 15),
    4: (0, 32, 23, 8, 0, 23, 127),
    8: (0, 64, 52, 11, 0, 52, 1023),
}
Messages = list[tuple[int, int, int]]  # kind, place and size


class File:
    """The bytes of an HDF5 file.

    What may be read of them in all is bounded, so that structures which overlap, repeat or run in circles end.
    """

    def __init__(self, data: bytes) -> None:
        require(data[:8] == SIGNATURE, "it is neither a zip archive (.keras) nor HDF5 (.h5)")
        self.data = memoryview(data)
        self.left = 8 * len(data) + 2**27
        self.objects: dict[int, Object] = {}
        self.heaps: dict[int, dict[int, tuple[int, int]]] = {}
        version = self.number(8, 1)
        require(version in (0, 1), NEWER)
        require((self.number(13, 1), self.number(14, 1)) == (8, 8), NEWER)
        start = 24 if version == 0 else 28
        require(self.number(start) == 0, "its HDF5 part begins in another place than 0")
        self.root = self.object(self.number(start + 40))

    def take(self, place: int, size: int) -> memoryview:
        """Return bytes, which must be in the file."""
        require(place + size <= len(self.data), "it ends too early, or is damaged")
        self.left -= size + 64
        require(self.left >= 0, "it refers to the same bytes again and again")
        return self.data[place : place + size]

    def number(self, place: int, size: int = 8) -> int:
        """Return an unsigned number."""
        return int.from_bytes(self.take(place, size), "little")

    def expect(self, place: int, mark: bytes) -> None:
        """Raise InputError unless a part of the file begins with its mark."""
        require(self.take(place, len(mark)) == mark, f"it is damaged: {mark.decode()} is not where it should be")

    def object(self, place: int) -> Object:
        """Return the group or array whose header is at a place."""
        if place not in self.objects:
            self.objects[place] = Object(self, place)
        return self.objects[place]

    def heap(self, place: int) -> dict[int, tuple[int, int]]:
        """Return the places and sizes of the texts in a global heap."""
        if place not in self.heaps:
            self.expect(place, b"GCOL")
            end, at, found = place + self.number(place + 8), place + 16, dict[int, tuple[int, int]]()
            while at + 16 <= end and (index := self.number(at, 2)):
                size = self.number(at + 8)
                found[index] = at + 16, size
                at += 16 + (size + 7) // 8 * 8
            self.heaps[place] = found
        return self.heaps[place]


class Object:
    """A group or an array of a file, with its attributes."""

    def __init__(self, file: File, place: int) -> None:
        self.file = file
        require(file.number(place, 1) == 1, NEWER)
        self.messages: Messages = []
        blocks = [(place + 16, file.number(place + 8, 4))]
        for at, size in blocks:  # which grows
            end = at + size
            while at + 8 <= end:
                kind, length, shared = file.number(at, 2), file.number(at + 2, 2), file.number(at + 4, 1) & 2
                require(not shared or kind not in (DATASPACE, DATATYPE, LAYOUT, SYMBOLS), NEWER)
                require(kind not in NEW_MESSAGES, "it holds links to elsewhere, or " + NEWER)
                require(at + 8 + length <= end, "it is damaged: a header is longer than its place")
                self.messages.append((kind, at + 8, length))
                if kind == CONTINUATION:
                    blocks.append((file.number(at + 8), file.number(at + 16)))
                at += 8 + length
        self._children: dict[str, int | None] | None = None

    def message(self, wanted: int) -> int | None:
        """Return the place of a message of a kind."""
        return next((at for kind, at, _ in self.messages if kind == wanted), None)

    @property
    def children(self) -> dict[str, int | None]:
        """The places of a group's members by name; None for a link to elsewhere."""
        if self._children is None:
            self._children = {}
            if (at := self.message(SYMBOLS)) is not None:
                heap = self.file.number(at + 8)
                self.file.expect(heap, b"HEAP")
                self.list_members(self.file.number(at), self.file.number(heap + 24), self.file.number(heap + 8))
        return self._children

    def list_members(self, tree: int, names: int, size: int) -> None:
        """Collect the members that a tree of nodes lists."""
        assert self._children is not None
        file, left, seen = self.file, [tree], set[int]()
        while left:
            if (node := left.pop()) in seen:
                continue
            seen.add(node)
            if file.take(node, 4) == b"TREE":
                left += [file.number(node + 32 + 16 * i) for i in range(file.number(node + 6, 2))]
                continue
            file.expect(node, b"SNOD")
            for entry in range(node + 8, node + 8 + 40 * file.number(node + 6, 2), 40):
                offset = file.number(entry)
                name = bytes(file.take(names + offset, max(0, min(1024, size - offset)))).split(b"\0")[0]
                link = file.number(entry + 16, 4) == LINK
                self._children[name.decode("utf-8", "replace")] = None if link else file.number(entry + 8)

    def child(self, name: str) -> Object | None:
        """Return a member of a group, or None if there is none of this name."""
        if name not in self.children:
            return None
        place = self.children[name]
        require(place is not None, f"{name!r} in it is a link to elsewhere")
        return self.file.object(place or 0)

    def attribute(self, name: str) -> list[str] | None:
        """Return the texts that an attribute holds, or None if there is none of this name."""
        for kind, at, size in self.messages:
            if kind != ATTRIBUTE:
                continue
            version, flags = self.file.number(at, 1), self.file.number(at + 1, 1)
            sizes = [self.file.number(at + 2 + 2 * i, 2) for i in range(3)]  # of name, type and shape
            padded = [(each + 7) // 8 * 8 for each in sizes] if version == 1 else sizes
            start = at + (9 if version == 3 else 8)
            title = bytes(self.file.take(start, sizes[0])).split(b"\0")[0]
            if title == name.encode():
                require(version in (1, 2, 3) and (version == 1 or not flags & 3), NEWER)
                datatype, space = start + padded[0], start + padded[0] + padded[1]
                data = space + padded[2]
                return self.texts(name, datatype, math.prod(self.shape(space)), data, at + size - data)
        return None

    def texts(self, name: str, datatype: int, count: int, at: int, size: int) -> list[str]:
        """Return texts of fixed or of any length."""
        file = self.file
        kind, length = file.number(datatype, 1) & 15, file.number(datatype + 4, 4)
        if count == 0:
            return []
        require(kind == 3 or (kind == 9 and file.number(datatype + 1, 1) & 15 == 1), f"its {name} is no text")
        require(length > 0 and count * length <= size, f"its {name} is damaged")
        found = []
        for place in range(at, at + count * length, length):
            raw = file.take(place, length)
            if kind == 9:
                heap, index = file.number(place + 4), file.number(place + 12, 4)
                raw = file.take(*file.heap(heap).get(index, (NOWHERE, 0)))[: file.number(place, 4)]
            found.append(bytes(raw).rstrip(b"\0").decode("utf-8"))
        return found

    def shape(self, at: int) -> tuple[int, ...]:
        """Return the shape that a dataspace describes; () for a single value, (0,) for none."""
        version, rank, kind = self.file.number(at, 1), self.file.number(at + 1, 1), self.file.number(at + 3, 1)
        require(version in (1, 2) and rank <= 32, NEWER)
        start = at + (8 if version == 1 else 4)
        shape = tuple(self.file.number(start + 8 * i) for i in range(rank))
        return (0,) if version == 2 and kind == 2 else shape

    def dtype(self, at: int) -> np.dtype[Any]:
        """Return the type of an array's numbers, which must be IEEE's floating-point numbers."""
        kind, order, size = self.file.number(at, 1) & 15, self.file.number(at + 1, 1) & 65, self.file.number(at + 4, 4)
        widths = (2, 2, 1, 1, 1, 1, 4)
        values = tuple(self.file.number(at + 8 + sum(widths[:i]), width) for i, width in enumerate(widths))
        require(
            kind == 1 and values == FLOATS.get(size) and order < 2,
            "are no real numbers of 16, 32 or 64 bits in the form of IEEE 754",
        )
        return np.dtype(f"{'>' if order else '<'}f{size}")

    def array(self) -> np.ndarray:
        """Return an array of floating-point numbers, which must stand in the file as they are.

        Raises:
            InputError: It is no such array; the message goes on after the array's name.
        """
        places = [self.message(kind) for kind in (DATASPACE, DATATYPE, LAYOUT)]
        space, datatype, layout = (place or 0 for place in places)
        require(None not in places, "are no array")
        dtype, shape = self.dtype(datatype), self.shape(space)
        size = math.prod(shape) * dtype.itemsize
        version, form = self.file.number(layout, 1), self.file.number(layout + 1, 1)
        outside = self.message(EXTERNAL) is not None or self.message(FILTERS) is not None
        require(not outside and version in (3, 4) and form in (0, 1), "are compressed or stored elsewhere")
        if size == 0:
            return np.zeros(shape, dtype.newbyteorder("="))
        compact = form == 0
        start = layout + 4 if compact else self.file.number(layout + 2)
        stored = self.file.number(layout + 2, 2) if compact else self.file.number(layout + 10)
        require(stored == size and start != NOWHERE, "are not all there")
        numbers = np.frombuffer(self.file.take(start, size), dtype).reshape(shape)
        return numbers.astype(dtype.newbyteorder("="))  # a copy, that may be changed
