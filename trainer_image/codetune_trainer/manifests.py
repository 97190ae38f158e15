"""Digests of files, and writing that is whole or not at all."""

import os
import uuid
from collections.abc import Sequence
from io import FileIO, RawIOBase
from pathlib import Path

from codetune_api.digests import FileEntry, describe_file

_MOST_PARTS = 1000
"""Pieces of one write; Linux takes up to 1024."""


def describe_folder(folder: Path) -> dict[str, FileEntry]:
    """Every file below a folder, by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): describe_file(path) for path in files}


def is_intact(folder: Path, files: dict[str, FileEntry]) -> bool:
    """Whether all these files are there with this content."""
    try:
        return all(describe_file(folder / name) == entry for name, entry in files.items())
    except OSError:
        return False


def replace_text(path: Path, text: str) -> None:
    """Write a small file in place of what is there, also where several processes do so at once. Raises: OSError."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_all(file: RawIOBase, data: bytes) -> None:
    """Append to an unbuffered file, however little it takes at a time. Raises: OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]


def write_parts(file: FileIO, parts: Sequence[bytes]) -> int:
    """Append pieces to an unbuffered file, one after the other, without joining them first.

    Returns:
        Where in the file the first one begins.

    Raises:
        OSError: They could not all be written.
    """
    at = file.tell()
    for start in range(0, len(parts), _MOST_PARTS):
        some = parts[start : start + _MOST_PARTS]
        written = os.writev(file.fileno(), some)
        if written < sum(map(len, some)):
            write_all(file, b"".join(some)[written:])
    return at


def sync_folder(folder: Path) -> None:
    """Force a folder and its files to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
