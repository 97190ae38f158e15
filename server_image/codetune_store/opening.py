"""Opens files of the artifact store for reading; follows no link, whoever put it there."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from codetune_store.errors import NotFound

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: a named pipe would wait for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Entry:
    """A plain file below a folder."""

    path: str
    """With `/` between its parts."""
    size: int
    """Bytes."""


def open_file(root: Path, parts: Sequence[str]) -> BinaryIO:
    """Open a plain file below the store's root.

    Args:
        root: The store.
        parts: Names that were checked: none is empty, `.`, `..` or has a `/`.

    Raises:
        NotFound: There is no plain file of that name.
    """
    *folders, name = parts
    try:
        folder = _open_folder(root, folders)
        try:
            descriptor = os.open(name, _FILE, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise NotFound(f"There is no file {'/'.join(parts)}: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotFound(f"{'/'.join(parts)} is no plain file.")
    return os.fdopen(descriptor, "rb")


def list_files(root: Path, parts: Sequence[str]) -> Iterator[Entry]:
    """Every plain file below a folder, sorted by name folder by folder; names that begin with a dot are left out.

    Raises:
        NotFound: There is no such folder.
    """
    try:
        folder = _open_folder(root, parts)
    except OSError as error:
        raise NotFound(f"There is no folder {'/'.join(parts)}: {error.strerror}.") from error
    try:
        yield from _walk(folder, "")
    finally:
        os.close(folder)


def _open_folder(root: Path, parts: Sequence[str]) -> int:
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


def _walk(folder: int, prefix: str) -> Iterator[Entry]:
    for name in sorted(os.listdir(folder)):
        if name.startswith("."):
            continue
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            below = os.open(name, _FOLDER, dir_fd=folder) if stat.S_ISDIR(found.st_mode) else None
        except OSError:  # it went away meanwhile
            continue
        if below is not None:
            try:
                yield from _walk(below, f"{prefix}{name}/")
            finally:
                os.close(below)
        elif stat.S_ISREG(found.st_mode):
            yield Entry(f"{prefix}{name}", found.st_size)
