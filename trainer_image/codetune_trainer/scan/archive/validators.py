"""What a server says of a file's version, and the conditions that are made of it (RFC 9110, 8.8 and 13). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{1,1024}"')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
_STRONG_SECONDS = 60
"""A time of change proves a version when the answer is that much younger: clocks may differ a little."""


@dataclass(frozen=True)
class Validators:
    """What proves that two answers are of the same bytes."""

    etag: str = ""
    last_modified: str = ""
    strong_date: bool = False
    """Whether `last_modified` proves the very same bytes."""
    bytes: int | None = None
    """Length of the whole."""

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> "Validators":
        """Of an answer with the whole file; what is of no proper form is left out."""
        etag = headers.get("ETag", "")
        length = headers.get("Content-Length", "")
        changed, sent = _read_date(headers.get("Last-Modified", "")), _read_date(headers.get("Date", ""))
        return cls(
            etag=etag if _ETAG.fullmatch(etag) else "",
            last_modified=headers["Last-Modified"] if changed is not None else "",
            strong_date=changed is not None
            and sent is not None
            and (sent - changed).total_seconds() >= _STRONG_SECONDS,
            bytes=int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None,
        )

    def conditions(self) -> dict[str, str]:
        """Headers that ask for the file only when it changed."""
        found = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in found.items() if value}

    def if_range(self) -> str:
        """What a range may be asked for with; "" when nothing proves that the rest belongs to the beginning."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified if self.strong_date and not self.etag else ""


def read_content_range(value: str) -> tuple[int | None, int | None]:
    """Where a part begins and how long the whole is; None for what is not told."""
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _read_date(value: str) -> datetime | None:
    if not value or len(value) > 64 or not value.isascii():  # it is sent back in a header
        return None
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo is not None else None
