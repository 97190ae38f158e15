"""Lists and reads the files of a mounted volume; follows no link and opens nothing but plain files."""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from codetune_trainer.errors import SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.paths import PATH_BYTES, say_why, spell_path
from codetune_trainer.scan.records import UNSETTLED, Found

MOST_FOLDERS = 256
"""Deepest nesting that is looked into; reaching a folder takes a system call for each one above it."""
_GIT_FOLDER = b".git/"
_PIECE = 1 << 20
_RACY_NANOSECONDS = 2 * 10**9
"""A file that was changed so short before it is listed may be changed again without another time stamp."""
_STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Looked = Found | os.stat_result
"""What was seen of a path: of a plain file that was not changed just now, no more than the system says of it."""


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
    try:
        root = mount.resolve()
        folder = (root / path).resolve()
        there = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle, a NUL
        message = f"volume.path {path!r} of source {name!r} leads nowhere: {say_why(error)}."
        raise SourceUnavailable(message, "Check volume.path.") from error
    if not folder.is_relative_to(root):
        hint = "volume.path must be a folder inside the volume: no leading /, no `..`, no link that leads out."
        raise UnsupportedSource(f"volume.path {path!r} of source {name!r} leaves the volume.", hint)
    if not there:
        raise SourceUnavailable(f"The volume of source {name!r} has no folder {path!r}.", "Check volume.path.")
    return folder


def list_folder(root: Path, named: Callable[[str], bool] | None = None) -> Iterator[Found]:
    """Every file below a folder, in the order of their paths' bytes; what is no plain file has an obstacle.

    Args:
        root: The folder.
        named: Which names to look at, where not all are wanted.
    """
    reader = VolumeReader(root)
    try:
        for entry in walk_folder(root, named):
            yield entry if isinstance(entry, Found) else describe(entry, reader.look_at([entry])[0])
    finally:
        reader.close()


def walk_folder(root: Path, named: Callable[[str], bool] | None = None) -> Iterator[Found | bytes]:
    """As `list_folder`, but of what takes a look at it no more than its path.

    git's own folder is one entry: it holds no file that anybody wrote.
    """
    stack = [_list_one(root, b"", named)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, Found) or not entry.endswith(b"/"):
            yield entry
        else:
            stack.append(_list_one(root, entry, named))


class VolumeReader:
    """Looks at and reads files of a folder that may change meanwhile; a folder of them is reached once and then held
    open.

    Args:
        root: The folder that was listed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder: bytes | None = None
        self._descriptor = -1

    def look_at(self, paths: Iterable[bytes]) -> list[Looked]:
        """What each file is, for `describe`; fastest where those of one folder follow each other."""
        settled = time.time_ns() - _RACY_NANOSECONDS
        return [self._look_at(path, settled) for path in paths]

    def read(self, paths: Iterable[bytes], limit: int) -> Iterator[bytes | str]:
        """The content of each file, or why it can't be read.

        Args:
            paths: As they were found; fastest where those of one folder follow each other.
            limit: Bytes; a file that grew beyond them is not read.
        """
        for path in paths:
            folder, _, name = path.rpartition(b"/")
            yield self._enter(folder) or self._read(name, limit)

    def close(self) -> None:
        """Leave the last folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._folder, self._descriptor = None, -1

    def _enter(self, folder: bytes) -> str:
        """Have a folder open; returns what is in the way."""
        if folder == self._folder:
            return ""
        self.close()
        try:
            self._descriptor = _open_folder(self._root, folder)
        except _FolderChanged as error:
            return str(error)
        except OSError as error:
            return f"it can't be opened: {error.strerror}"
        self._folder = folder
        return ""

    def _look_at(self, path: bytes, settled: int) -> Looked:
        folder, _, name = path.rpartition(b"/")
        if folder != self._folder and (trouble := self._enter(folder)):
            return Found(spell_path(path), b"", 0, trouble)
        try:
            seen = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except OSError as error:
            return Found(spell_path(path), b"", 0, f"it can't be looked at: {error.strerror}")
        if stat.S_ISREG(seen.st_mode):
            is_settled = seen.st_mtime_ns < settled > seen.st_ctime_ns
            return seen if is_settled else Found(spell_path(path), path, seen.st_size, "", UNSETTLED)
        if stat.S_ISLNK(seen.st_mode):
            return Found(spell_path(path), b"", seen.st_size, "a symbolic link; links are not followed")
        return Found(spell_path(path), b"", 0, "no plain file (a device, pipe or socket)")

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


def describe(path: Found | bytes, seen: Looked) -> Found:
    """What was found, of what was listed and what was seen of it."""
    if isinstance(path, Found):
        return path
    if isinstance(seen, Found):
        return seen
    return Found(spell_path(path), path, seen.st_size, "", f"{seen.st_ino} {seen.st_mtime_ns} {seen.st_ctime_ns}")


def read_file(root: Path, path: bytes, limit: int) -> bytes | str:
    """The content of one file, or why it can't be read; as `VolumeReader.read`."""
    reader = VolumeReader(root)
    try:
        return next(reader.read([path], limit))
    finally:
        reader.close()


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


class _FolderChanged(Exception):
    """A folder on the way to a file is none any more."""


def _open_folder(root: Path, path: bytes) -> int:
    """A folder below the root, reached step by step, so that no link is followed whoever makes one at that moment.

    Raises:
        _FolderChanged: It is a link or a file now, or a folder above it is.
        OSError: It can't be opened.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in filter(None, path.split(b"/")):
        try:
            step = os.open(part, _STEP, dir_fd=descriptor)
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise _FolderChanged("its folder became a link or a file") from error
            raise
        finally:
            os.close(descriptor)
        descriptor = step
    return descriptor


def _list_one(root: Path, below: bytes, named: Callable[[str], bool] | None) -> Iterator[Found | bytes]:
    """What is in one folder, in order: paths of files, and of folders to look into, which end in `/`."""
    if below.count(b"/") > MOST_FOLDERS or len(below) > PATH_BYTES:
        text = f"a folder below {MOST_FOLDERS} others or with a path of more than {PATH_BYTES} bytes"
        yield Found(spell_path(below), b"", 0, f"{text}; it is not looked into")
        return
    try:
        folder = _open_folder(root, below)
        try:
            names = _list_names(folder, named)
        finally:
            os.close(folder)
    except (OSError, _FolderChanged) as error:
        why = error.strerror if isinstance(error, OSError) else "it became a link or a file"
        yield Found(spell_path(below) or "/", b"", 0, f"a folder that can't be listed: {why}")
        return
    room = PATH_BYTES - len(below)
    for name in names:
        if name == _GIT_FOLDER:
            yield Found(spell_path(below + name), b"", 0, "git's own folder; it is not looked into")
        elif len(name) > room and not name.endswith(b"/"):
            yield Found(spell_path(below + name), b"", 0, f"a path of more than {PATH_BYTES} bytes")
        else:
            yield below + name


def _list_names(folder: int, named: Callable[[str], bool] | None) -> list[bytes]:
    """The names in a folder; those of folders end in `/` and are sorted so, which brings whole paths out sorted."""
    names = []
    with os.scandir(folder) as entries:  # of an open folder it gives names as text
        for entry in entries:
            if _is_folder(entry):
                names.append(os.fsencode(entry.name) + b"/")
            elif named is None or named(entry.name):
                names.append(os.fsencode(entry.name))
    names.sort()
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
