"""Reads the directory at the end of a zip, with the 64-bit forms, in one bounded pass."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from codetune_trainer.errors import UnsupportedSource
from codetune_trainer.scan.archive.entries import damaged, too_long_names, too_many_entries
from codetune_trainer.scan.archive.limits import Limits

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\5\6"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_RECORD = struct.Struct("<4s6H3L5H2L")
_COMMENT_BYTES = 0xFFFF
_IS_UTF8 = 0x800
_EXTRA_ZIP64, _EXTRA_UNICODE_PATH = 0x0001, 0x7075
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF
_DOS_SYSTEMS = frozenset({0, 10, 11, 14})
"""Systems whose archivers may write `\\` between the parts of a path."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the directory."""

    name: bytes
    """In UTF-8 where its encoding is known, with `/` between its parts."""
    raw_name: bytes
    """As it stands in the archive."""
    system: int
    flags: int
    method: int
    checksum: int
    packed: int
    """Bytes in the archive."""
    size: int
    """Bytes when unpacked."""
    attributes: int
    offset: int
    """Where its own header is in the file."""
    obstacle: str = ""


@dataclass(frozen=True)
class Directory:
    """All entries."""

    start: int
    """Where the directory itself begins; entries end before it."""
    members: list[Member]
    """In the order in which they lie in the file."""


@dataclass(frozen=True)
class _End:
    """What the record at the end says."""

    start: int
    bytes: int
    shift: int
    """How far everything lies behind the place that is told, because of bytes in front of the zip."""


def is_zip(file: BinaryIO) -> bool:
    """Whether a file ends as a zip does, whatever it begins with."""
    return _find_end(file) is not None


def read_directory(file: BinaryIO, limits: Limits) -> Directory:
    """Every entry of the directory.

    Raises:
        InvalidArchive: It is damaged, was cut, or has too many entries or too long names.
        UnsupportedSource: It is one part of several.
    """
    found = _find_end(file)
    if found is None:
        raise damaged("it has no directory at its end")
    position, fields = found
    end = _read_end(file, position, fields)
    members, named = [], 0
    for member in _read_members(file, end):
        named += len(member.raw_name)
        if named > limits.all_names_bytes:
            raise too_long_names(limits.all_names_bytes)
        if member.offset >= end.start:
            raise damaged("an entry lies behind the directory")
        members.append(member)
        if len(members) > limits.entries:
            raise too_many_entries(limits.entries)
    members.sort(key=lambda member: member.offset)
    return Directory(end.start, members)


def _find_end(file: BinaryIO) -> tuple[int, tuple[int, ...]] | None:
    """Position and fields of the last record that fits the end of the file."""
    size = file.seek(0, 2)
    first = max(0, size - _END.size - _COMMENT_BYTES)
    file.seek(first)
    tail = file.read()
    at = tail.rfind(_END_MAGIC)
    while at >= 0:
        if at + _END.size <= len(tail):
            fields = _END.unpack_from(tail, at)
            if at + _END.size + fields[-1] <= len(tail):
                return first + at, fields[1:]
        at = tail.rfind(_END_MAGIC, 0, at)
    return None


def _read_end(file: BinaryIO, position: int, fields: tuple[int, ...]) -> _End:
    disk, directory_disk, here, total, size, start, _ = fields
    if _FULL_16 in {here, total} or _FULL_32 in {size, start}:
        wide = _read_end64(file, position)
        if wide is not None:
            position, disk, directory_disk, here, total, size, start = wide
    if disk or directory_disk or here != total:
        raise UnsupportedSource("The zip is one part of several.", "Join its parts into one archive (`zip -s 0`).")
    real = position - size
    if real < start:
        raise damaged("its directory is not where its end says")
    return _End(real, size, real - start)


def _read_end64(file: BinaryIO, position: int) -> tuple[int, ...] | None:
    """Position and fields of the 64-bit form; None when there is none."""
    before = position - _END64_LOCATOR.size - _END64.size
    if before < 0:
        return None
    file.seek(before)
    data = file.read(_END64.size + _END64_LOCATOR.size)
    if data[_END64.size : _END64.size + 4] != b"PK\6\7":
        return None
    magic, _, _, _, disk, directory_disk, here, total, size, start = _END64.unpack_from(data)
    if magic != b"PK\6\6":
        raise damaged("its 64-bit end is not where it should be")
    return before, disk, directory_disk, here, total, size, start


def _read_members(file: BinaryIO, end: _End) -> Iterator[Member]:
    file.seek(end.start)
    left = end.bytes
    while left:
        head = file.read(_RECORD.size)
        if left < _RECORD.size or len(head) != _RECORD.size or not head.startswith(b"PK\1\2"):
            raise damaged("its directory can't be read")
        fields = _RECORD.unpack(head)
        name_bytes, extra_bytes, comment_bytes = fields[10:13]
        rest = file.read(name_bytes + extra_bytes + comment_bytes)
        left -= len(head) + len(rest)
        if len(rest) != name_bytes + extra_bytes + comment_bytes or left < 0:
            raise damaged("its directory can't be read")
        yield _describe(fields, rest[:name_bytes], rest[name_bytes : name_bytes + extra_bytes], end.shift)


def _describe(fields: tuple[int, ...], raw: bytes, extra: bytes, shift: int) -> Member:
    _, made_by, _, flags, method, _, _, checksum, packed, size = fields[:10]
    disk, attributes, offset = fields[13], fields[15], fields[16]
    extras = dict(_split_extra(extra))
    wide = extras.get(_EXTRA_ZIP64, b"")
    values = []
    for value in (size, packed, offset):
        if value == _FULL_32 and wide:
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        values.append(value)
    size, packed, offset = values
    name = _read_name(raw, flags, extras.get(_EXTRA_UNICODE_PATH, b""))
    if made_by >> 8 in _DOS_SYSTEMS and b"/" not in name:
        name = name.replace(b"\\", b"/")
    obstacle = "" if disk in {0, _FULL_16} else "on another part of the archive"
    return Member(name, raw, made_by >> 8, flags, method, checksum, packed, size, attributes, offset + shift, obstacle)


def _split_extra(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Extra fields by their number; what does not fit is left out."""
    at = 0
    while at + 4 <= len(extra):
        number, size = struct.unpack_from("<2H", extra, at)
        yield number, extra[at + 4 : at + 4 + size]
        at += 4 + size


def _read_name(raw: bytes, flags: int, unicode_path: bytes) -> bytes:
    """A name in UTF-8: as the entry says, or, when it says nothing, UTF-8 where it is that, else the DOS code page."""
    if flags & _IS_UTF8:
        return raw
    if len(unicode_path) > 5 and int.from_bytes(unicode_path[1:5], "little") == zlib.crc32(raw):
        return unicode_path[5:]
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437").encode()
    return raw
