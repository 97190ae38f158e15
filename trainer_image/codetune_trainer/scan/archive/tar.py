"""Reads a tar from front to end: old, POSIX (ustar and pax) and GNU forms.

The standard library's reader takes headers of any length into memory and fills the holes of sparse files; here each
step reads a bounded piece, and what is no plain file is named and passed over.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from codetune_trainer.scan.archive.entries import Entry, damaged, too_many_entries
from codetune_trainer.scan.archive.limits import Limits
from codetune_trainer.scan.archive.streams import CHUNK_BYTES

BLOCK = 512
_ZEROS = bytes(BLOCK)
_CHECKSUM = slice(148, 156)
_PAX_KEYS = frozenset({b"path", b"size", b"GNU.sparse.name", b"GNU.sparse.realsize", b"GNU.sparse.size"})
"""What of a pax header changes what is read; the rest is about owners and times."""
_PAX_SPARSE = b"GNU.sparse"
"""Stands for all pax keys about holes."""
_PLAIN, _GNU_SPARSE, _FOLDERS = b"0\x007", b"S", b"5D"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"xX", b"g"
_NO_FILE = {
    b"1": "a hard link; links are not followed",
    b"2": "a symbolic link; links are not followed",
    b"3": "a device; only plain files are read",
    b"4": "a device; only plain files are read",
    b"6": "a named pipe; only plain files are read",
}
_NO_DATA = b"123456"
"""Types that no data follows, whatever size their header says."""
_SPARSE = "a sparse file; its holes are not filled"


class Stream(Protocol):
    """Bytes of a tar."""

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end only."""


def is_header(block: bytes) -> bool:
    """Whether a block is the header of an entry: its checksum fits."""
    if len(block) != BLOCK or block == _ZEROS:
        return False
    stored = _read_octal(block[_CHECKSUM])
    plain = sum(block) - sum(block[_CHECKSUM]) + 8 * 32
    if stored == plain:
        return True
    # Some old programs summed up signed bytes.
    return stored == plain - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def read_tar(stream: Stream, limits: Limits) -> Iterator[Entry]:
    """Every file of a tar, in its order; the stream is read to its very end, so that its own checksums are checked.

    Raises:
        InvalidArchive: It is damaged, was cut, or is beyond a limit.
    """
    reader = _Reader(stream, limits)
    while (entry := reader.next_entry()) is not None:
        yield entry
    while stream.read(CHUNK_BYTES):
        pass


@dataclass(slots=True)
class _Header:
    """One block, taken apart."""

    name: bytes
    size: int
    type: bytes
    sparse_size: int = 0
    sparse_goes_on: bool = False


class _Reader:
    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._unread = 0
        """Bytes of the current entry's data, padded to whole blocks."""
        self._position = 0
        self._count = 0
        self._global: dict[bytes, bytes] = {}

    def next_entry(self) -> Entry | None:
        """The next entry that could be a file; None at the end."""
        about: dict[bytes, bytes] = {}
        while True:
            self._skip()
            block = self._read(BLOCK)
            if block == _ZEROS:
                return None
            header = self._parse(block)
            self._count += 1
            if self._count > self._limits.entries:
                raise too_many_entries(self._limits.entries)
            if header.type in _PAX:
                about |= self._read_pax(header)
            elif header.type == _PAX_GLOBAL:
                self._global |= self._read_pax(header)
            elif header.type == _LONG_NAME:
                about[b"path"] = self._read_text(header).rstrip(b"\0")
            elif header.type == _LONG_LINK or header.type == b"V":
                self._unread = _padded(header.size)
            else:
                return self._describe(header, self._global | about)

    def _describe(self, header: _Header, about: Mapping[bytes, bytes]) -> Entry:
        name = about.get(b"GNU.sparse.name", about.get(b"path", header.name))
        size = self._checked(_read_decimal(about[b"size"]), about[b"size"]) if b"size" in about else header.size
        if header.sparse_goes_on:
            self._skip_sparse_map()
        self._unread = 0 if header.type in _NO_DATA else _padded(size)
        if header.type in _NO_FILE:
            return Entry(name, 0, _NO_FILE[header.type])
        if header.type in _FOLDERS:
            return Entry(name, 0, folder=True)
        if header.type == _GNU_SPARSE:
            return Entry(name, header.sparse_size, _SPARSE)
        if _PAX_SPARSE in about:
            real = about.get(b"GNU.sparse.realsize", about.get(b"GNU.sparse.size", b""))
            return Entry(name, _read_decimal(real) or size, _SPARSE)
        if header.type not in _PLAIN:
            return Entry(name, size, f"an entry of type {header.type.decode('latin-1')!a}, which is not known")
        if name.endswith(b"/"):  # before there was a type for folders
            return Entry(name, 0, folder=True)
        return Entry(name, size, content=self._content(size))

    def _parse(self, block: bytes) -> _Header:
        if not is_header(block):
            raise damaged(f"at byte {self._position - BLOCK} there is no header of an entry")
        name = block[:100].partition(b"\0")[0]
        prefix = block[345:500].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and prefix:
            name = prefix + b"/" + name
        header = _Header(name, self._number(block[124:136]), block[156:157])
        if header.type == _GNU_SPARSE:
            header.sparse_size = self._number(block[483:495])
            header.sparse_goes_on = bool(block[482])
        return header

    def _number(self, field: bytes) -> int:
        """A size of a header's block. Raises: InvalidArchive for what is none."""
        if field[0] == 0x80:  # GNU: what octal digits can't hold, as a binary number
            return int.from_bytes(field[1:])
        return self._checked(_read_octal(field), field)

    def _checked(self, value: int | None, field: bytes) -> int:
        if value is None:
            raise damaged(f"the header before byte {self._position} has no size but {field[:24]!a}")
        return value

    def _content(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            piece = self._read(min(left, CHUNK_BYTES))
            left -= len(piece)
            self._unread -= len(piece)
            yield piece

    def _skip(self) -> None:
        """Pass over what is left of the current entry."""
        while self._unread:
            self._unread -= len(self._read(min(self._unread, CHUNK_BYTES)))

    def _skip_sparse_map(self) -> None:
        while self._read(BLOCK)[504]:
            pass

    def _read_text(self, header: _Header) -> bytes:
        if header.size > self._limits.header_bytes:
            raise damaged(f"a header of {header.size} bytes, more than {self._limits.header_bytes}")
        return self._read(_padded(header.size))[: header.size]

    def _read_pax(self, header: _Header) -> dict[bytes, bytes]:
        """The records `LENGTH KEY=VALUE`, as far as they matter."""
        text = self._read_text(header)
        found: dict[bytes, bytes] = {}
        start = 0
        while start < len(text):
            digits, space, _ = text[start : start + 20].partition(b" ")
            length = _read_decimal(digits) if space else None
            record = text[start + len(digits) + 1 : start + length] if length else b""
            key, equals, value = record.partition(b"=")
            if not length or start + length > len(text) or not equals or not value.endswith(b"\n"):
                raise damaged(f"the pax header before byte {self._position} is none")
            if key.startswith(b"GNU.sparse."):
                found[_PAX_SPARSE] = b""
            if key in _PAX_KEYS:
                found[key] = value[:-1]
            start += length
        return found

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        if len(data) != size:
            raise damaged(f"it ends at byte {self._position}, before the mark of its end")
        return data


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _read_octal(field: bytes) -> int | None:
    digits = field.partition(b"\0")[0].strip(b" ")
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else 0 if not digits else None


def _read_decimal(field: bytes) -> int | None:
    return int(field) if field.isdigit() and len(field) <= 20 else None
