"""Turns the Secret of an archive source into HTTP headers."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from codetune_trainer.errors import AuthenticationFailed

HEADER_PREFIX = "header."
"""A Secret's key `header.NAME` becomes the header NAME."""
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?")
_OWN = frozenset(
    {
        *("host", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"),
        *("accept-encoding", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"),
        *("expect", "proxy-authorization"),
    }
)
"""Headers that the download itself needs as they are."""
_HINT = (
    "Use a kubernetes.io/basic-auth Secret, or an Opaque one with the key `token` (sent as `Authorization: Bearer`) "
    "or keys `header.NAME`, e.g. `header.PRIVATE-TOKEN`."
)


def read_headers(source: str, folder: Path | None) -> Mapping[str, str]:
    """The headers that a Secret asks for; none when there is no Secret.

    Args:
        source: Name of the source, for messages.
        folder: Where the Secret's keys are, as files.

    Raises:
        AuthenticationFailed: The Secret is of no form that makes headers.
    """
    if folder is None:
        return {}
    headers = {
        key.name.removeprefix(HEADER_PREFIX): _read(source, key)
        for key in sorted(folder.iterdir())
        if key.name.startswith(HEADER_PREFIX) and key.is_file()
    }
    for name in headers:
        if not _NAME.fullmatch(name) or name.lower() in _OWN:
            raise AuthenticationFailed(f"The Secret of source {source!r} may not set the header {name!r}.", _HINT)
    authorizations = [*_basic(source, folder), *_bearer(source, folder)]
    named = any(name.lower() == "authorization" for name in headers)
    if len(authorizations) + named > 1:
        message = f"The Secret of source {source!r} says in more than one way what `Authorization` is."
        raise AuthenticationFailed(message, _HINT)
    if authorizations:
        headers["Authorization"] = authorizations[0]
    if not headers:
        message = f"The Secret of source {source!r} has no `username` and `password`, no `token` and no `header.NAME`."
        raise AuthenticationFailed(message, _HINT)
    return headers


def _basic(source: str, folder: Path) -> list[str]:
    keys = [key for key in ("username", "password") if (folder / key).is_file()]
    if len(keys) == 1:
        lacks = "password" if keys == ["username"] else "username"
        raise AuthenticationFailed(f"The Secret of source {source!r} has no `{lacks}`.", _HINT)
    if not keys:
        return []
    username, password = (_read_text(source, folder / key) for key in keys)
    if ":" in username:
        raise AuthenticationFailed(f"The `username` in the Secret of source {source!r} has a colon.", _HINT)
    return [f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"]


def _bearer(source: str, folder: Path) -> list[str]:
    return [f"Bearer {_read(source, folder / 'token')}"] if (folder / "token").is_file() else []


def _read(source: str, path: Path) -> str:
    """A value that can stand in a header."""
    value = _read_text(source, path).strip()
    if not _VALUE.fullmatch(value):
        message = f"The key {path.name!r} in the Secret of source {source!r} can't stand in an HTTP header."
        raise AuthenticationFailed(message, "It must be one line of at most 8192 printable ASCII characters.")
    return value


def _read_text(source: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        message = f"The key {path.name!r} in the Secret of source {source!r} is no text."
        raise AuthenticationFailed(message, _HINT) from error
