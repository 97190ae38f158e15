"""Digests of values and of sets of files: the one place that says what a digest is taken over."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codetune_api.model import ApiModel, Digest


class FileEntry(ApiModel):
    """One file of a manifest."""

    sha256: str
    """Hex digest of its bytes."""
    bytes: int


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no white space, UTF-8: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_value(value: Any) -> str:
    """`sha256:…` of the canonical JSON of a value."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


_CHUNK = 1 << 20


def describe_file(path: Path) -> FileEntry:
    """Digest and size of a file. Raises: OSError."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(sha256=digest.hexdigest(), bytes=size)


def digest_files(files: Mapping[str, FileEntry]) -> Digest:
    """`sha256:…` of a set of files: path → content digest and size, whatever order they were found in."""
    return digest_value({path: [entry.sha256, entry.bytes] for path, entry in files.items()})
