"""Tells by its content what a download is, and reads its entries; names and content types of servers say little."""

from collections.abc import Iterator
from typing import BinaryIO

from codetune_trainer.errors import InvalidArchive, UnsupportedSource
from codetune_trainer.scan.archive.entries import Entry
from codetune_trainer.scan.archive.limits import Limits
from codetune_trainer.scan.archive.streams import PACKINGS, Bounds, PackedStream, PlainStream
from codetune_trainer.scan.archive.tar import BLOCK, Stream, is_header, read_tar
from codetune_trainer.scan.archive.zip import read_zip
from codetune_trainer.scan.archive.zipdirectory import is_zip

_HEAD_BYTES = 1024
_OTHERS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x1f\x9d": "an archive packed by `compress`",
    b"LZIP": "an archive packed by lzip",
    b"!<arch>\n": "a Unix `ar` archive",
    b"MSCF": "a cabinet file",
}
_FORMS = "Codetune reads zip, tar, tar.gz, tar.bz2, tar.xz and tar.zst."
_ZEROS = bytes(BLOCK)


def read_entries(file: BinaryIO, limits: Limits) -> Iterator[Entry]:
    """Every entry of an archive of any form that is read.

    Args:
        file: The archive, seekable.
        limits: What is allowed.

    Raises:
        InvalidArchive: It is none, is damaged, was cut, or is beyond a limit.
        UnsupportedSource: It is an archive of another form.
    """
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    # A tar first: its checksum proves it, while the name that it begins with can be any packing's mark.
    if is_header(head[:BLOCK]) or (head.startswith(_ZEROS) and not head.strip(b"\0")):
        return read_tar(PlainStream(file, Bounds(limits)), limits)
    for packing in PACKINGS:
        if head.startswith(packing.magics):
            stream = PackedStream(file, packing, Bounds(limits))
            return _read_packed_tar(stream, packing.name, limits)
    if head.startswith(b"PK") or is_zip(file):
        return read_zip(file, limits)
    raise _refuse(head)


def _read_packed_tar(stream: PackedStream, name: str, limits: Limits) -> Iterator[Entry]:
    first = stream.read(BLOCK)
    if not is_header(first) and first != _ZEROS:
        hint = f"Pack the folder as a whole, e.g. with `tar -caf code.tar.gz FOLDER`. {_FORMS}"
        raise InvalidArchive(f"It is a {name} file, and no tar archive is in it.", hint)
    return read_tar(_Rewound(first, stream), limits)


class _Rewound:
    """A stream whose first bytes were looked at."""

    def __init__(self, first: bytes, rest: Stream) -> None:
        self._first = first
        self._rest = rest

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end only."""
        if not self._first:
            return self._rest.read(size)
        first, self._first = self._first[:size], self._first[size:]
        return first + self._rest.read(size - len(first))


def _refuse(head: bytes) -> Exception:
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            return UnsupportedSource(f"It is {name}.", f"Pack it in another form: {_FORMS}")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        hint = "Give the direct link of the file itself; if it asks for a login, name a Secret in credentialsSecretRef."
        return InvalidArchive("The link gives a web page, not an archive.", hint)
    begins = f"it begins with {head[:16]!a}" if head else "it is empty"
    return InvalidArchive(f"The link gives no archive: {begins}.", _FORMS)
