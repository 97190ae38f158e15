"""Lists and reads the files of a mounted volume; follows no link and opens nothing but plain files."""

import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from codetune_trainer.errors import SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.records import UNSETTLED, Found

_GIT_FOLDER = b".git"
_FOLDERS_OF_DESCRIPTORS = "/proc/self/fd"
_PIECE = 1 << 20
_RACY_NANOSECONDS = 2 * 10**9
"""A file that was changed so short before it is listed may be changed again without another time stamp."""


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
    settled = time.time_ns() - _RACY_NANOSECONDS
    base = os.fsencode(root)
    # Not by recursion: a path of 4096 bytes has more folders than Python has frames.
    open_folders = [_sorted_entries(base, b"")]
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
        elif isinstance(entry, Found):
            yield entry
        elif not entry[0].endswith(b"/"):
            yield _describe(entry[1], entry[0], settled)
        elif entry[1].name == _GIT_FOLDER:
            yield Found(_show(entry[0]), b"", 0, "git's own folder; it is not looked into")
        else:
            open_folders.append(_sorted_entries(base, entry[0]))


def _sorted_entries(root: bytes, below: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]] | Found]:
    """What a folder holds, by its path inside the root; a folder's ends in `/`, so that whole paths are sorted."""
    try:
        with os.scandir(root + b"/" + below) as entries:
            named = [(below + entry.name + (b"/" if _is_folder(entry) else b""), entry) for entry in entries]
    except OSError as error:
        return iter([Found(_show(below) or "/", b"", 0, f"a folder that can't be listed: {error.strerror}")])
    return iter(sorted(named))


class VolumeReader:
    """Reads files of a folder that may change meanwhile: each through its own folder, which is looked at once.

    Args:
        root: The folder that was listed, without links in it.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._folder: bytes | None = None
        self._descriptor = -1

    def read(self, paths: Iterable[bytes], limit: int) -> Iterator[bytes | str]:
        """The content of each file, or why it can't be read.

        Args:
            paths: As they were found; fastest where those of one folder follow each other.
            limit: Bytes; a file that grew beyond them is not read.
        """
        for path in paths:
            folder, _, name = path.rpartition(b"/")
            obstacle = self._enter(folder)
            yield obstacle or self._read(name, limit)

    def close(self) -> None:
        """Leave the last folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._folder, self._descriptor = None, -1

    def _enter(self, folder: bytes) -> str:
        """Open a folder, from which on nobody can put another in its place; returns what is in the way."""
        if folder == self._folder:
            return ""
        self.close()
        full = os.path.join(self._root, folder) if folder else self._root
        try:
            self._descriptor = os.open(full, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            is_itself = _real_path(self._descriptor, full) == full
        except OSError as error:
            return f"its folder can't be opened: {error.strerror}"
        if not is_itself:
            self.close()
            return "its folder became a link"
        self._folder = folder
        return ""

    def _read(self, name: bytes, limit: int) -> bytes | str:
        try:
            # Not blocking: a named pipe would wait for ever. No link: it could have become one since it was listed.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except OSError as error:
            return f"it can't be opened: {error.strerror}"
        try:
            return _read_descriptor(descriptor, limit)
        except OSError as error:
            return f"it can't be read: {error.strerror}"
        finally:
            os.close(descriptor)


def _real_path(descriptor: int, path: bytes) -> bytes:
    """The path of an open folder without links; by its name alone where the system can't say it."""
    if not os.path.isdir(_FOLDERS_OF_DESCRIPTORS):
        return os.path.realpath(path)
    return os.fsencode(os.readlink(f"{_FOLDERS_OF_DESCRIPTORS}/{descriptor}"))


def _read_descriptor(descriptor: int, limit: int) -> bytes | str:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return "no plain file any more"
    first = os.read(descriptor, min(found.st_size, limit) + 1)
    if len(first) == found.st_size <= limit:
        return first  # the end was reached: there was room for more
    parts, held, wanted = [first], len(first), _PIECE
    while held <= limit and (part := os.read(descriptor, wanted)):
        parts.append(part)
        held += len(part)
        wanted = min(_PIECE, limit + 1 - held)
    if held > limit:
        return f"it grew beyond {limit} bytes while it was scanned"
    return b"".join(parts)


def read_file(root: Path, path: bytes, limit: int) -> bytes | str:
    """The content of one file, or why it can't be read; as `VolumeReader.read`."""
    reader = VolumeReader(root)
    try:
        return next(reader.read([path], limit))
    finally:
        reader.close()


def _describe(entry: os.DirEntry[bytes], path: bytes, settled: int) -> Found:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Found(_show(path), b"", 0, f"it can't be looked at: {error.strerror}")
    if stat.S_ISREG(found.st_mode):
        changed = max(found.st_mtime_ns, found.st_ctime_ns)
        stamp = f"{found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}" if changed < settled else UNSETTLED
        return Found(_show(path), path, found.st_size, "", stamp)
    if stat.S_ISLNK(found.st_mode):
        return Found(_show(path), b"", found.st_size, "a symbolic link; links are not followed")
    return Found(_show(path), b"", 0, "no plain file (a device, pipe or socket)")


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _show(path: bytes) -> str:
    return path.decode("utf-8", errors="backslashreplace")
