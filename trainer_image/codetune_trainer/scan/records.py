"""What a scan knows of a file, from being found to being judged. Pure values, cheap to send between processes."""

from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "Excluded",
    "Unreadable",
    "TooLarge",
    "Empty",
    "Binary",
    "NotText",
    "UnknownLanguage",
    "NotSelected",
    "Vendored",
    "Generated",
    "Minified",
    "LongLines",
    "Secrets",
    "Duplicate",
    "LowQuality",
]
"""Why a file is left out; stable names, documented in docs/scan.md."""

INCLUDED = "Included"
"""Stands as the reason of an accepted file that `files.include` brought back."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that a source has."""

    path: str
    """Path inside the source; bytes that are no UTF-8 are written as `\\xNN`."""
    key: bytes
    """What its source reads it by."""
    size: int
    """Bytes."""
    obstacle: str = ""
    """Why it can't be read at all; empty for a normal file."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A file with everything that its own name and content say about it."""

    path: str
    """`<source>/<path inside the source>`."""
    source: str
    language: str
    size: int
    """Bytes as found."""
    lines: int
    reason: Reason | Literal[""]
    """Why it is rejected; empty when it is not."""
    detail: str
    digest: bytes = b""
    """SHA-256 of its text in UTF-8; of accepted files only."""
    overrode: bool = False
    """Whether `files.include` brought it back; `detail` says from what."""
    wanted: bool = False
    """Whether `files.include` matches, so that a rule over all files can't reject it either."""
    held_out: bool = False
    """Whether `holdout.paths` matches."""
    text_bytes: int = 0
    """Length of its text in UTF-8."""
