"""A pack: the files of an archive in one plain file of our own, made once and read at random places.

Nothing is extracted: no name of an archive ever becomes a name on a disk, so no path, link or device can lead anywhere,
and a hundred thousand small files cost one sequential write. Unlike the archive itself a pack can be read by several
processes at once, in any order.

Layout: a magic line; the files' contents one after the other; a JSON line about the whole; a JSON line for each file,
sorted by path; the position and SHA-256 of those lines. It is written beside and renamed.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from codetune_trainer.errors import SourceUnavailable
from codetune_trainer.scan.archive.entries import Entry, too_long_names
from codetune_trainer.scan.archive.limits import Limits
from codetune_trainer.scan.archive.names import EntryName, read_name
from codetune_trainer.scan.records import Found

_MAGIC = b"codetune pack 1\n"
"""Another version of the rules of names or of this layout gets another number, so that old packs are made anew."""
_KEY = struct.Struct(">QQL")
_TRAILER = struct.Struct(">Q32s")
_BUFFER = 1 << 20


@dataclass(frozen=True)
class About:
    """What a person should know about an archive as a whole."""

    top: str = ""
    """The single folder that everything lies in; it is left out of the paths."""
    replaced: int = 0
    """Entries whose name comes again later."""
    example: str = ""
    """The path of one of those."""


@dataclass(frozen=True, slots=True)
class _Row:
    path: bytes
    """In UTF-8: as text one character of it may take four bytes for each."""
    size: int
    obstacle: str
    place: tuple[int, int]
    """Position and checksum of its content."""
    aside: bool
    """Whether it stands beside the archive's folders: its name was refused, or the archiver added it."""


def write_pack(path: Path, entries: Iterable[Entry], limits: Limits) -> None:
    """Write all entries' contents and their list, whole or not at all.

    Args:
        path: The pack; it appears at the end.
        entries: The archive's.
        limits: What is allowed.

    Raises:
        InvalidArchive: All names together are too long.
        SourceError: What reading the entries raises.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with beside.open("wb", buffering=_BUFFER) as file:
            file.write(_MAGIC)
            rows, replaced, example = _write_contents(file, entries, limits)
            top = _find_top(rows)
            cut = len(top) + 1 if top else 0
            about = About(top.decode(), replaced, example[cut:].decode())
            _write_index(file, about, _list_rows(rows, cut))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_about(path: Path) -> About | None:
    """What a pack says about its archive; None when there is no whole pack of this version."""
    try:
        with path.open("rb") as file:
            lines = _open_index(file)
            return None if lines is None else About(**json.loads(next(lines)))
    except FileNotFoundError:
        return None


def list_pack(path: Path) -> Iterator[Found]:
    """Every file of a pack, in the order of their paths' bytes."""
    with path.open("rb") as file:
        lines = _open_index(file)
        if lines is None:
            raise _damaged(path)
        next(lines)
        for line in lines:
            name, size, obstacle, position, checksum = json.loads(line)
            yield Found(name, _KEY.pack(position, size, checksum) if position else b"", size, obstacle)


def read_packed(path: Path, keys: Sequence[bytes]) -> Iterator[bytes]:
    """Contents of files by the keys that the list has.

    Raises:
        SourceUnavailable: The pack is damaged; it is removed, so that the next scan makes it anew.
    """
    with path.open("rb", buffering=0) as file:
        for key in keys:
            position, size, checksum = _KEY.unpack(key)
            content = os.pread(file.fileno(), size, position)
            if len(content) != size or zlib.crc32(content) != checksum:
                raise _damaged(path)
            yield content


