"""Fetches objects of Git LFS over HTTP: the batch API with basic transfers, as its specification describes them.

The specification: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from codetune_trainer.errors import SourceError, SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.archive import download
from codetune_trainer.scan.archive.asking import CONNECT_ATTEMPTS, Interrupted, ask, explain
from codetune_trainer.scan.archive.urls import Link, read_link
from codetune_trainer.scan.git.urls import Remote

_MEDIA_TYPE = "application/vnd.git-lfs+json"
_OBJECTS_AT_ONCE = 100
"""As the specification advises."""
_ANSWER_BYTES = 4 * 2**20
_FOR_GOOD = frozenset({404, 409, 410, 422})
"""Codes of objects that the specification knows: asking again changes nothing about them."""
_SHOWN_CHARACTERS = 200
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,8192}")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "range"})

Got = TypeVar("Got")


@dataclass(frozen=True)
class Pointer:
    """What a pointer says of the file that it stands for."""

    sha256: str
    size: int


class _Action(BaseModel):
    href: str
    header: dict[str, str] = {}


class _Actions(BaseModel):
    download: _Action | None = None


class _Error(BaseModel):
    code: int = 0
    message: str = ""


class _Object(BaseModel):
    oid: str
    actions: _Actions = _Actions()
    error: _Error | None = None


class _Batch(BaseModel):
    objects: list[_Object]


def fetch_objects(
    remote: Remote, authorization: str, pointers: Sequence[Pointer]
) -> Iterator[tuple[Pointer, bytes | SourceError]]:
    """Fetch objects one by one.

    Args:
        remote: The repository.
        authorization: HTTP header for the repository's own host; empty: none.
        pointers: What is wanted; the content is held in memory, one object at a time.

    Returns:
        Each with its content, proven by its digest, or with why it can't be had.

    Raises:
        SourceError: The server gives none.
    """
    if not pointers:
        return
    link = find_batch_link(remote)
    credentials = {"Authorization": authorization} if authorization else {}
    left = iter(pointers)
    while some := list(islice(left, _OBJECTS_AT_ONCE)):
        answered = {each.oid: each for each in _ask_batch(link, credentials, some)}
        for pointer in some:
            try:
                yield pointer, _fetch(pointer, answered.get(pointer.sha256), link, credentials)
            except SourceError as error:
                yield pointer, error


def find_batch_link(remote: Remote) -> Link:
    """Where a repository's LFS server is asked. Raises: UnsupportedSource when it is not behind http."""
    if remote.protocol not in {"http", "https"}:
        message = f"Git LFS objects come over https only, and {remote.shown} is another kind of URL"
        raise UnsupportedSource(message, "Give the repository's https URL.")
    base = remote.url.rstrip("/")
    return read_link(f"{base}{'' if base.endswith('.git') else '.git'}/info/lfs/objects/batch")


def _ask_batch(link: Link, credentials: Mapping[str, str], pointers: Sequence[Pointer]) -> list[_Object]:
    wanted = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": pointer.sha256, "size": pointer.size} for pointer in pointers],
    }
    headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE}
    body = json.dumps(wanted).encode()
    answer = _patiently(link, lambda: _receive(link, credentials, headers, _ANSWER_BYTES, body))
    try:
        return _Batch.model_validate_json(answer).objects
    except ValidationError as error:
        message = f"{link.shown} does not answer as a Git LFS server does"
        raise SourceUnavailable(message, "Check that the server has Git LFS switched on.") from error


def _fetch(pointer: Pointer, told: _Object | None, batch: Link, credentials: Mapping[str, str]) -> bytes:
    if told is not None and told.error is not None:
        said = "".join(letter if letter.isprintable() else " " for letter in told.error.message[:_SHOWN_CHARACTERS])
        kind = UnsupportedSource if told.error.code in _FOR_GOOD else SourceUnavailable
        raise kind(f"the server says {told.error.code} {said}".strip())
    if told is None or told.actions.download is None:
        raise SourceUnavailable("the server does not say where it is")
    action = told.actions.download
    link = _read_href(action.href, batch)
    own = {name: value for name, value in action.header.items() if name.lower() not in _OWN_HEADERS}
    if not all(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value) for name, value in own.items()):
        raise UnsupportedSource("the server asks for headers that HTTP does not have")
    # What the batch's answer says for a place goes to that place; the Secret goes to the repository's own only.
    secret = credentials if link.origin == batch.origin and "authorization" not in map(str.lower, own) else {}
    content = _patiently(link, lambda: _receive(link, {**secret, **own}, {}, pointer.size))
    if len(content) != pointer.size or hashlib.sha256(content).hexdigest() != pointer.sha256:
        raise SourceUnavailable("the server gives another content than the pointer names")
    return content


def _read_href(href: str, batch: Link) -> Link:
    try:
        link = read_link(href)
    except SourceError as error:
        raise UnsupportedSource("the server names a place that can't be taken") from error
    if batch.url.scheme == "https" and link.url.scheme != "https":
        raise UnsupportedSource(f"the server names {link.shown}, which is not encrypted")
    return link


def _receive(
    link: Link, credentials: Mapping[str, str], headers: Mapping[str, str], limit: int, body: bytes | None = None
) -> bytes:
    """An answer's content. Raises: Interrupted, SourceError."""
    with ask(link, credentials, headers, body) as response:
        if response.status_code != 200:
            raise explain(response, link, credentials=bool(credentials))
        content = bytearray()
        with download.interruptions():
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > limit:
                    raise UnsupportedSource(f"{link.shown} gives more than {limit} bytes")
    return bytes(content)


def _patiently(link: Link, task: Callable[[], Got]) -> Got:
    """Do it again after interruptions. Raises: SourceUnavailable when they do not end."""
    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        try:
            return task()
        except Interrupted as cut:
            if attempt == CONNECT_ATTEMPTS:
                raise SourceUnavailable(f"{link.shown} can't be read: {cut}", cut.hint) from cut
            time.sleep(download.FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    raise AssertionError("the last attempt gives up")
