"""Lists and reads the files of a mounted volume; follows no link and opens nothing but plain files."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from codetune_trainer.errors import SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.records import Found

_GIT_FOLDER = ".git"


def find_root(mount: Path | None, path: str, name: str) -> Path:
    """The folder to scan on a volume.

    Args:
        mount: Where the volume is mounted; None when the pod has no volumes.
        path: Folder inside it, `volume.path`; empty: all of it.
        name: Name of the source, for messages.

    Raises:
        SourceUnavailable: There is no such folder.
        UnsupportedSource: The path leaves the volume.
    """
    if mount is None or not mount.is_dir():
        raise SourceUnavailable(f"The volume of source {name!r} is not mounted.", "Check volume.claimName.")
    root = mount.resolve()
    folder = (root / path).resolve()
    if not folder.is_relative_to(root):
        hint = "volume.path must be a folder inside the volume: no leading /, no `..`, no link that leads out."
        raise UnsupportedSource(f"volume.path {path!r} of source {name!r} leaves the volume.", hint)
    if not folder.is_dir():
        raise SourceUnavailable(f"The volume of source {name!r} has no folder {path!r}.", "Check volume.path.")
    return folder


def list_folder(root: Path) -> Iterator[Found]:
    """Every file below a folder, in the order of their paths' bytes; what is no plain file has an obstacle.

    git's own folder is one entry: it holds no file that anybody wrote.
    """
    yield from _walk(os.fsencode(root), b"")


def _walk(root: bytes, below: bytes) -> Iterator[Found]:
    try:
        with os.scandir(os.path.join(root, below)) as entries:
            # A folder sorts as if its name ended in `/`, so that whole paths come out sorted.
            ordered = sorted(entries, key=lambda entry: entry.name + (b"/" if _is_folder(entry) else b""))
    except OSError as error:
        yield Found(_show(below) + "/", b"", 0, f"a folder that can't be listed: {error.strerror}")
        return
    for entry in ordered:
        path = os.path.join(below, entry.name)
        if not _is_folder(entry):
            yield _describe(entry, path)
        elif entry.name == _GIT_FOLDER.encode():
            yield Found(_show(path) + "/", b"", 0, "git's own folder; it is not looked into")
        else:
            yield from _walk(root, path)


def read_file(root: Path, path: bytes, limit: int) -> bytes | str:
    """The content of a file, or why it can't be read.

    Args:
        root: The folder that was listed.
        path: As it was found.
        limit: Bytes; a file that grew beyond them is not read.
    """
    full = os.path.join(os.fsencode(root), path)
    if os.path.realpath(os.path.dirname(full)) != os.path.dirname(full):  # the root itself is resolved already
        return "its folder became a link"
    try:
        # Not blocking: a named pipe would wait for ever. No link: it could have become one since it was listed.
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return f"it can't be opened: {error.strerror}"
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "no plain file any more"
        try:
            content = file.read(limit + 1)
        except OSError as error:
            return f"it can't be read: {error.strerror}"
    return content if len(content) <= limit else f"it grew beyond {limit} bytes while it was scanned"


def _describe(entry: os.DirEntry[bytes], path: bytes) -> Found:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Found(_show(path), b"", 0, f"it can't be looked at: {error.strerror}")
    if stat.S_ISLNK(found.st_mode):
        return Found(_show(path), b"", found.st_size, "a symbolic link; links are not followed")
    if not stat.S_ISREG(found.st_mode):
        return Found(_show(path), b"", 0, "no plain file (a device, pipe or socket)")
    return Found(_show(path), path, found.st_size)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _show(path: bytes) -> str:
    return path.decode("utf-8", errors="backslashreplace")
