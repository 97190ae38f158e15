"""Digests of a text: of itself, and of what is left when the ways to write its line ends are one. Pure."""

import hashlib
from typing import NamedTuple


class Digests(NamedTuple):
    """What tells whether two texts are the same."""

    exact: bytes
    """SHA-256 of the text in UTF-8."""
    normal: bytes
    """The same of the text with CRLF and CR as LF, and without white space (ASCII's) at its end."""


def digest_text(data: bytes) -> Digests:
    """The digests of a text in UTF-8, which is hashed once unless it has a CR."""
    if b"\r" in data:
        normal = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip()
        return Digests(hashlib.sha256(data).digest(), hashlib.sha256(normal).digest())
    begun = hashlib.sha256(body := data.rstrip())
    normal_digest = begun.digest()  # leaves what is hashed open to more
    begun.update(data[len(body) :])
    return Digests(begun.digest(), normal_digest)
