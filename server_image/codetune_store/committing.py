"""The moment in which a version begins to count, and the removal of what no version needs any more.

Everything that a version stands on is on the disk before `CURRENT.json` names it, so a kill at any point leaves either
the old version or the new one. The version before stays, because a scan may be reading it.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from codetune_api.uploads import HEAD_PATH, ManifestError, UploadHead, blob_path, read_manifest, tree_path
from pydantic import ValidationError

from codetune_store.appending import sync, write_whole
from codetune_store.contents import is_stored
from codetune_store.errors import NotFound, UploadIncomplete
from codetune_store.sessions import Session, Upload, end, find, open_sessions, read_contents

SYNC_THREADS = 32

logger = logging.getLogger(__name__)


def read_head(upload: Upload) -> UploadHead | None:
    """The version that counts; None before the first one."""
    try:
        return UploadHead.model_validate_json((upload.folder / HEAD_PATH).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        logger.warning("%s is damaged; the next commit replaces it.", upload.folder / HEAD_PATH)
        return None


def commit(upload: Upload, name: str) -> UploadHead:
    """Make a session's version count; doing it again changes nothing.

    Raises:
        NotFound: There is no such session, nor is its version the one that counts.
        UploadIncomplete: Some contents are missing.
    """
    head = read_head(upload)
    try:
        session = find(upload, name)
    except NotFound:
        if head is not None and head.revision == f"sha256:{name}":
            return head  # the answer to the first commit was lost on its way
        raise
    _check_complete(session)
    _force_to_disk(session, head)
    made = _build_head(session, head)
    tree = upload.folder / tree_path(made.revision)
    tree.parent.mkdir(exist_ok=True)
    with session.manifest.open("rb") as lines:
        write_whole(tree, lines)
    write_whole(upload.folder / HEAD_PATH, [made.model_dump_json(by_alias=True).encode()])
    end(session)
    collect_garbage(upload, made)
    return made


def collect_garbage(upload: Upload, head: UploadHead) -> None:
    """Remove contents and manifests that neither version nor any open session needs."""
    trees = {upload.folder / tree_path(revision) for revision in (head.revision, head.previous) if revision}
    needed = {digest.hex() for tree in trees for digest in _contents_of(tree)}
    for session in open_sessions(upload):
        if session.manifest.is_file():
            needed |= {digest.hex() for digest in session.contents()}
    for path in [*upload.folder.glob("blobs/*/*"), *upload.partial.glob("*")]:
        if path.name not in needed:
            path.unlink(missing_ok=True)
    for path in (upload.folder / "trees").iterdir():
        if path not in trees:
            path.unlink(missing_ok=True)


def _check_complete(session: Session) -> None:
    contents = session.contents()
    lacking = [digest.hex() for digest, size in contents.items() if not is_stored(session.upload.folder, digest, size)]
    if lacking:
        message = f"{len(lacking)} of {len(contents)} contents are missing, such as {lacking[0]}: send them first."
        raise UploadIncomplete(message)


def _force_to_disk(session: Session, head: UploadHead | None) -> None:
    """What came since the last version; contents of that one are on the disk already."""
    folder = session.upload.folder
    before = _contents_of(folder / tree_path(head.revision)) if head is not None else frozenset()
    new = [folder / blob_path(digest.hex()) for digest in session.contents() if digest not in before]
    # Many at once: the file system then writes its journal once for all of them.
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        for paths in (new, {path.parent for path in new}):
            for _ in pool.map(sync, paths):
                pass


def _contents_of(tree: Path) -> frozenset[bytes]:
    try:
        return frozenset(read_contents(tree))
    except FileNotFoundError:
        return frozenset()
    except ManifestError as error:
        logger.warning("%s is damaged, so it keeps nothing: %s", tree, error)
        return frozenset()


def _build_head(session: Session, before: UploadHead | None) -> UploadHead:
    revision, previous = f"sha256:{session.name}", None
    if before is not None:
        previous = before.previous if before.revision == revision else before.revision
    files = total = 0
    with session.manifest.open("rb") as lines:
        for entry in read_manifest(lines):
            files += 1
            total += entry.bytes if entry.sha256 else 0
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return UploadHead(revision=revision, previous=previous, files=files, bytes=total, committed_at=now)
