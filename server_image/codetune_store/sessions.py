"""Upload sessions: one for each manifest on its way, named by its digest, so that going on is beginning again."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from codetune_api.storing import UploadProgress, UploadRequest
from codetune_api.uploads import MAX_MANIFEST_BYTES, ManifestError, read_manifest

from codetune_store.appending import append_piece, settle, size_of, write_whole
from codetune_store.errors import InvalidManifest, NotFound, TooLarge

MAX_SESSIONS = 8
"""Open sessions of one upload source; one more ends the one that was used longest ago."""
SESSION_SECONDS = 7 * 24 * 3600
"""A session that nobody used for so long is ended."""


@dataclass(frozen=True)
class Upload:
    """The folder of one upload source."""

    folder: Path

    @property
    def sessions(self) -> Path:
        """One folder per open session."""
        return self.folder / "sessions"

    @property
    def partial(self) -> Path:
        """Contents in the making, shared by all sessions."""
        return self.folder / "partial"


@dataclass(frozen=True)
class Session:
    """One manifest on its way."""

    upload: Upload
    name: str
    """Hex digest of the manifest."""
    size: int
    """Bytes of the manifest."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.upload.sessions / self.name

    @property
    def manifest(self) -> Path:
        """The manifest, once it is whole and valid."""
        return self.folder / "manifest.jsonl"

    def contents(self) -> Mapping[bytes, int]:
        """Digest → size of every content of this version. Raises: NotFound while the manifest is not whole."""
        if not self.manifest.is_file():
            raise NotFound(f"The manifest of session {self.name} is not whole yet: send the rest of it first.")
        return read_contents(self.manifest)


def begin(upload: Upload, request: UploadRequest) -> UploadProgress:
    """Open the session of a manifest, or find it as it was left.

    Raises:
        TooLarge: The manifest has more bytes than one may have.
    """
    if request.bytes > MAX_MANIFEST_BYTES:
        raise TooLarge(f"The manifest has {request.bytes} bytes, more than {MAX_MANIFEST_BYTES}: split the upload.")
    session = Session(upload, request.sha256, request.bytes)
    _end_old(upload, session)
    session.folder.mkdir(parents=True, exist_ok=True)
    upload.partial.mkdir(exist_ok=True)
    write_whole(session.folder / _STATE, [request.model_dump_json().encode()])
    return _progress(session)


def find(upload: Upload, name: str) -> Session:
    """An open session; it counts as used. Raises: NotFound."""
    state = upload.sessions / name / _STATE
    try:
        request = UploadRequest.model_validate_json(state.read_bytes())
        os.utime(state)
    except FileNotFoundError as error:
        raise NotFound(f"There is no upload session {name}: begin it with POST of the manifest's digest.") from error
    return Session(upload, name, request.bytes)


def write_manifest(session: Session, offset: int, piece: bytes) -> UploadProgress:
    """Add a piece to the manifest; the last one makes it valid, or ends the session.

    Raises:
        OffsetMismatch: The piece does not begin where the last one ended.
        DigestMismatch: The whole has another digest than the session.
        InvalidManifest: It breaks a rule.
    """
    if session.manifest.is_file():
        return UploadProgress(offset=session.size, complete=True)
    part = session.folder / _PART
    there = append_piece(part, offset, piece, session.size)
    if there < session.size:
        return UploadProgress(offset=there, complete=False)
    checked = session.folder / _CHECKED
    settle(part, session.name, checked)
    try:
        read_contents(checked)
    except ManifestError as error:
        shutil.rmtree(session.folder)
        raise InvalidManifest(f"The manifest is not valid: {error}.") from error
    os.replace(checked, session.manifest)
    return UploadProgress(offset=there, complete=True)


@lru_cache(maxsize=4)
def read_contents(manifest: Path) -> Mapping[bytes, int]:
    """Digest → size of every content that a manifest names; what is read once is kept: a manifest never changes.

    Raises:
        ManifestError: It breaks a rule, or gives one content two sizes.
    """
    contents: dict[bytes, int] = {}
    with manifest.open("rb") as lines:
        for entry in read_manifest(lines):
            if entry.sha256 and contents.setdefault(bytes.fromhex(entry.sha256), entry.bytes) != entry.bytes:
                raise ManifestError(f"{entry.path!r} has the digest of another file of another size")
    return contents


def open_sessions(upload: Upload) -> list[Session]:
    """All sessions, the one that was used longest ago first."""
    found = []
    for state in upload.sessions.glob(f"*/{_STATE}"):
        try:
            used, request = state.stat().st_mtime, UploadRequest.model_validate_json(state.read_bytes())
        except FileNotFoundError:  # it ended meanwhile
            continue
        found.append((used, Session(upload, state.parent.name, request.bytes)))
    return [session for _, session in sorted(found, key=lambda entry: entry[0])]


def end(session: Session) -> None:
    """Remove a session; what it brought into the store stays until the next commit."""
    shutil.rmtree(session.folder, ignore_errors=True)


_STATE, _PART, _CHECKED = "session.json", "manifest.part", "manifest.checked"


def _progress(session: Session) -> UploadProgress:
    if session.manifest.is_file():
        return UploadProgress(offset=session.size, complete=True)
    return UploadProgress(offset=size_of(session.folder / _PART) or 0, complete=False)


def _end_old(upload: Upload, coming: Session) -> None:
    others = [session for session in open_sessions(upload) if session.name != coming.name]
    oldest = time.time() - SESSION_SECONDS
    for number, session in enumerate(others):
        if len(others) - number >= MAX_SESSIONS or (session.folder / _STATE).stat().st_mtime < oldest:
            end(session)
