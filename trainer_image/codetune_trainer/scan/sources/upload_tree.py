"""Reads what people sent with `kubectl codetune upload`: the version that counts, checked against its digests.

The store service writes these files; a scan trusts neither their sizes nor their contents nor their paths.
"""

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codetune_api.digests import describe_file
from codetune_api.project import Source
from codetune_api.uploads import (
    HEAD_PATH,
    MAX_MANIFEST_BYTES,
    ManifestError,
    UploadEntry,
    UploadHead,
    blob_path,
    read_manifest,
    tree_path,
)
from pydantic import ValidationError

from codetune_trainer.errors import SourceUnavailable, UploadMissing
from codetune_trainer.scan.paths import spell_path
from codetune_trainer.scan.records import Found
from codetune_trainer.scan.rules.judge import READ_LIMIT_BYTES
from codetune_trainer.scan.sources.volumes import read_file

_HEAD_BYTES = 64 * 2**10
QUIET_SECONDS = 3600
"""What was sent for a source that is not in spec stays this long after the last piece of it came."""


@dataclass(frozen=True)
class UploadPlace:
    """Where an upload source lies, and by what names a person knows it."""

    namespace: str
    project: str
    source: str
    folder: Path

    @classmethod
    def beside(cls, cache: Path, source: str) -> "UploadPlace":
        """The upload source of a Project whose other sources are cached in `<ns>/projects/<name>/sources`."""
        project = cache.parent
        return cls(project.parent.parent.name, project.name, source, project / "uploads" / source)

    @property
    def command(self) -> str:
        """What a person runs to send files."""
        return f"kubectl codetune upload {self.project} PATH --source {self.source} -n {self.namespace}"


def find_version(place: UploadPlace) -> str:
    """The version that counts, as the hex digest of its manifest.

    Raises:
        UploadMissing: Nothing was sent yet.
        SourceUnavailable: What was sent is damaged.
    """
    if not os.path.lexists(place.folder / HEAD_PATH):
        message = f"Nothing was uploaded for source {place.source!r} yet: run `{place.command}`."
        raise UploadMissing(message, "The Project scans by itself once the upload is there.")
    content = read_file(place.folder.resolve(), HEAD_PATH.encode(), _HEAD_BYTES)
    if isinstance(content, str):
        raise _damaged(place, f"{HEAD_PATH} can't be used: {content}")
    try:
        head = UploadHead.model_validate_json(content)
    except ValidationError as error:
        raise _damaged(place, f"{HEAD_PATH} is not valid") from error
    version = head.revision.removeprefix("sha256:")
    tree = place.folder / tree_path(head.revision)
    try:
        found = tree.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_MANIFEST_BYTES:
            raise _damaged(
                place, f"the list of files {tree.name} is no plain file of at most {MAX_MANIFEST_BYTES} bytes"
            )
        if describe_file(tree).sha256 != version:
            raise _damaged(place, f"the list of files {tree.name} has another digest than its name")
        with tree.open("rb") as lines:
            for _ in read_manifest(lines):
                pass
    except FileNotFoundError as error:
        raise _damaged(place, f"the list of files {tree.name} is missing") from error
    except ManifestError as error:
        raise _damaged(place, f"the list of files {tree.name} is not valid: {error}") from error
    return version


def list_version(folder: Path, version: str) -> Iterator[Found]:
    """Every file of a version that `find_version` has checked, in the order of their paths' bytes."""
    with (folder / tree_path(f"sha256:{version}")).open("rb") as lines:
        for entry in read_manifest(lines):
            yield _describe(folder, entry)


def read_content(folder: Path, key: bytes) -> bytes | str:
    """A content, or why it can't be used; one that is damaged goes, so that the next upload sends it anew.

    Raises:
        SourceUnavailable: It was there when the files were listed, and is not any more.
    """
    sha256 = key.decode()
    content = read_file(folder, blob_path(sha256).encode(), READ_LIMIT_BYTES)
    if isinstance(content, str):
        message = f"A file of the upload {folder.name!r} went away while it was scanned ({content})."
        raise SourceUnavailable(message, "Nothing is to be done: the scan starts again by itself.")
    if hashlib.sha256(content).hexdigest() != sha256:
        (folder / blob_path(sha256)).unlink(missing_ok=True)
        return "its content was damaged in the store: run `kubectl codetune upload` again"
    return content


def prune_uploads(sources: list[Source], uploads: Path) -> None:
    """Remove what was sent for sources that the Project no longer has, once nobody sends any more of it."""
    kept = {source.name for source in sources if source.upload is not None}
    for folder in uploads.glob("*"):
        if folder.name in kept or _is_in_use(folder):
            continue
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        else:
            folder.unlink()


def _describe(folder: Path, entry: UploadEntry) -> Found:
    path = spell_path(entry.path.encode())
    if not entry.sha256:
        return Found(path, b"", entry.bytes)  # too large for any scan: listed, never sent
    blob = folder / blob_path(entry.sha256)
    try:
        size = blob.lstat().st_size
    except FileNotFoundError:
        return Found(path, b"", entry.bytes, "its content is missing in the store: run the upload again")
    if size != entry.bytes:
        text = f"its content has {size} bytes in the store instead of {entry.bytes}: run the upload again"
        return Found(path, b"", entry.bytes, text)
    return Found(path, entry.sha256.encode(), entry.bytes)


def _is_in_use(folder: Path) -> bool:
    marks = [folder, folder / HEAD_PATH, folder / "partial", *folder.glob("sessions/*/session.json")]
    newest = max((mark.lstat().st_mtime for mark in marks if mark.exists()), default=0.0)
    return time.time() - newest < QUIET_SECONDS


def _damaged(place: UploadPlace, what: str) -> SourceUnavailable:
    message = f"The upload of source {place.source!r} is damaged: {what}."
    return SourceUnavailable(message, f"Send it again: `{place.command}`.")
