"""Copies of adapters in the pod's own scratch space, one folder a digest: the only files that vLLM is given to load.

vLLM reads an adapter again whenever it had to leave memory, and its engine ends when the folder is gone by then. So
what lies in the store may change or go at any time, and what lies here never does: a copy is digested while it is
written, gets its name when it is whole, and stays until no version uses it.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_api.digests import FileEntry, digest_files

from codetune_server.objects import RemoteFile, bring_file
from codetune_server.refusing import Refused

_CHUNK_BYTES = 1 << 20
_INCOMING = "incoming"
Signature = tuple[int | str, ...]
"""Device, inode, size and times of a file, or size and etag of an object: while they stay, so does its content."""
Source = Path | RemoteFile


@dataclass(frozen=True)
class AdapterCopy:
    """A whole copy."""

    folder: Path
    digest: str


class AdapterCopies:
    """The copies of one pod. Blocking: call it in a thread, one call at a time."""

    def __init__(self, root: Path, limit_bytes: int | None = None) -> None:
        """`root` is ours alone; `limit_bytes` bounds everything below it."""
        self._root = root
        self._limit = limit_bytes
        self._known: dict[str, AdapterCopy] = {}
        """Those that were made or checked by this process."""
        self._sources: dict[tuple[str, ...], tuple[tuple[Signature, ...], str]] = {}
        """Source files → what they were when they were copied last, and the digest that they had."""

    def find(self, digest: str) -> AdapterCopy | None:
        """The copy with this digest; one that a former container of this pod made is digested anew. Raises: OSError."""
        known = self._known.get(digest)
        if known is None:
            folder = self._root / digest.removeprefix("sha256:")
            if not folder.is_dir():
                return None
            if digest_files({path.name: _entry(path) for path in folder.iterdir()}) != digest:
                shutil.rmtree(folder)
                return None
            known = self._known[digest] = AdapterCopy(folder, digest)
        return known

    def take(self, files: Mapping[str, Source]) -> AdapterCopy:
        """Copy files (name → where it lies), unless they are those that were copied before.

        Raises: Refused when there is no room or the files changed meanwhile, OSError when they can't be read.
        """
        sources = tuple(files.values())
        place = tuple(source.place if isinstance(source, RemoteFile) else str(source) for source in sources)
        before = tuple(_sign(source) for source in sources)
        seen = self._sources.get(place)
        if seen and seen[0] == before and (known := self._known.get(seen[1])):
            return known
        incoming = self._root / _INCOMING
        shutil.rmtree(incoming, ignore_errors=True)  # of a container that was killed
        self._make_room(sum(_size(source) for source in sources))
        incoming.mkdir()
        try:
            entries = {name: _copy(path, incoming / name) for name, path in files.items()}
            if before != tuple(_sign(source) for source in sources):
                folder = place[0].rpartition("/")[0]
                raise Refused("DigestMismatch", f"{folder} was changed while it was copied: it is tried again")
            copy = self._settle(incoming, digest_files(entries))
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        self._sources[place] = (before, copy.digest)
        return copy

    def keep_only(self, digests: Collection[str]) -> None:
        """Remove every other copy. Raises: OSError."""
        names = {digest.removeprefix("sha256:") for digest in digests}
        for digest in [digest for digest in self._known if digest not in digests]:
            del self._known[digest]
        if self._root.is_dir():
            for folder in self._root.iterdir():
                if folder.name not in names:
                    shutil.rmtree(folder)

    def _settle(self, incoming: Path, digest: str) -> AdapterCopy:
        folder = self._root / digest.removeprefix("sha256:")
        if digest not in self._known:
            shutil.rmtree(folder, ignore_errors=True)
            incoming.rename(folder)
            self._known[digest] = AdapterCopy(folder, digest)
        return self._known[digest]

    def _make_room(self, size: int) -> None:
        """Raises: Refused when so many bytes more would be too many."""
        self._root.mkdir(parents=True, exist_ok=True)
        used = sum(path.stat().st_size for path in self._root.rglob("*") if path.is_file())
        if self._limit is not None and used + size > self._limit:
            raise Refused(
                "CacheFull",
                f"the adapter has {size} bytes, and {used} of the {self._limit} bytes for copies of adapters are used: "
                "raise spec.adapterCacheSize of the ModelDeployment or serve fewer adapters",
            )


def _copy(source: Source, target: Path) -> FileEntry:
    """Copy a regular file; returns what was copied. Raises: Refused, OSError."""
    if isinstance(source, RemoteFile):
        try:
            return bring_file(source, target)
        except OSError as error:
            raise _full(error) from error
    # Not through a link that took the file's place since, and never waiting for the other end of a pipe.
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as reader:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("InvalidAdapter", f"{source.name} in {source.parent} is not a file: write the adapter again")
        digest, size = hashlib.sha256(), 0
        with target.open("wb") as writer:
            while size < found.st_size and (piece := reader.read(min(_CHUNK_BYTES, found.st_size - size))):
                digest.update(piece)
                size += len(piece)
                _write(writer.fileno(), piece)
    return FileEntry(sha256=digest.hexdigest(), bytes=size)


def _write(descriptor: int, piece: bytes) -> None:
    """Raises: Refused when the disk is full: that is about this pod, not about the adapter."""
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise _full(error) from error


def _full(error: OSError) -> Refused:
    return Refused("CacheFull", f"the adapter can't be copied into the pod ({error.strerror}): give its node more disk")


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def _size(source: Source) -> int:
    return source.bytes if isinstance(source, RemoteFile) else os.stat(source).st_size


def _sign(source: Source) -> Signature:
    if isinstance(source, RemoteFile):
        return (source.bytes, source.etag)  # what comes is of this version, or nothing does
    found = os.stat(source)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
