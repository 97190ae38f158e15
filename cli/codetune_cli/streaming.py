"""Answers that are read while they come."""

from collections.abc import Iterable, Iterator

import urllib3

from codetune_cli.connecting import Answer
from codetune_cli.errors import Interrupted

_PIECE = 256 * 2**10
LINE_LIMIT = 4 * 2**20
"""Bytes of a line; of a longer one nothing is held back for its end."""


def read_pieces(answer: Answer) -> Iterator[bytes]:
    """The body of an answer as it comes. Raises: Interrupted."""
    try:
        while piece := answer.read1(_PIECE):
            yield piece
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Interrupted(f"The answer broke off: {error}") from error
    finally:
        answer.close()


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their line break, each as soon as it is whole; one above the limit comes in parts."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        if len(rest) > LINE_LIMIT:
            yield rest
            rest = b""
    if rest:
        yield rest
