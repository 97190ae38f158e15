"""Logs of containers, line by line with their times."""

import contextlib
from collections.abc import Iterator

import urllib3

from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.kinds import POD
from codetune_operator.errors import TemporaryError

READ_SECONDS = 40
"""Longest silence of a log before the connection is made anew: a run says something every 30 s."""
LINE_LIMIT = 4 * 2**20
"""Longest line in bytes; of a longer one nothing is kept."""
_PIECE = 64 * 2**10


def read_log(
    cluster: Cluster, *, namespace: str, pod: str, container: str, since: str | None, follow: bool
) -> Iterator[tuple[str, str]]:
    """Lines of a container's log as (time, text); blocks, so it runs in a thread of its own.

    Args:
        cluster: Where.
        namespace: The pod's namespace.
        pod: The pod.
        container: The container.
        since: RFC 3339: from here on; the second itself is included. None: from the beginning.
        follow: Wait for more until the container ends.

    Raises:
        OperatorError: The server refused, could not be reached, or the connection broke off.
    """
    query = [("container", container), ("timestamps", "true")]
    if since is not None:
        query.append(("sinceTime", since))
    if follow:
        query.append(("follow", "true"))
    response = cluster.stream(POD.path(namespace, pod, "log"), query, read_seconds=READ_SECONDS)
    with contextlib.closing(response):
        yield from _split_times(split_lines(_read_pieces(response)))


def split_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Whole lines without their line break; the last one counts even without it, one that is too long does not."""
    rest, too_long = b"", False
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if not too_long:
                yield line
            too_long = False
        if len(rest) > LINE_LIMIT:
            rest, too_long = b"", True
    if rest and not too_long:
        yield rest


def _read_pieces(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        while piece := response.read1(_PIECE):
            yield piece
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TemporaryError(f"The log stream broke off: {error}") from error


def _split_times(lines: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    for line in lines:
        time, _, text = line.decode(errors="replace").rstrip("\r").partition(" ")
        yield time, text
