"""What an upload is: the manifest of a tree of files, its limits, and how small files travel together. Pure.

A manifest is a JSON Lines file with one `UploadEntry` a line, sorted by the bytes of their paths. Its SHA-256 names the
version of the tree, so a person's machine, the store service and a scan all mean the same by it. Paths are data only:
contents lie by their digests, and no path of an upload ever becomes a path on a disk.
"""

import struct
from collections.abc import Iterable, Iterator

from pydantic import Field, ValidationError

from codetune_api.contracts import Contract
from codetune_api.digests import canonical
from codetune_api.model import Digest

MAX_UPLOAD_FILES = 200_000
"""Files of one upload source."""
MAX_UPLOAD_FILE_BYTES = 64 * 2**20
"""A larger file is listed without its content: no `files.maxBytes` could accept it."""
MAX_UPLOAD_BYTES = 32 * 2**30
"""Bytes of all contents of one upload source together."""
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_MANIFEST_LINE_BYTES = 16 * 2**10
MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255
"""Bytes of one part of a path."""
MAX_BODY_BYTES = 8 * 2**20
"""Largest body of one request to the store service."""

_PACK_HEADER = struct.Struct(">32sI")


class ManifestError(ValueError):
    """A manifest breaks a rule; the message names line, value and rule."""


class PackError(ValueError):
    """A pack is not made of whole files."""


class UploadEntry(Contract):
    """One line of a manifest: a file."""

    path: str
    """Below the root of what was uploaded, with `/` between its parts."""
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^([0-9a-f]{64})?$")
    """Hex digest of the content; empty for a file above 64 MiB, whose content is not sent."""


class UploadHead(Contract):
    """`CURRENT.json` of an upload source: which version counts."""

    revision: Digest
    """Digest of the manifest `trees/<hex>.jsonl`."""
    previous: Digest | None = None
    """The version before, whose contents a scan may still be reading."""
    files: int
    bytes: int
    """Size of all files that were sent."""
    committed_at: str


def read_manifest(lines: Iterable[bytes]) -> Iterator[UploadEntry]:
    """The entries of a manifest, each checked as it comes.

    Raises:
        ManifestError: A line is no entry, or breaks a limit, or the lines are not sorted by path.
    """
    last, total, number = b"", 0, 0
    for number, line in enumerate(lines, start=1):
        if number > MAX_UPLOAD_FILES:
            raise ManifestError(f"there are more than {MAX_UPLOAD_FILES} files: split them over several sources")
        entry = _read_entry(number, line)
        path = entry.path.encode()
        if path <= last:
            raise ManifestError(f"line {number}: {entry.path!r} is there twice, or out of the order of its bytes")
        last = path
        total += entry.bytes if entry.sha256 else 0
        if total > MAX_UPLOAD_BYTES:
            raise ManifestError(f"the files have more than {MAX_UPLOAD_BYTES} bytes: split them over several sources")
        yield entry
    if number == 0:
        raise ManifestError("there is no file in it")


def manifest_line(entry: UploadEntry) -> bytes:
    """An entry as it stands in a manifest."""
    return canonical(entry.to_wire()) + b"\n"


def find_path_fault(path: str) -> str:
    """What is wrong with a path of an upload, "" when nothing is."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if len(encoded) > MAX_PATH_BYTES:
        return f"has more than {MAX_PATH_BYTES} bytes"
    if "\0" in path:
        return "has a zero byte"
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            return "is no plain path below a root: no leading or double /, no . and no .."
        if part.lower() == ".git":
            return "lies in git's own folder"
        if len(part.encode()) > MAX_NAME_BYTES:
            return f"has a part of more than {MAX_NAME_BYTES} bytes"
    return ""


def blob_path(sha256: str) -> str:
    """Where a content lies below the folder of its upload source."""
    return f"blobs/{sha256[:2]}/{sha256}"


def tree_path(revision: Digest) -> str:
    """Where a version's manifest lies below the folder of its upload source."""
    return f"trees/{revision.removeprefix('sha256:')}.jsonl"


HEAD_PATH = "CURRENT.json"
"""The `UploadHead`, replaced in one step: the moment in which a version begins to count."""


def pack_header(sha256: str, size: int) -> bytes:
    """What stands before each content in a pack."""
    return _PACK_HEADER.pack(bytes.fromhex(sha256), size)


def read_pack(pack: bytes) -> Iterator[tuple[str, memoryview]]:
    """The contents of a pack, each with the digest that it claims to have.

    Raises:
        PackError: It ends in the middle of a header or a content.
    """
    view, offset = memoryview(pack), 0
    while offset < len(view):
        begin = offset + _PACK_HEADER.size
        if begin > len(view):
            raise PackError(f"the pack ends in the middle of the header at byte {offset}")
        digest, size = _PACK_HEADER.unpack_from(view, offset)
        if begin + size > len(view):
            raise PackError(f"the pack ends in the middle of the content at byte {begin}, which has {size} bytes")
        yield digest.hex(), view[begin : begin + size]
        offset = begin + size


PACK_HEADER_BYTES = _PACK_HEADER.size


def _read_entry(number: int, line: bytes) -> UploadEntry:
    if len(line) > MAX_MANIFEST_LINE_BYTES:
        raise ManifestError(f"line {number} has more than {MAX_MANIFEST_LINE_BYTES} bytes")
    try:
        entry = UploadEntry.model_validate_json(line)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"]) or "the line"
        raise ManifestError(f"line {number}: {place}: {fault['msg']}") from error
    if fault_of_path := find_path_fault(entry.path):
        raise ManifestError(f"line {number}: the path {entry.path!r} {fault_of_path}")
    if bool(entry.sha256) != (entry.bytes <= MAX_UPLOAD_FILE_BYTES):
        rule = f"a file has a digest exactly when it has at most {MAX_UPLOAD_FILE_BYTES} bytes"
        raise ManifestError(f"line {number}: {entry.path!r} has {entry.bytes} bytes; {rule}")
    return entry
