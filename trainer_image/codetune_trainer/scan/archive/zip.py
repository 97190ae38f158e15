"""Reads a zip by its directory, in the order in which the entries lie in the file.

The standard library's reader cuts names at a NUL, lets entries overlap, and unpacks bzip2 without a bound; here entries
that share bytes (as in a zip bomb) are refused, and no step gives more than a bounded piece.
"""

import bz2
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from codetune_trainer.scan.archive.entries import Entry, damaged
from codetune_trainer.scan.archive.limits import Limits
from codetune_trainer.scan.archive.streams import (
    CHUNK_BYTES,
    DAMAGE,
    Bounds,
    Decoder,
    Inflate,
    open_lzma_alone,
    open_xz,
    open_zstd,
)
from codetune_trainer.scan.archive.zipdirectory import Member, read_directory

_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_ENDS_BY_MARK = 0x2
"""Of LZMA: the stream has a mark at its end, and its length is not told."""
_STORED, _LZMA = 0, 14
_DECODERS: dict[int, Callable[[], Decoder]] = {
    8: lambda: Inflate(-zlib.MAX_WBITS),
    12: bz2.BZ2Decompressor,
    _LZMA: open_lzma_alone,
    20: open_zstd,
    93: open_zstd,
    95: open_xz,
}
_UNKNOWN_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 98: "PPMd", 99: "AES encryption"}
_UNIX_SYSTEMS = frozenset({3, 19})
"""Systems whose file modes stand in an entry: Unix and macOS."""
_FORMAT_MASK, _LINK, _FOLDER, _PLAIN = 0o170000, 0o120000, 0o040000, 0o100000


def read_zip(file: BinaryIO, limits: Limits) -> Iterator[Entry]:
    """Every file of a zip; what can't be unpacked has an obstacle.

    Args:
        file: The archive, seekable.
        limits: What is allowed.

    Raises:
        InvalidArchive: It is damaged, was cut, or is beyond a limit.
    """
    directory = read_directory(file, limits)
    bounds = Bounds(limits)
    ends = [*(member.offset for member in directory.members), directory.start][1:]
    for member, end in zip(directory.members, ends, strict=True):
        if member.offset + _LOCAL.size + len(member.raw_name) + member.packed > end:
            raise damaged(f"entry {_show(member)} shares bytes with another one, as in a zip bomb")
        obstacle = _find_obstacle(member)
        if obstacle or _is_folder(member):
            yield Entry(member.name, member.size, obstacle, folder=not obstacle)
        elif member.size > limits.file_bytes:
            yield Entry(member.name, member.size)
        else:
            yield _open(file, member, end, bounds)


def _open(file: BinaryIO, member: Member, end: int, bounds: Bounds) -> Entry:
    file.seek(member.offset)
    head = file.read(_LOCAL.size)
    if len(head) != _LOCAL.size or not head.startswith(b"PK\3\4"):
        raise damaged(f"entry {_show(member)} is not where the directory says")
    *_, name_bytes, extra_bytes = _LOCAL.unpack(head)
    name = file.read(name_bytes)
    start = member.offset + _LOCAL.size + name_bytes + extra_bytes
    if start + member.packed > end:
        raise damaged(f"entry {_show(member)} shares bytes with another one, as in a zip bomb")
    if name != member.raw_name:
        said = ascii(name[:100].decode(errors="backslashreplace"))
        return Entry(member.name, member.size, f"its own header calls it {said}")
    return Entry(member.name, member.size, content=_unpack(file, start, member, bounds))


def _unpack(file: BinaryIO, start: int, member: Member, bounds: Bounds) -> Iterator[bytes]:
    """An entry's content, checked against its size and checksum at the end."""
    file.seek(start)
    checksum = size = 0
    pieces = _read_stored(file, member) if member.method == _STORED else _read_packed(file, member)
    for piece, packed in pieces:
        size += len(piece)
        if size > member.size:
            raise damaged(f"entry {_show(member)} unpacks to more than the {member.size} bytes that it should have")
        bounds.add(len(piece), start + packed)
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if size != member.size or checksum != member.checksum:
        raise damaged(f"entry {_show(member)} does not fit its checksum")


Piece = tuple[bytes, int]
"""Some content, and how many bytes of the archive it took so far."""


def _read_stored(file: BinaryIO, member: Member) -> Iterator[Piece]:
    read = 0
    while read < member.packed:
        piece = file.read(min(CHUNK_BYTES, member.packed - read))
        if not piece:
            raise damaged(f"entry {_show(member)} is cut")
        read += len(piece)
        yield piece, read


def _read_packed(file: BinaryIO, member: Member) -> Iterator[Piece]:
    decoder = _DECODERS[member.method]()
    read, data = 0, b""
    if member.method == _LZMA:
        data, read = _lzma_header(file, member)
    while not decoder.eof:
        if decoder.needs_input and not data:
            data = file.read(min(CHUNK_BYTES, member.packed - read))
            read += len(data)
            if not data and member.size == 0 and member.packed == 0:
                return  # nothing at all, though a method is named
            if not data:
                raise damaged(f"entry {_show(member)} is cut")
        try:
            piece = decoder.decompress(data, CHUNK_BYTES)
        except DAMAGE as error:
            raise damaged(f"entry {_show(member)} can't be unpacked: {error}") from error
        data = b""
        yield piece, read


def _lzma_header(file: BinaryIO, member: Member) -> tuple[bytes, int]:
    """zip's own header of LZMA, turned into that of a file of its own."""
    head = file.read(9)
    if len(head) != 9 or head[2:4] != b"\5\0" or member.packed < 9:
        raise damaged(f"entry {_show(member)} can't be unpacked: no LZMA header")
    size = 2**64 - 1 if member.flags & _ENDS_BY_MARK else member.size
    return head[4:] + size.to_bytes(8, "little"), 9


def _find_obstacle(member: Member) -> str:
    kind = _format(member)
    if kind == _LINK:
        return "a symbolic link; links are not followed"
    if kind not in {0, _FOLDER, _PLAIN}:
        return "no plain file (a device, pipe or socket)"
    if member.flags & _ENCRYPTED:
        return "encrypted; there is no password for it"
    if member.method != _STORED and member.method not in _DECODERS:
        name = _UNKNOWN_METHODS.get(member.method, "")
        return f"packed by method {member.method}{f' ({name})' if name else ''}, which can't be unpacked"
    if member.obstacle:
        return member.obstacle
    return ""


def _is_folder(member: Member) -> bool:
    return member.name.endswith(b"/") or _format(member) == _FOLDER


def _format(member: Member) -> int:
    return (member.attributes >> 16) & _FORMAT_MASK if member.system in _UNIX_SYSTEMS else 0


def _show(member: Member) -> str:
    return ascii(member.name[:100].decode(errors="backslashreplace"))
