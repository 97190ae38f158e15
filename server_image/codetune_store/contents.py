"""The contents of an upload source: each lies under its digest, whole and once."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from codetune_api.storing import MissingBlob, UploadProgress
from codetune_api.uploads import MAX_UPLOAD_FILE_BYTES, PackError, blob_path, read_pack

from codetune_store.appending import append_piece, settle, size_of
from codetune_store.errors import ROOM, DigestMismatch, DiskFull, InvalidRequest, NotFound
from codetune_store.sessions import Session


def list_missing(session: Session) -> list[MissingBlob]:
    """What is still to be sent of a version, with how much of it is there.

    Raises:
        NotFound: The manifest is not whole yet.
        DiskFull: There is no room for all of it.
    """
    missing = list(_find_missing(session))
    needed = sum(blob.bytes - blob.offset for blob in missing)
    free = shutil.disk_usage(session.upload.folder).free
    if needed > free:
        raise DiskFull(f"{needed} bytes are still to be sent, and the volume has {free} left. {ROOM}")
    return missing


def write_content(session: Session, sha256: str, offset: int, piece: bytes) -> UploadProgress:
    """Add a piece to a content.

    Raises:
        NotFound: The session's version has no such content.
        OffsetMismatch: The piece does not begin where the last one ended.
        DigestMismatch: The whole is not what its digest says.
    """
    size, target = _size(session, sha256), session.upload.folder / blob_path(sha256)
    if size_of(target) == size:
        return UploadProgress(offset=size, complete=True)
    part = session.upload.partial / sha256
    there = append_piece(part, offset, piece, size)
    if there < size:
        return UploadProgress(offset=there, complete=False)
    settle(part, sha256, target)
    return UploadProgress(offset=size, complete=True)


def write_pack(session: Session, pack: bytes) -> int:
    """Store all contents of a pack. Returns: how many.

    Raises:
        InvalidRequest: It is no pack.
        NotFound: The session's version has no such content.
        DigestMismatch: A content is not what its digest says; those before it are stored.
    """
    try:
        entries = list(read_pack(pack))
    except PackError as error:
        raise InvalidRequest(f"The body is no pack: {error}.") from error
    for sha256, content in entries:
        size, target = _size(session, sha256), session.upload.folder / blob_path(sha256)
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise DigestMismatch(f"A content in the pack has the SHA-256 {found}, not {sha256}.")
        if size_of(target) != size:
            _store(content, session.folder / f".{os.urandom(8).hex()}", target)
    return len(entries)


def is_stored(folder: Path, digest: bytes, size: int) -> bool:
    """Whether a content is in the folder of an upload source."""
    return size_of(folder / blob_path(digest.hex())) == size


def _find_missing(session: Session) -> Iterator[MissingBlob]:
    for digest, size in session.contents().items():
        if not is_stored(session.upload.folder, digest, size):
            offset = size_of(session.upload.partial / digest.hex()) or 0
            yield MissingBlob(sha256=digest.hex(), bytes=size, offset=offset)


def _size(session: Session, sha256: str) -> int:
    size = session.contents().get(bytes.fromhex(sha256))
    if size is None:
        raise NotFound(f"The manifest {session.name} names no content {sha256}.")
    assert size <= MAX_UPLOAD_FILE_BYTES  # read_manifest lets no other in
    return size


def _store(content: memoryview, beside: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("xb", buffering=0) as file:
            view = content
            while view:
                view = view[file.write(view) :]
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
