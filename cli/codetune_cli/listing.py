"""The manifest of local files: each read once, for its digest."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codetune_api.uploads import MAX_UPLOAD_FILE_BYTES, ManifestError, UploadEntry, manifest_line, read_manifest

from codetune_cli.choosing import UNREADABLE, Choice
from codetune_cli.errors import CliError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Listing:
    """What is to be sent."""

    manifest: bytes
    contents: dict[str, Path]
    """Digest → a local file with that content."""
    files: int
    bytes: int
    """Of all files that are sent; copies count as often as they are there."""

    @property
    def session(self) -> str:
        """Digest of the manifest: the version's name."""
        return hashlib.sha256(self.manifest).hexdigest()


def build_listing(choice: Choice, read: Callable[[int], None]) -> Listing:
    """Read all files.

    Args:
        choice: The files; those that can't be read are added to what it leaves out.
        read: Gets the number of bytes of each piece as it is read.

    Raises:
        CliError: There are more files or bytes than one source may have.
    """
    lines, contents, total = [], {}, 0
    for path, file in sorted(choice.files.items(), key=lambda item: item[0].encode()):
        try:
            entry = _describe(path, file, read)
        except OSError as error:
            choice.left_out[UNREADABLE].append(f"{path} ({error.strerror})")
            continue
        lines.append(manifest_line(entry))
        total += entry.bytes if entry.sha256 else 0
        if entry.sha256:
            contents[entry.sha256] = file
    try:
        files = sum(1 for _ in read_manifest(lines))
    except ManifestError as error:
        raise CliError(f"These files can't be uploaded: {error}.") from error
    return Listing(b"".join(lines), contents, files, total)


def _describe(path: str, file: Path, read: Callable[[int], None]) -> UploadEntry:
    size = file.stat().st_size
    if size > MAX_UPLOAD_FILE_BYTES:
        return UploadEntry(path=path, bytes=size, sha256="")
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            read(len(chunk))
    return UploadEntry(path=path, bytes=size, sha256=digest.hexdigest())
