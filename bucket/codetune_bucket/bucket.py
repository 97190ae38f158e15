"""Objects below one place of a bucket: list, look, bring, put, remove. Each object carries its SHA-256 as metadata.

Credentials, region and endpoint come from the variables that every S3 client reads (`AWS_ACCESS_KEY_ID`, …,
`AWS_ENDPOINT_URL_S3`, `AWS_CA_BUNDLE`), and so do the identities that EKS and others give to pods.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from codetune_api.digests import FileEntry, describe_file

from codetune_bucket.errors import BucketError, ObjectDamaged, ObjectMissing, ObjectReplaced, explain
from codetune_bucket.location import Location

ENV_ENDPOINT = "AWS_ENDPOINT_URL_S3"
ENV_REGION = "AWS_REGION"
ENV_AUTHORITIES = "AWS_CA_BUNDLE"
_DIGEST = "sha256"
"""Name of the metadata that carries an object's digest."""
_PIECE = 16 << 20
"""Bytes of a request; a part of an upload is as large, so that an object may have 160 GB."""
_AHEAD = 4
"""Pieces of a file that are under way at once."""
_FILES = 4
"""Files that are under way at once."""
_CHUNK = 1 << 20
RETRIES = 30
"""Of a request, at most; before that it is given up after so long:"""
PATIENCE = timedelta(minutes=2)
_BACKOFF: Any = {"init_backoff": timedelta(seconds=0.5), "max_backoff": timedelta(seconds=10), "base": 3}


@dataclass(frozen=True)
class Remote:
    """An object."""

    path: str
    """Below the location."""
    bytes: int
    etag: str
    sha256: str | None = None
    """What it was when it was put; None where it was not asked for, or somebody else has put it."""


