"""What a scan knows of a file, from being found to being judged. Pure values, cheap to send between processes."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from codetune_trainer.scan.digesting import Digests

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
    "MostlyDigits",
    "License",
    "Secrets",
    "Duplicate",
    "NearDuplicate",
    "LowQuality",
    "ContainsHeldOut",
]
"""Why a file is left out; stable names, documented in docs/scan.md."""

REASONS: tuple[str, ...] = ("", *get_args(Reason))
"""Every reason by its number; number 0 is none."""

INCLUDED = "Included"
"""Stands as the reason of an accepted file that `files.include` brought back."""
HELD_OUT = "HeldOut"
"""Stands as the reason of any other file that is held out."""

UNSETTLED = "?"
"""Stands as the stamp of a file whose next change might not show."""


class Found(NamedTuple):
    """A file that a source has."""

    path: str
    """Path inside the source; bytes that are no UTF-8 are written as `\\xNN`."""
    key: bytes
    """What its source reads it by."""
    size: int
    """Bytes."""
    obstacle: str = ""
    """Why it can't be read at all; empty for a normal file."""
    stamp: str = ""
    """Changes when the content behind `key` does; empty where the key itself does."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


_NO_DIGESTS = Digests(b"", b"")


@dataclass(slots=True)
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
    digests: Digests = _NO_DIGESTS
    """Of its text; of accepted files only."""
    overrode: bool = False
    """Whether `files.include` brought it back; `detail` says from what."""
    wanted: bool = False
    """Whether `files.include` matches, so that a rule over all files can't reject it either."""
    held_out: str = ""
    """What asks to hold it out, `holdout.paths` or its source; empty when nothing does."""
    selected: bool = False
    """Whether `files.types` lets its type through."""
