"""Reads what a request names, and answers in pieces without holding up the others."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from aiohttp import web
from codetune_bucket.errors import BucketError

from codetune_store.errors import InvalidRequest, StoreError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_DEPTH = 8
_LINES_AT_A_TIME = 2000


def read_name(request: web.Request, key: str) -> str:
    """A resource's or source's name in the path. Raises: InvalidRequest."""
    return _read(request, key, _NAME, "a name: lower-case letters, digits and -, at most 63")


def read_uid(request: web.Request, key: str) -> str:
    """An object's uid in the path. Raises: InvalidRequest."""
    return _read(request, key, _UID, "the uid of an object")


def read_digest(request: web.Request, key: str) -> str:
    """A hex SHA-256 in the path. Raises: InvalidRequest."""
    return _read(request, key, _HEX, "a SHA-256: 64 digits of 0-9a-f")


def read_file_parts(text: str) -> list[str]:
    """The parts of a file's path. Raises: InvalidRequest."""
    parts = text.split("/")
    if len(parts) > _MAX_DEPTH or not all(_FILE.fullmatch(part) for part in parts):
        raise InvalidRequest(
            f"{text[:200]!r} is no path of a run's file, such as checkpoints/step-000200/MANIFEST.json."
        )
    return parts


def read_offset(request: web.Request) -> int:
    """`?offset=`: where a piece begins. Raises: InvalidRequest."""
    text = request.query.get("offset", "0")
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise InvalidRequest(f"offset is {text[:40]!r}: give the number of bytes before this piece.")
    return int(text)


@contextmanager
def cutting_off() -> Iterator[None]:
    """Around the body of an answer that has begun: what goes wrong can only end it, so that its client knows that it is
    not whole. A refusal of ours would come to it as a piece of what it asked for.

    Raises: ConnectionAbortedError.
    """
    try:
        yield
    except (BucketError, StoreError, OSError) as error:
        raise ConnectionAbortedError(str(error)) from error


async def stream_lines(request: web.Request, lines: Iterator[bytes]) -> web.StreamResponse:
    """Answer with JSON Lines, which are made in a thread as the client takes them."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    with cutting_off():
        while piece := await asyncio.to_thread(_join_some, lines):
            await response.write(piece)
    await response.write_eof()
    return response


def _join_some(lines: Iterator[bytes]) -> bytes:
    return b"".join(islice(lines, _LINES_AT_A_TIME))


def _read(request: web.Request, key: str, pattern: re.Pattern[str], what: str) -> str:
    text = request.match_info[key]
    if not pattern.fullmatch(text):
        raise InvalidRequest(f"{key} is {text[:80]!r}, which is not {what}.")
    return text