class Bucket:
    """One place in a bucket; may be used by several threads. Every method raises BucketError."""

    def __init__(self, location: Location, patience: timedelta = PATIENCE) -> None:
        """`patience` is how long a request is tried again."""
        self.location = location
        self._patience = patience
        self._endpoint = os.environ.get(ENV_ENDPOINT) or "https://s3.amazonaws.com"

    def list(self, path: str = "") -> Iterator[Remote]:
        """Every object below a folder, by key."""
        import obstore

        prefix = f"{self.location.key(path)}/".lstrip("/")
        with self._errors(path):
            for batch in obstore.list(self._store, prefix):
                for found in batch:
                    yield Remote(self._path(found["path"]), found["size"], found["e_tag"] or "")

    def folders(self, path: str) -> set[str]:
        """Names of what lies in a folder and has something in it."""
        import obstore

        prefix = f"{self.location.key(path)}/".lstrip("/")
        with self._errors(path):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return {entry.rstrip("/").rpartition("/")[2] for entry in found}

    def look(self, path: str) -> Remote | None:
        """An object with its digest; None when there is none."""
        import obstore

        try:
            with self._errors(path):
                found = obstore.get(self._store, self.location.key(path), options={"head": True})
        except ObjectMissing:
            return None
        return self._describe(path, found)

    def read(self, path: str, begin: int, end: int, etag: str = "") -> bytes:
        """Some bytes of an object, of the version with this etag."""
        import obstore

        options: Any = {"range": (begin, end), **({"if_match": etag} if etag else {})}
        with self._errors(path):
            return bytes(obstore.get(self._store, self.location.key(path), options=options).bytes())

    def fetch(self, path: str, target: Path, expected: FileEntry | None = None, etag: str = "") -> FileEntry:
        """Bring an object into a file, proven by its digest; what is there already is kept.

        Args:
            path: Below the location.
            target: The file; it gets its name when it is whole.
            expected: What it must be; None: what it was when it was put.
            etag: The version that was looked at before; "": the one that is there now.

        Raises:
            ObjectReplaced: Another version is there by now.
            ObjectMissing: It is not there.
            ObjectDamaged: It is something else.
        """
        remote = self.look(path)
        if remote is None:
            raise ObjectMissing(f"{self.uri(path)} is not there.", "It was removed, or never written.")
        if etag and remote.etag != etag:
            raise ObjectReplaced.of(self.uri(path))
        digest = expected.sha256 if expected else remote.sha256
        if digest and target.is_file() and describe_file(target) == FileEntry(sha256=digest, bytes=remote.bytes):
            return FileEntry(sha256=digest, bytes=remote.bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Of this version of the object: what a cut download left of another one is no beginning of it.
        part = target.with_name(f".{target.name}.{sha256(remote.etag.encode()).hexdigest()[:12]}.part")
        found = self._append(remote, part)
        if found.bytes != remote.bytes or (digest and found.sha256 != digest):
            part.unlink()
            told = f"{self.uri(path)} has the SHA-256 {found.sha256}, and not {digest}: it was changed or damaged."
            raise ObjectDamaged(told, "Remove it, so that it is made anew, or put back what it was.")
        part.replace(target)
        return found

    def put(self, source: Path, path: str) -> FileEntry:
        """Put a file, in parts when it is large; one that is there already is not sent again."""
        import obstore

        entry = describe_file(source)
        there = self.look(path)
        if there is None or (there.sha256, there.bytes) != (entry.sha256, entry.bytes):
            with self._errors(path):
                obstore.put(
                    self._store,
                    self.location.key(path),
                    source,
                    attributes={_DIGEST: entry.sha256},
                    chunk_size=_PIECE,
                    max_concurrency=_AHEAD,
                )
        return entry

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects; those that are not there count as removed."""
        import obstore

        # One by one, some at a time: servers differ in what they take as a request for many.
        def remove(path: str) -> None:
            with self._errors(path):
                obstore.delete(self._store, self.location.key(path))

        for_each(remove, paths)

    def uri(self, path: str) -> str:
        """The URI of an object."""
        return Location(self.location.bucket, self.location.key(path)).uri

    @cached_property
    def _store(self) -> Any:
        from obstore.store import S3Store

        client: Any = {"allow_http": self._endpoint.startswith("http://"), "timeout": timedelta(minutes=2)}
        if authorities := os.environ.get(ENV_AUTHORITIES):
            client["root_certificate"] = Path(authorities).read_bytes()
        return S3Store(
            self.location.bucket,
            region=os.environ.get(ENV_REGION) or "us-east-1",
            disable_bulk_delete=True,
            client_options=client,
            retry_config={"max_retries": RETRIES, "retry_timeout": self._patience, "backoff": _BACKOFF},
        )

    def _path(self, key: str) -> str:
        return key.removeprefix(self.location.prefix).lstrip("/")

    def _describe(self, path: str, found: Any) -> Remote:
        return Remote(path, found.meta["size"], found.meta["e_tag"] or "", found.attributes.get(_DIGEST))

    def _append(self, remote: Remote, part: Path) -> FileEntry:
        """The rest of an object to what is there of it, some pieces ahead; returns what there is then."""
        digest = sha256()
        with part.open("a+b") as file, ThreadPoolExecutor(_AHEAD) as threads:
            file.seek(0)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            waiting: deque[Future[bytes]] = deque()
            begins = iter(range(file.tell(), remote.bytes, _PIECE))
            while True:
                while len(waiting) < _AHEAD and (begin := next(begins, None)) is not None:
                    end = min(begin + _PIECE, remote.bytes)
                    waiting.append(threads.submit(self.read, remote.path, begin, end, remote.etag))
                if not waiting:
                    return FileEntry(sha256=digest.hexdigest(), bytes=file.tell())
                piece = waiting.popleft().result()
                digest.update(piece)
                file.write(piece)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        """Say the library's errors in our words."""
        import obstore.exceptions

        try:
            yield
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            raise explain(error, self.uri(path), self._endpoint) from error


def for_each(work: Callable[[str], object], paths: Iterable[str]) -> None:
    """Do something with each path, some at a time. Raises: the first error, when what was begun has ended."""
    with ThreadPoolExecutor(_FILES) as threads:
        futures = [threads.submit(work, path) for path in paths]
        try:
            for future in futures:
                future.result()
        finally:  # after an error those that wait are not begun
            threads.shutdown(cancel_futures=True)


__all__ = ["Bucket", "BucketError", "Remote", "for_each"]