def _write_contents(file: BinaryIO, entries: Iterable[Entry], limits: Limits) -> tuple[list[_Row], int, bytes]:
    """The rows, how many entries were replaced by a later one of their path, and the first of those."""
    rows: dict[tuple[bool, bytes], _Row] = {}
    replaced, example, named = 0, b"", 0
    for entry in entries:
        name = read_name(entry.name, limits.name_bytes)
        row = _write_entry(file, entry, name, limits)
        if row is None:
            continue
        # The last one of a name counts, as it would on a disk after `tar -x` or `unzip`.
        before = rows.pop((row.aside, row.path), None)
        if before is None:
            named += len(row.path)
        elif not name.obstacle:
            replaced, example = replaced + 1, example or row.path
        if named > limits.all_names_bytes:
            raise too_long_names(limits.all_names_bytes)
        rows[row.aside, row.path] = row
    return list(rows.values()), replaced, example


def _write_entry(file: BinaryIO, entry: Entry, name: EntryName, limits: Limits) -> _Row | None:
    path = name.path.encode()
    if name.obstacle:
        return _Row(path, entry.size, name.obstacle, (0, 0), name.aside)
    if entry.folder or (name.folder and not entry.obstacle):
        return None
    if entry.obstacle or entry.size > limits.file_bytes:
        return _Row(path, entry.size, entry.obstacle, (0, 0), aside=False)
    position, checksum = file.tell(), 0
    for piece in entry.content:
        file.write(piece)
        checksum = zlib.crc32(piece, checksum)
    return _Row(path, file.tell() - position, "", (position, checksum), aside=False)


def _find_top(rows: Iterable[_Row]) -> bytes:
    """The single folder that everything lies in; "" when there is none."""
    top = b""
    for row in rows:
        if row.aside:
            continue
        first = row.path.partition(b"/")[0] if b"/" in row.path.rstrip(b"/") else b""
        if not first or first != (top or first):
            return b""
        top = first
    return top


def _list_rows(rows: Sequence[_Row], cut: int) -> Iterator[list[object]]:
    """What the list says of each file, in the order of their paths as it shows them.

    Args:
        rows: In any order.
        cut: Bytes at the beginning of paths that are left out.
    """
    # Each kind is in order as it stands, so that no path is copied for all of them at once.
    inside = sorted((row for row in rows if not row.aside), key=attrgetter("path"))
    aside = sorted((row for row in rows if row.aside), key=attrgetter("path"))
    for path, _, row in merge(((row.path[cut:], 0, row) for row in inside), ((row.path, 1, row) for row in aside)):
        yield [path.decode(), row.size, row.obstacle, *row.place]


def _write_index(file: BinaryIO, about: About, rows: Iterable[list[object]]) -> None:
    digest = hashlib.sha256()
    position = file.tell()
    head = {"top": about.top, "replaced": about.replaced, "example": about.example}
    for value in chain([head], rows):
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        digest.update(line)
        file.write(line)
    file.write(_TRAILER.pack(position, digest.digest()))


def _open_index(file: BinaryIO) -> Iterator[bytes] | None:
    """The lines of the list, proven; None when the pack is not whole or of another version."""
    size = file.seek(0, os.SEEK_END)
    if size < len(_MAGIC) + _TRAILER.size:
        return None
    file.seek(0)
    magic = file.read(len(_MAGIC))
    end = size - _TRAILER.size
    file.seek(end)
    position, expected = _TRAILER.unpack(file.read(_TRAILER.size))
    if magic != _MAGIC or position > end:
        return None
    digest = hashlib.sha256()
    file.seek(position)
    left = end - position
    while left:
        data = file.read(min(_BUFFER, left))
        digest.update(data)
        left -= len(data)
    if digest.digest() != expected:
        return None
    file.seek(position)
    return _lines(file, end)


def _lines(file: BinaryIO, end: int) -> Iterator[bytes]:
    while file.tell() < end:
        yield file.readline()


def _damaged(path: Path) -> SourceUnavailable:
    path.unlink(missing_ok=True)
    message = f"What the store kept of an archive, {path.name}, is damaged; it was removed."
    return SourceUnavailable(message, "Nothing is to be done: the archive is fetched anew at the next attempt.")
