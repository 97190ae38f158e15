"""The files that people read: in the folder of the store, or in the bucket that it is."""

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

from codetune_bucket.bucket import Bucket, Remote
from codetune_bucket.mirroring import Mirror

from codetune_store.errors import NotFound
from codetune_store.opening import Entry, list_files, open_file

_PIECE = 1 << 20
"""Bytes that are asked for at once: what is read is most often read on."""


class StoredFiles:
    """Files of one store; nothing of a bucket is kept here.

    Args:
        mirror: The store.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def open(self, parts: Sequence[str]) -> BinaryIO:
        """Open a file.

        Args:
            parts: Names that were checked: none is empty, `.`, `..` or has a `/`.

        Raises:
            NotFound: There is no file of that name.
            BucketError: The bucket does not tell.
        """
        bucket = self._mirror.bucket
        if bucket is None:
            return open_file(self._mirror.root, parts)
        found = bucket.look(self._mirror.key("/".join(parts)))
        if found is None:
            raise NotFound(f"There is no file {'/'.join(parts)} in {bucket.location.uri}.")
        return cast(BinaryIO, io.BufferedReader(_Reader(bucket, found), _PIECE))

    def list(self, parts: Sequence[str]) -> Iterator[Entry]:
        """Every file below a folder, by name; names that begin with a dot are left out.

        Raises:
            NotFound: There is no such folder.
            BucketError: The bucket does not tell.
        """
        bucket = self._mirror.bucket
        if bucket is None:
            yield from list_files(self._mirror.root, parts)
            return
        folder, empty = self._mirror.key("/".join(parts)), True
        for found in bucket.list(folder):
            empty = False
            path = found.path.removeprefix(f"{folder}/")
            if not any(part.startswith(".") for part in path.split("/")):
                yield Entry(path, found.bytes)
        if empty:
            raise NotFound(f"There is no folder {'/'.join(parts)} in {bucket.location.uri}.")


class _Reader(io.RawIOBase):
    """An object as it was when it was opened; another one in its place ends the reading."""

    def __init__(self, bucket: Bucket, found: Remote) -> None:
        self._bucket = bucket
        self._found = found
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._found.bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        end = min(self._at + len(buffer), self._found.bytes)
        if end <= self._at:
            return 0
        piece = self._bucket.read(self._found.path, self._at, end, self._found.etag)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
